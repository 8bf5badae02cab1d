//! Reads the members of a JSON object one by one, and collects all members of the wrong type instead
//! of stopping at the first. What a manifest's members mean is not here.
//!
//! The rules are those of the decoder that plugins were written against
//! ([Top-level fields](crate::protocol#top-level-fields)): names match ignoring case, `null` is the
//! same as leaving the member out, and a missing member is empty.

use serde_json::{Map, Number, Value};

use crate::error::{FieldProblem, FieldProblemKind};
use crate::protocol::kind_of;

/// The problems found, up to [`FieldProblem::LIMIT`].
#[derive(Default)]
pub(super) struct Problems(Vec<FieldProblem>);

impl Problems {
    pub(super) fn add(&mut self, field: impl Into<String>, kind: FieldProblemKind) {
        if self.0.len() < FieldProblem::LIMIT {
            self.0.push(FieldProblem::new(field, kind));
        }
    }

    /// Adds a problem if the id is empty or does not match the pattern that `allowed` describes.
    pub(super) fn check_characters(
        &mut self,
        field: impl Into<String>,
        id: &str,
        matches: fn(&str) -> bool,
        allowed: &'static str,
    ) {
        if id.is_empty() {
            self.add(field, FieldProblemKind::Empty);
        } else if !matches(id) {
            let found = FieldProblem::piece(id);
            self.add(field, FieldProblemKind::Characters { allowed, found });
        }
    }

    pub(super) fn into_vec(self) -> Vec<FieldProblem> {
        self.0
    }
}

/// An object whose members are taken out one by one.
pub(crate) struct ManifestObject<'p> {
    path: String,
    members: Map<String, Value>,
    problems: &'p mut Problems,
}

impl<'p> ManifestObject<'p> {
    pub(super) fn new(members: Map<String, Value>, problems: &'p mut Problems) -> Self {
        Self {
            path: String::new(),
            members,
            problems,
        }
    }

    /// Returns the members that have not been taken.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.members
    }

    /// Takes the member `type`, which tells the objects of a list apart. If it is missing, that is a
    /// problem and `None`.
    pub(crate) fn type_name(&mut self) -> Option<String> {
        match self.take("type") {
            Some(Value::String(name)) => Some(name),
            Some(other) => self.wrong("type", "a string", &other),
            None => {
                self.problem("type", FieldProblemKind::Empty);
                None
            }
        }
    }

    /// Adds the problem that the member `name` has an unknown value.
    pub(crate) fn unknown(&mut self, name: &str, found: &str, known: &'static str) {
        let found = FieldProblem::piece(found);
        self.problem(name, FieldProblemKind::UnknownName { known, found });
    }

    /// Takes a string; empty if missing.
    pub(crate) fn string(&mut self, name: &str) -> String {
        self.optional_string(name).unwrap_or_default()
    }

    /// Takes a string; `None` if missing.
    pub(crate) fn optional_string(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => self.wrong(name, "a string", &other),
        }
    }

    /// Takes a boolean; `None` if missing.
    pub(crate) fn optional_boolean(&mut self, name: &str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(value) => Some(value),
            other => self.wrong(name, "a boolean", &other),
        }
    }

    /// Takes a boolean; false if missing.
    pub(crate) fn boolean(&mut self, name: &str) -> bool {
        self.optional_boolean(name).unwrap_or_default()
    }

    /// Takes a number; `None` if missing.
    pub(crate) fn optional_number(&mut self, name: &str) -> Option<Number> {
        match self.take(name)? {
            Value::Number(value) => Some(value),
            other => self.wrong(name, "a number", &other),
        }
    }

    /// Takes an object of any content.
    pub(crate) fn map(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.take(name)? {
            Value::Object(members) => Some(members),
            other => self.wrong(name, "an object", &other),
        }
    }

    /// Takes a list of strings; empty if missing.
    pub(crate) fn strings(&mut self, name: &str) -> Vec<String> {
        let path = self.path_to(name);
        self.list(name)
            .into_iter()
            .enumerate()
            .filter_map(|(index, element)| match element {
                Value::String(text) => Some(text),
                other => {
                    self.problems
                        .add(format!("{path}[{index}]"), wrong_type("a string", &other));
                    None
                }
            })
            .collect()
    }

    /// Takes an object of known content.
    pub(crate) fn object<T>(
        &mut self,
        name: &str,
        decode: impl FnOnce(&mut ManifestObject<'_>) -> T,
    ) -> Option<T> {
        let members = self.map(name)?;
        Some(decode(&mut ManifestObject {
            path: self.path_to(name),
            members,
            problems: self.problems,
        }))
    }

    /// Takes a list of objects; empty if missing. An element that is not an object, or for which
    /// `decode` returns `None`, is left out.
    pub(crate) fn objects<T>(
        &mut self,
        name: &str,
        mut decode: impl FnMut(&mut ManifestObject<'_>) -> Option<T>,
    ) -> Vec<T> {
        let path = self.path_to(name);
        let mut decoded = Vec::new();
        for (index, element) in self.list(name).into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            match element {
                Value::Object(members) => decoded.extend(decode(&mut ManifestObject {
                    path,
                    members,
                    problems: self.problems,
                })),
                other => self.problems.add(path, wrong_type("an object", &other)),
            }
        }
        decoded
    }

    /// Takes a string or an object; another type is a problem and `None`.
    pub(crate) fn text_or_object(&mut self, name: &str) -> Option<Value> {
        match self.take(name)? {
            value @ (Value::String(_) | Value::Object(_)) => Some(value),
            other => self.wrong(name, "a string or an object", &other),
        }
    }

    fn list(&mut self, name: &str) -> Vec<Value> {
        match self.take(name) {
            None => Vec::new(),
            Some(Value::Array(elements)) => elements,
            Some(other) => self.wrong(name, "an array", &other).unwrap_or_default(),
        }
    }

    /// Takes a member in whatever spelling; the exact one wins. `null` is `None`.
    fn take(&mut self, name: &str) -> Option<Value> {
        let exact = self.members.remove(name);
        let mut other_spelling = None;
        self.members.retain(|key, value| {
            let same = key.eq_ignore_ascii_case(name);
            if same {
                other_spelling = Some(value.take());
            }
            !same
        });
        exact.or(other_spelling).filter(|value| !value.is_null())
    }

    fn problem(&mut self, name: &str, kind: FieldProblemKind) {
        let field = self.path_to(name);
        self.problems.add(field, kind);
    }

    fn wrong<T>(&mut self, name: &str, expected: &'static str, found: &Value) -> Option<T> {
        self.problem(name, wrong_type(expected, found));
        None
    }

    fn path_to(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }
}

fn wrong_type(expected: &'static str, found: &Value) -> FieldProblemKind {
    FieldProblemKind::Type {
        expected,
        found: kind_of(found),
    }
}
