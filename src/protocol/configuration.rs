//! Configuration schemas, and checking a proposed configuration against one
//! ([Configuration schema](crate::protocol#configuration-schema) and
//! [Configuration](crate::protocol#configuration)). Sending and storing configurations is not here.

use std::collections::HashMap;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Map, Number, Value};

use super::kind_of;
use super::manifest::ManifestObject;
use crate::error::{FieldProblem, FieldProblemKind};

const KNOWN_TYPES: &str = "\"string\", \"number\", \"boolean\"";

/// A configuration: an object with the members that the plugin understands.
pub(crate) type Configuration = Map<String, Value>;

/// A configuration as `Debug` shows it: by the names of its members, since values may be secrets.
pub(crate) struct MemberNames<'a>(pub(crate) &'a Configuration);

impl fmt::Debug for MemberNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// One field of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConfigurationField {
    /// The field's type, with its default.
    #[serde(flatten)]
    pub kind: ConfigurationFieldKind,
    /// The name of the member in the configuration; surrounding white space is ignored.
    pub id: String,
    /// The label for people; may be empty.
    pub label: String,
    /// The description for people; may be empty.
    pub description: String,
}

/// The type of a field, with the default that an admin page shows while no value is stored. **The
/// host never applies defaults**: a plugin has its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum ConfigurationFieldKind {
    /// A string.
    String {
        /// Shown while no value is stored.
        #[serde(skip_serializing_if = "Option::is_none")]
        default: Option<String>,
    },
    /// Any number.
    Number {
        /// Shown while no value is stored.
        #[serde(skip_serializing_if = "Option::is_none")]
        default: Option<Number>,
    },
    /// A boolean.
    Boolean {
        /// Shown while no value is stored.
        #[serde(skip_serializing_if = "Option::is_none")]
        default: Option<bool>,
    },
}

/// Returns the problems of a proposed configuration; see
/// [`Manifest::configuration_problems`](super::Manifest::configuration_problems).
pub(super) fn problems(
    fields: &[ConfigurationField],
    proposal: &Configuration,
) -> Vec<FieldProblem> {
    // Two fields with one id: the last counts.
    let fields: HashMap<&str, &ConfigurationField> = fields
        .iter()
        .map(|field| (field.id.trim(), field))
        .filter(|(id, _)| !id.is_empty())
        .collect();
    proposal
        .iter()
        .filter_map(|(name, value)| {
            let kind = &fields.get(name.as_str())?.kind;
            (!kind.accepts(value)).then(|| {
                let (expected, found) = (kind.expected(), kind_of(value));
                let kind = FieldProblemKind::Type { expected, found };
                FieldProblem::new(FieldProblem::piece(name), kind)
            })
        })
        .collect()
}

/// Returns the default values of the fields, by their ids.
pub(super) fn defaults(fields: &[ConfigurationField]) -> Configuration {
    fields
        .iter()
        .filter(|field| !field.id.trim().is_empty())
        .filter_map(|field| Some((field.id.trim().to_owned(), field.kind.default()?)))
        .collect()
}

/// Reads a manifest's `configuration_schema`: its fields.
pub(super) fn decode_schema(object: &mut ManifestObject<'_>) -> Vec<ConfigurationField> {
    object.objects("fields", ConfigurationField::decode)
}

/// Writes it. Without fields it is an empty object.
// The signature is serde's.
#[expect(clippy::ref_option)]
pub(super) fn serialize_schema<S: Serializer>(
    fields: &Option<Vec<ConfigurationField>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let fields = fields.iter().filter(|fields| !fields.is_empty());
    serializer.collect_map(fields.map(|fields| ("fields", fields)))
}

impl ConfigurationField {
    fn decode(object: &mut ManifestObject<'_>) -> Option<Self> {
        let name = object.type_name()?;
        let kind = match name.as_str() {
            "string" => ConfigurationFieldKind::String {
                default: object.optional_string("default"),
            },
            "number" => ConfigurationFieldKind::Number {
                default: object.optional_number("default"),
            },
            "boolean" => ConfigurationFieldKind::Boolean {
                default: object.optional_boolean("default"),
            },
            _ => {
                object.unknown("type", &name, KNOWN_TYPES);
                return None;
            }
        };
        Some(Self {
            kind,
            id: object.string("id"),
            label: object.string("label"),
            description: object.string("description"),
        })
    }
}

impl ConfigurationFieldKind {
    /// The default value.
    fn default(&self) -> Option<Value> {
        match self {
            Self::String { default } => default.clone().map(Value::from),
            Self::Number { default } => default.clone().map(Value::from),
            Self::Boolean { default } => default.map(Value::from),
        }
    }

    fn accepts(&self, value: &Value) -> bool {
        match self {
            Self::String { .. } => value.is_string(),
            Self::Number { .. } => value.is_number(),
            Self::Boolean { .. } => value.is_boolean(),
        }
    }

    const fn expected(&self) -> &'static str {
        match self {
            Self::String { .. } => "a string",
            Self::Number { .. } => "a number",
            Self::Boolean { .. } => "a boolean",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(id: &str, kind: ConfigurationFieldKind) -> ConfigurationField {
        ConfigurationField {
            kind,
            id: id.to_owned(),
            label: String::new(),
            description: String::new(),
        }
    }

    fn schema() -> Vec<ConfigurationField> {
        vec![
            field("channel", ConfigurationFieldKind::String { default: None }),
            field(" limit ", ConfigurationFieldKind::Number { default: None }),
            field("loud", ConfigurationFieldKind::Boolean { default: None }),
        ]
    }

    fn problems(schema: &[ConfigurationField], proposal: Value) -> Vec<String> {
        let Value::Object(proposal) = proposal else {
            panic!("{proposal} is no configuration");
        };
        super::problems(schema, &proposal)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn types_of_named_members_are_checked_all_at_once() {
        let good = json!({"channel": "general", "limit": 2.5, "loud": false});
        assert!(problems(&schema(), good).is_empty());
        let bad = json!({"channel": 1, "limit": "25", "loud": null, "other": null});
        assert_eq!(
            problems(&schema(), bad),
            [
                "field `channel` must be a string, found a number",
                "field `limit` must be a number, found a string",
                "field `loud` must be a boolean, found null",
            ]
        );
    }

    #[test]
    fn nothing_is_required_and_unknown_members_are_allowed() {
        assert!(problems(&schema(), json!({})).is_empty());
        assert!(problems(&schema(), json!({"more": [1, 2]})).is_empty());
        assert!(problems(&[], json!({"limit": "x"})).is_empty());
    }

    #[test]
    fn defaults_are_listed_by_trimmed_id_and_the_last_of_an_id_counts() {
        let number = |text: &str| ConfigurationFieldKind::Number {
            default: Some(serde_json::from_str(text).unwrap()),
        };
        let schema = [
            field(" limit ", number("1")),
            field("limit", number("0.1")),
            field("", number("3")),
            field("loud", ConfigurationFieldKind::Boolean { default: None }),
        ];
        assert_eq!(Value::from(defaults(&schema)), json!({"limit": 0.1}));
    }

    #[test]
    fn the_last_field_of_an_id_counts_and_an_empty_id_names_nothing() {
        let mut schema = schema();
        schema.push(field(
            "limit",
            ConfigurationFieldKind::String { default: None },
        ));
        schema.push(field(
            "  ",
            ConfigurationFieldKind::Boolean { default: None },
        ));
        assert!(problems(&schema, json!({"limit": "25", "": 1, "  ": 1})).is_empty());
    }
}
