//! Line breaks in JSON, which a transport of lines must not carry within a message.

use memchr::memchr2;

/// Replaces line breaks by spaces. Between the tokens of JSON both are white space, and within strings
/// JSON has no line breaks.
pub(crate) fn replace(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(found) = memchr2(b'\n', b'\r', &bytes[at..]) {
        at += found;
        bytes[at] = b' ';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_become_spaces_wherever_they_are() {
        for text in ["", "x", "\n", "\r\n", "a\nb\r", "{\r\n  1\n}\n\n"] {
            let mut bytes = text.as_bytes().to_vec();
            replace(&mut bytes);
            let expected = text.replace(['\n', '\r'], " ");
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
    }
}
