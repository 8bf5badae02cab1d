//! Reads one YAML document as JSON, and remembers on which line each value stands.

use std::collections::HashMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Options, Spanned};

/// Each level takes tens of KiB of stack where nothing is optimised, and a schema in a manifest has about ten.
const DEPTH: usize = 40;
const NODES: usize = 20_000;

/// A document as JSON.
#[derive(Debug)]
pub(crate) struct YamlDocument {
    pub(crate) value: Value,
    lines: HashMap<String, u64>,
}

impl YamlDocument {
    /// Reads a document.
    ///
    /// Aliases are refused, since a short text with some becomes any number of long ones; so is what JSON does
    /// not have. Values that are nested deeper than 40, or are more than 20,000, are refused too.
    ///
    /// # Errors
    /// What is wrong, and on which line, in a sentence that is not escaped.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let root: Spanned<Node> =
            serde_saphyr::from_str_with_options(text, options()).map_err(|error| told(&error))?;
        let mut lines = HashMap::new();
        let value = root.value.into_json("", &mut lines);
        Ok(Self { value, lines })
    }

    /// Returns the line of a value, or else that of the nearest value around it that has a name: `a.b[0].c`.
    pub(crate) fn line(&self, path: &str) -> Option<u64> {
        let ends = path.rmatch_indices(['.', '[']).map(|(end, _)| &path[..end]);
        let mut paths = std::iter::once(path).chain(ends);
        paths.find_map(|path| self.lines.get(path).copied())
    }

    /// Returns a value by the path that it has for [`line`](Self::line), if it is one without quotes that is no
    /// text: `1.10` or `yes`.
    pub(crate) fn is_bare(&self, path: &str) -> bool {
        let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
        let value = self.value.pointer(&pointer);
        value.is_some_and(|value| value.is_number() || value.is_boolean())
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 0,
            max_depth: DEPTH,
            flow_nesting_limit: DEPTH,
            max_nodes: NODES,
        },
        // They would be lines of their own.
        with_snippet: false,
        leading_zero_numbers_as_strings: true,
    }
}

/// Replaces what the library tells to those who call it.
fn told(error: &Error) -> String {
    let error = error.without_snippet();
    let problem = match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("{key:?} is there twice"),
        Error::MultipleDocuments { .. } => {
            "a second document begins; a manifest is one document".to_owned()
        }
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Aliases { .. } => {
                "an alias (*name) is used; write out what it stands for".to_owned()
            }
            BudgetBreach::Depth { .. } => {
                format!("values are nested deeper than the limit of {DEPTH}")
            }
            BudgetBreach::Nodes { .. } => {
                format!("there are more values than the limit of {NODES}")
            }
            _ => return error.to_string(),
        },
        _ => return error.to_string(),
    };
    match error.location() {
        Some(location) => format!("{problem} at line {}", location.line()),
        None => problem,
    }
}

/// A value and where its parts are.
enum Node {
    Scalar(Value),
    List(Vec<Spanned<Self>>),
    Object(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl Node {
    fn into_json(self, path: &str, lines: &mut HashMap<String, u64>) -> Value {
        match self {
            Self::Scalar(value) => value,
            Self::List(elements) => {
                let elements = elements.into_iter().enumerate().map(|(index, element)| {
                    let path = format!("{path}[{index}]");
                    lines.insert(path.clone(), element.referenced.line());
                    element.value.into_json(&path, lines)
                });
                Value::Array(elements.collect())
            }
            Self::Object(members) => {
                let members = members.into_iter().map(|(name, value)| {
                    let dot = if path.is_empty() { "" } else { "." };
                    let path = format!("{path}{dot}{}", name.value);
                    lines.insert(path.clone(), name.referenced.line());
                    (name.value, value.value.into_json(&path, lines))
                });
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has too")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value);
        let number = number.ok_or_else(|| E::custom("the number is not finite"))?;
        Ok(Node::Scalar(number.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Node::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        YamlDocument::parse(text).unwrap().value
    }

    fn refused(text: &str, part: &str) {
        let error = YamlDocument::parse(text).unwrap_err();
        assert!(error.contains(part), "{error}");
        // It is one short sentence, whatever the document has.
        assert!(error.len() < 200 && !error.contains('\n'), "{error:?}");
    }

    #[test]
    fn it_becomes_json() {
        let text = "# what it is\nid: x # here\nargs: [a, 'b']\nlist:\n  - n: 1\n    m:\n      o: {p: q}\n  - ~\n\
                    text: |\n  a\n  b\n";
        let list = json!([{"n": 1, "m": {"o": {"p": "q"}}}, null]);
        let value = json!({"id": "x", "args": ["a", "b"], "list": list, "text": "a\nb\n"});
        assert_eq!(read(text), value);
    }

    #[test]
    fn scalars_are_what_they_look_like() {
        for (text, value) in [
            ("1.10", json!(1.1)),
            ("1.0.0", json!("1.0.0")),
            ("'1.10'", json!("1.10")),
            ("true", json!(true)),
            ("~", json!(null)),
            ("2026-01-02", json!("2026-01-02")),
            ("007", json!("007")),
            ("18446744073709551615", json!(u64::MAX)),
            ("!!str 5", json!("5")),
            // Tags run nothing.
            ("!!python/object/apply:os.system [ls]", json!(["ls"])),
        ] {
            assert_eq!(read(&format!("a: {text}\n"))["a"], value, "{text}");
        }
    }

    #[test]
    fn each_value_has_its_line() {
        let document = YamlDocument::parse("id: x\nlist:\n  - a\n  - b: 1.10\n").unwrap();
        assert_eq!(document.line("id"), Some(1));
        assert_eq!(document.line("list"), Some(2));
        assert_eq!(document.line("list[0]"), Some(3));
        assert_eq!(document.line("list[1].b"), Some(4));
        // What is missing would be in what is there.
        assert_eq!(document.line("list[1].c"), Some(4));
        assert_eq!(document.line("author"), None);
        assert!(document.is_bare("list[1].b") && !document.is_bare("id"));
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_line() {
        refused("a: 1\nb: 2\na: 3\n", "\"a\" is there twice at line 3");
        refused("a: 1\n---\nb: 2\n", "a second document begins");
        refused("a: .nan\n", "line 1");
        refused("a: 1\n? [x]\n: 2\n", "line 2");
        refused("a: 1\nb: [\n", "line 2");
        refused("a:\n  b: 1\n c: 2\n", "line 3");
        refused("a: 1\nb: \u{1b}[2J\n", "line 2");
        refused("a: *x\n", "line 1");
    }

    #[test]
    fn hostile_documents_are_bounded() {
        let first = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        let others = "abcdefgh".chars().zip("bcdefghi".chars());
        let others = others.map(|(last, name)| {
            let aliases = vec![format!("*{last}"); 9].join(", ");
            format!("{name}: &{name} [{aliases}]\n")
        });
        let laughs: String = std::iter::once(first).chain(others).collect();
        refused(&laughs, "an alias (*name) is used");
        refused(&format!("a: {}", "[".repeat(20_000)), "line 1");
        let blocks = (0..150).map(|depth| " ".repeat(depth) + "a:\n");
        refused(&blocks.collect::<String>(), "deeper than the limit of 40");
        // On the stack of a thread.
        let deepest = format!("{}1{}", "[".repeat(DEPTH - 1), "]".repeat(DEPTH - 1));
        assert!(YamlDocument::parse(&format!("a: {deepest}")).is_ok());
        refused(&"- x\n".repeat(30_000), "more values than the limit");
    }
}
