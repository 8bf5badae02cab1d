//! Configuration schemas, and configurations checked against them.

use plugin_runner::protocol::{ConfigurationField, ConfigurationFieldKind, Manifest};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::Target;
use super::json::{Json, Make};
use crate::random::Random;

pub(crate) const TARGET: Target = Target {
    name: "configuration",
    generate,
    words: &[
        b"\"type\":\"string\"",
        b"\"type\":\"number\"",
        b"\"default\":null,",
        b"\"id\":\" a \",",
        b"\"id\":\"\",",
        b"\\u00a0",
        b"\"fields\":",
        b"\"proposal\":",
    ],
    longest: 8 * 1024,
    check,
    runs: 4_000,
};

fn generate(random: &mut Random) -> Vec<u8> {
    let mut json = Json::new(random);
    json.object(&[("schema", schema), ("proposal", proposal)]);
    json.text.into_bytes()
}

pub(crate) fn schema(json: &mut Json) {
    json.some_of(&[], &[("fields", |json| json.list(5, field))]);
}

fn field(json: &mut Json) {
    let (kind, default): (Make, Make) = match json.random.below(3) {
        0 => (|json| json.plain("string"), Json::string),
        1 => (|json| json.plain("number"), Json::number),
        _ => (|json| json.plain("boolean"), Json::boolean),
    };
    json.some_of(
        &[("type", kind), ("id", name)],
        &[
            ("label", Json::string),
            ("description", Json::string),
            ("default", default),
        ],
    );
}

fn name(json: &mut Json) {
    let name = json
        .random
        .pick(&["a", "b", "c", " a", "b ", "\u{a0}c", "", " ", "channel"]);
    json.plain(name);
}

fn proposal(json: &mut Json) {
    json.some_of(
        &[],
        &[
            ("a", Json::value),
            ("b", Json::value),
            ("c", Json::value),
            ("", Json::value),
            ("channel", Json::string),
        ],
    );
}

fn check(input: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(input) else {
        return false;
    };
    let manifest = json!({ "configuration_schema": value.get("schema") });
    let Ok(manifest) = Manifest::deserialize(&manifest) else {
        return false;
    };
    let written = serde_json::to_value(&manifest).unwrap();
    let again = Manifest::deserialize(&written).unwrap();
    assert_eq!(again, manifest);
    let Some(proposal) = value.get("proposal").and_then(Value::as_object) else {
        return false;
    };
    let found: Vec<String> = manifest
        .configuration_problems(proposal)
        .iter()
        .map(ToString::to_string)
        .collect();
    let fields = manifest.configuration_schema.unwrap_or_default();
    let expected = problems(&fields, proposal);
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!(found.ends_with(expected), "{found} {expected}");
        assert!(!found.contains(char::is_control), "{found:?}");
    }
    found.is_empty()
}

/// The ends of the error lines, by looking up the field of each member anew.
fn problems(fields: &[ConfigurationField], proposal: &Map<String, Value>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, value) in proposal {
        let field = fields
            .iter()
            .rfind(|field| field.id.trim() == name && !name.is_empty());
        let expected = match field.map(|field| &field.kind) {
            Some(ConfigurationFieldKind::String { .. }) if !value.is_string() => "a string",
            Some(ConfigurationFieldKind::Number { .. }) if !value.is_number() => "a number",
            Some(ConfigurationFieldKind::Boolean { .. }) if !value.is_boolean() => "a boolean",
            _ => continue,
        };
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        problems.push(format!(" must be {expected}, found {found}"));
    }
    problems
}
