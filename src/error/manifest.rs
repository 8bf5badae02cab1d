//! Errors of manifests: why one cannot be read, and what is wrong in one that can.

use std::fmt;

use serde::Serialize;

use crate::text::{Foreign, cut};

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// The text is not one JSON value. Anything after the value lands here too.
    #[error("the manifest is not valid JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// The text is JSON, but not an object.
    #[error("the manifest is not a JSON object but {found}")]
    NotAnObject {
        /// What it is instead, such as `an array`.
        found: &'static str,
    },
    /// The object is not a usable manifest.
    #[error("the manifest cannot be used: {}", super::listed(.problems))]
    Invalid {
        /// Everything that is wrong, never empty, at most [`FieldProblem::LIMIT`].
        problems: Vec<FieldProblem>,
    },
}

impl ManifestError {
    /// The problems found in the manifest's object; empty if the text is not an object.
    pub(crate) fn problems(&self) -> &[FieldProblem] {
        match self {
            Self::Invalid { problems } => problems,
            Self::Json(_) | Self::NotAnObject { .. } => &[],
        }
    }
}

/// What is wrong with one field of a manifest or of a proposed configuration. Displayed as
/// "field `author` is missing or empty".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FieldProblem {
    /// The field: for a manifest as a path from its top, such as `capabilities[0].tools[2].id`. It may be
    /// text from outside: show it with [`escape`](crate::text::escape).
    pub field: String,
    /// What is wrong with it, to be read after the field's name: `must be a number, found a string`.
    pub message: String,
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field `{}` {}", Foreign::new(&self.field), self.message)
    }
}

impl FieldProblem {
    /// How many problems of one manifest are reported at most.
    pub(crate) const LIMIT: usize = 100;

    /// Cuts a piece of a manifest to 100 bytes, and notes how many are missing.
    pub(crate) fn piece(text: &str) -> String {
        cut(text, 100).into_owned()
    }

    pub(crate) fn new(field: impl Into<String>, kind: FieldProblemKind) -> Self {
        Self {
            field: field.into(),
            message: kind.to_string(),
        }
    }
}

/// What is wrong with a field.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FieldProblemKind {
    /// The field has the wrong JSON type.
    #[error("must be {expected}, found {found}")]
    Type {
        /// The expected type, such as `a string`.
        expected: &'static str,
        /// The type found.
        found: &'static str,
    },
    /// The field is required and must not be empty.
    #[error("is missing or empty")]
    Empty,
    /// The text is too long.
    #[error("must have at most {limit} bytes, found {found}")]
    TooLong {
        /// The limit, in bytes of UTF-8.
        limit: usize,
        /// Its length.
        found: usize,
    },
    /// The text has characters that are not allowed.
    #[error("must {allowed}, found {:?}", Foreign::new(.found))]
    Characters {
        /// What is allowed: `begin and end with a letter or digit …`.
        allowed: &'static str,
        /// The text found.
        found: String,
    },
    /// The value is not one of a fixed set.
    #[error("must be one of {known}, found {:?}", Foreign::new(.found))]
    UnknownName {
        /// The known names.
        known: &'static str,
        /// The text found.
        found: String,
    },
    /// The value was used before.
    #[error("has {:?} a second time", Foreign::new(.found))]
    Duplicate {
        /// The value.
        found: String,
    },
    /// A toolset names a tool that its provider does not have.
    #[error("names the tool {:?}, which this provider does not have", Foreign::new(.found))]
    UnknownTool {
        /// The tool's id.
        found: String,
    },
    /// The schema of a tool's input or output does not describe an object.
    #[error("must be a JSON Schema whose top-level `type` is \"object\"")]
    NotAnObjectSchema,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_line() {
        let error = ManifestError::Invalid {
            problems: vec![
                FieldProblem::new("id", FieldProblemKind::Empty),
                FieldProblem::new(
                    "args[1]",
                    FieldProblemKind::Type {
                        expected: "a string",
                        found: "a number",
                    },
                ),
            ],
        };
        assert_eq!(
            error.to_string(),
            "the manifest cannot be used: field `id` is missing or empty; field `args[1]` must be a string, found a \
             number"
        );
        assert_eq!(error.problems().len(), 2);
    }

    #[test]
    fn what_is_shown_of_a_manifest_is_short_and_on_one_line() {
        let found = FieldProblem::piece(&"ä\n".repeat(1_000));
        let shown = FieldProblemKind::Duplicate { found }.to_string();
        assert!(shown.len() < 300, "{}", shown.len());
        assert!(!shown.contains('\n'));
    }
}
