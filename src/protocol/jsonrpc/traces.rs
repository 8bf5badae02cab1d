//! Traces of messages in text that is not a message: answers within a line of a log, ids in a message that
//! cannot be read. They are used to say what went wrong, never to go on with the message.

use super::envelope::Members;
use crate::id::RequestId;

/// How many beginnings of objects are tried in one text.
const ATTEMPTS: usize = 32;
/// How many bytes all attempts together may read, besides four times the length of the text. This bounds
/// the time that hostile text can take.
const AGAIN: usize = 64 * 1024;

/// Finds the first answer to an id for which `is_asked_for` is true: an object with `result` or `error` and
/// without `params`, wherever in the text it begins.
pub(crate) fn find_answer(
    text: &str,
    is_asked_for: impl Fn(RequestId) -> bool,
) -> Option<RequestId> {
    memchr::memmem::find(text.as_bytes(), b"\"id\"")?;
    let mut budget = 4 * text.len() + AGAIN;
    memchr::memchr_iter(b'{', text.as_bytes())
        .take(ATTEMPTS)
        .map_while(|start| {
            // Each may go on to the end.
            budget = budget.checked_sub(text.len() - start)?;
            Some(start)
        })
        .find_map(|start| {
            let mut objects = serde_json::Deserializer::from_str(&text[start..]).into_iter();
            let object: Members<'_> = objects.next()?.ok()?;
            object.answered().filter(|id| is_asked_for(*id))
        })
}

/// Finds the first id for which `is_asked_for` is true in a message that cannot be read: the value of a
/// member `id`, whatever is wrong with the rest.
pub(crate) fn find_id(text: &str, is_asked_for: impl Fn(RequestId) -> bool) -> Option<RequestId> {
    memchr::memmem::find_iter(text.as_bytes(), b"\"id\"").find_map(|start| {
        let rest = text[start..].strip_prefix("\"id\"")?.trim_start();
        let rest = rest.strip_prefix(':')?.trim_start().strip_prefix('"')?;
        let (id, _) = rest.split_once('"')?;
        id.parse().ok().filter(|id| is_asked_for(*id))
    })
}

/// Whether a line that is not a message looks as if it was meant as one, or as a piece of one.
pub(crate) fn resembles_message(line: &str) -> bool {
    let has = |quoted: [&str; 2]| {
        let is_there =
            |name: &str| memchr::memmem::find(line.as_bytes(), name.as_bytes()).is_some();
        quoted.into_iter().any(is_there)
    };
    let [id, result, error] = [
        ["\"id\"", "'id'"],
        ["\"result\"", "'result'"],
        ["\"error\"", "'error'"],
    ];
    has(["\"jsonrpc\"", "'jsonrpc'"]) || has(id) && (has(result) || has(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "d5k2m2c5o2dtjn9ct6bg";

    fn is_ours(id: RequestId) -> bool {
        id.to_string() == ID
    }

    fn answers(text: &str) -> bool {
        find_answer(&text.replace("ID", ID), is_ours).is_some()
    }

    #[test]
    fn an_answer_is_found_wherever_it_begins() {
        for text in [
            r#"{"id":"ID","result":{}}"#,
            r#"DEBUG {"a":1} sending {"jsonrpc":"2.0","id":"ID","result":{"x":[{}]}} now"#,
            r#"{"level":"debug","reply":{"id":"ID","error":{"code":1}}}"#,
            r#"{"level":"error","id":"ID","error":"no"}"#,
            r#"{{{"id":"ID","result":null}"#,
        ] {
            assert!(answers(text), "{text}");
        }
        for text in [
            "",
            "{",
            r#"{"id":"ID"}"#,
            r#"{"id":"ID","result":{"#,
            r#"{"id":"ID","method":"x","params":{},"result":{}}"#,
            r#"{"id":"d5k2m2c5o2dtjn9ct6b0","result":{}}"#,
            r#"{"id":5,"result":{}}"#,
            r"{'id':'ID','result':{}}",
        ] {
            assert!(!answers(text), "{text}");
        }
    }

    #[test]
    fn a_hostile_line_takes_bounded_time() {
        // Each of the objects goes on to the end of the line.
        let nested = r#"{"id":"#.repeat(700_000);
        assert!(!answers(&nested));
    }

    #[test]
    fn an_id_is_found_in_what_cannot_be_read() {
        let finds = |text: &str| find_id(&text.replace("ID", ID), is_ours).is_some();
        for text in [
            r#"{"jsonrpc":"2.0","id":"ID","result":{"value":NaN}}"#,
            "{\"id\" :\n \"ID\",\"result\":\"\u{1}\"}",
            r#"[{"id":1},{"id":"ID","result":{}}]"#,
            r#"{"id":"ID"#,
        ] {
            let whole = !text.ends_with("ID");
            assert_eq!(finds(text), whole, "{text}");
        }
        for text in ["", r#""id""#, r#"{"id":ID}"#, r#"{"id":"","x":"ID"}"#, "ID"] {
            assert!(!finds(text), "{text}");
        }
    }

    #[test]
    fn what_was_meant_to_be_a_message_is_told_from_other_output() {
        for line in [
            r#"  "jsonrpc": "2.0","#,
            "{'jsonrpc': '2.0', 'id': 'x'}",
            r#"{"id":7,"result":{}}"#,
            r#"reply {"id":"x","error":"no""#,
        ] {
            assert!(resembles_message(line), "{line}");
        }
        for line in ["", "listening", r#"{"level":"info","id":7}"#, "jsonrpc"] {
            assert!(!resembles_message(line), "{line}");
        }
    }
}
