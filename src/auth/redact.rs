//! `redact`: takes tokens out of text that is going to be logged.

/// Returns the text with the value of every `token=…` replaced by `…`, and every `sdprt_…` likewise.
///
/// For URL-like text of any kind, whole log lines included: it does not have to be a valid URL. A
/// value ends at `&`, `#`, white space, a quote or an angle bracket. Keys that merely end in
/// `token`, in any capitals, count too, and so does an encoded equals sign.
pub fn redact(text: &str) -> String {
    const KEYS: [&str; 3] = ["token=", "token%3d", "sdprt_"];
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((start, key)) = first(rest, &KEYS) {
        let value = start + key.len();
        let length = rest[value..]
            .find(|character: char| {
                character.is_whitespace() || matches!(character, '&' | '#' | '"' | '\'' | '<' | '>')
            })
            .unwrap_or(rest.len() - value);
        shown.push_str(&rest[..value]);
        if length > 0 {
            shown.push('…');
        }
        rest = &rest[value + length..];
    }
    shown.push_str(rest);
    shown
}

/// The first place where one of the keys (in lower case) stands, in whatever capitals.
fn first<'key>(text: &str, keys: &[&'key str]) -> Option<(usize, &'key str)> {
    (0..text.len()).find_map(|start| {
        let here = &text.as_bytes()[start..];
        keys.iter()
            .find(|key| {
                here.get(..key.len())
                    .is_some_and(|bytes| bytes.eq_ignore_ascii_case(key.as_bytes()))
            })
            .map(|key| (start, *key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_tokens_go_and_the_rest_stays() {
        for (text, shown) in [
            ("", ""),
            ("nothing to hide", "nothing to hide"),
            (
                "ws://localhost:8000/rpc?plugin_id=x&token=AAEC_-9 refused",
                "ws://localhost:8000/rpc?plugin_id=x&token=… refused",
            ),
            (
                "GET /rpc?token=abc&plugin_id=x HTTP/1.1",
                "GET /rpc?token=…&plugin_id=x HTTP/1.1",
            ),
            (
                "{\"url\":\"ws://h/rpc?token=abc\"}",
                "{\"url\":\"ws://h/rpc?token=…\"}",
            ),
            ("token=a&token=b", "token=…&token=…"),
            ("Access_Token=abc;def#x", "Access_Token=…#x"),
            ("?next=%3Ftoken%3Dabc%26x", "?next=%3Ftoken%3D…"),
            ("the token sdprt_abc is old", "the token sdprt_… is old"),
            ("token=", "token="),
            ("ä token=ß ü", "ä token=… ü"),
        ] {
            assert_eq!(redact(text), shown, "{text:?}");
        }
    }
}
