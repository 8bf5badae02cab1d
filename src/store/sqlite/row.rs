//! A record as a row of the table, and back. What cannot be read of a row is reported as the record's
//! damage.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::auth::{ExternalToken, TokenDigest};
use crate::error::{Error, Result, StoreError};
use crate::id::InstallationId;
use crate::protocol::manifest::Manifest;
use crate::state::{ActiveState, PluginMode};
use crate::store::{PluginKind, Record, Source};
use crate::text::PluginName;

const COLUMNS: [&str; 18] = [
    "id",
    "mode",
    "manifest",
    "active_state",
    "active_state_changed_at",
    "added_at",
    "configuration",
    "overrides",
    "source_kind",
    "source_path",
    "archive_sha256",
    "archive_size",
    "token_digest",
    "token",
    "unsettled_configuration",
    "added_by",
    "labels",
    "releases",
];

/// Returns the first schema that has this column.
fn since(column: &str) -> u32 {
    match column {
        "unsettled_configuration" => 2,
        "added_by" | "labels" => 3,
        "releases" => 5,
        _ => 1,
    }
}

/// A row, in the order of [`COLUMNS`].
pub(super) type Values = [Value; COLUMNS.len()];

/// The values of `source_kind`.
const ARCHIVE: &str = "archive";
const DIRECTORY: &str = "folder";
const STORED: &str = "stored";

/// The statement that writes a row, replacing one with the same id.
pub(super) fn upsert() -> String {
    format!(
        "INSERT OR REPLACE INTO installation ({}) VALUES ({})",
        COLUMNS.join(", "),
        ["?"; COLUMNS.len()].join(", ")
    )
}

/// Reads the rows that meet `condition` from a database with this schema; `?1` in the condition stands
/// for `parameter`.
///
/// # Errors
/// What the database reports.
pub(super) fn select(
    connection: &Connection,
    schema: u32,
    condition: &str,
    parameter: Option<&str>,
) -> rusqlite::Result<Vec<Values>> {
    // A column that an older schema lacks is empty in all its records.
    let names = COLUMNS.map(|name| if schema < since(name) { "NULL" } else { name });
    let names = names.join(", ");
    let text = format!("SELECT {names} FROM installation {condition}");
    let mut statement = connection.prepare(&text)?;
    let mut rows = statement.query(rusqlite::params_from_iter(parameter))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(values(row)?);
    }
    Ok(found)
}

/// Returns the row of a record.
///
/// # Errors
/// [`StoreError::Unstorable`]: a part of it cannot be stored.
pub(super) fn encode(record: &Record) -> Result<Values> {
    let mut encoder = Encoder {
        record,
        values: std::array::from_fn(|_| Value::Null),
    };
    encoder.set("id", record.id.to_string());
    encoder.set("mode", record.mode().as_str().to_owned());
    encoder.json("manifest", &record.manifest)?;
    encoder.set("active_state", record.active_state.as_str().to_owned());
    encoder.time("active_state_changed_at", record.active_state_changed_at)?;
    encoder.time("added_at", record.added_at)?;
    encoder.json("configuration", &record.configuration)?;
    if let Some(configuration) = &record.pending_configuration {
        encoder.json("unsettled_configuration", configuration)?;
    }
    encoder.json("overrides", &record.overrides)?;
    if let Some(added_by) = &record.added_by {
        encoder.set("added_by", added_by.clone());
    }
    if !record.labels.is_empty() {
        encoder.json("labels", &record.labels)?;
    }
    if !record.releases.is_empty() {
        encoder.json("releases", &record.releases)?;
    }
    match &record.kind {
        PluginKind::Supervised(Source::Archive(path)) => encoder.source(ARCHIVE, path),
        PluginKind::Supervised(Source::Directory(path)) => encoder.source(DIRECTORY, path),
        PluginKind::Supervised(Source::Stored { sha256, size }) => {
            encoder.set("source_kind", STORED.to_owned());
            encoder.set("archive_sha256", sha256.clone());
            let size = i64::try_from(*size);
            encoder.set(
                "archive_size",
                size.map_err(|_| encoder.unstorable("the size of its archive"))?,
            );
        }
        PluginKind::External { digest, token } => {
            encoder.set("token_digest", digest.clone());
            if let Some(token) = token {
                encoder.set("token", token.expose().to_owned());
            }
        }
    }
    Ok(encoder.values)
}

/// Returns the record of a row, with what cannot be read as its damage; `None` if even the id cannot be
/// read.
pub(super) fn decode(values: &Values) -> Option<Record> {
    let mut decoder = Decoder {
        values,
        problems: Vec::new(),
    };
    let id: InstallationId = decoder.text("id")?.parse().ok()?;
    let manifest = decoder.manifest();
    let kind = decoder.kind();
    let mut record = Record::new(id, manifest, kind);
    record.active_state = decoder.active_state();
    record.active_state_changed_at = decoder.time("active_state_changed_at");
    record.added_at = decoder.time("added_at");
    record.configuration = decoder.json("configuration");
    if *decoder.value("unsettled_configuration") != Value::Null {
        record.pending_configuration = Some(decoder.json("unsettled_configuration"));
    }
    record.overrides = decoder.json("overrides");
    record.added_by = decoder.optional_text("added_by");
    if *decoder.value("labels") != Value::Null {
        record.labels = decoder.json("labels");
    }
    if *decoder.value("releases") != Value::Null {
        record.releases = decoder.json("releases");
    }
    if !decoder.problems.is_empty() {
        record.damage = Some(decoder.problems.join("; ").into());
    }
    Some(record)
}

fn values(row: &Row<'_>) -> rusqlite::Result<Values> {
    let mut values = std::array::from_fn(|_| Value::Null);
    for (position, value) in values.iter_mut().enumerate() {
        *value = match row.get_ref(position)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::Integer(number),
            ValueRef::Real(number) => Value::Real(number),
            ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
            // SQLite does not check that text is UTF-8.
            ValueRef::Text(bytes) => match str::from_utf8(bytes) {
                Ok(text) => Value::Text(text.to_owned()),
                Err(_) => Value::Blob(bytes.to_vec()),
            },
        };
    }
    Ok(values)
}

fn position(column: &str) -> usize {
    let found = COLUMNS.iter().position(|&name| name == column);
    debug_assert!(found.is_some(), "there is no column {column}");
    found.unwrap_or_default()
}

struct Encoder<'a> {
    record: &'a Record,
    values: Values,
}

impl Encoder<'_> {
    fn set(&mut self, column: &str, value: impl Into<Value>) {
        self.values[position(column)] = value.into();
    }

    fn json(&mut self, column: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value);
        self.set(
            column,
            text.map_err(|error| self.unstorable(&format!("{column}: {error}")))?,
        );
        Ok(())
    }

    fn time(&mut self, column: &str, time: SystemTime) -> Result<()> {
        let nanoseconds = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).ok(),
            Err(before) => i64::try_from(before.duration().as_nanos())
                .ok()
                .map(|nanoseconds| -nanoseconds),
        };
        self.set(
            column,
            nanoseconds.ok_or_else(|| self.unstorable(&format!("{column} is too far away")))?,
        );
        Ok(())
    }

    fn source(&mut self, kind: &str, path: &Path) {
        self.set("source_kind", kind.to_owned());
        self.set("source_path", path.as_os_str().as_bytes().to_vec());
    }

    fn unstorable(&self, problem: &str) -> Error {
        unstorable(self.record.id, problem)
    }
}

/// Makes an error for a record that cannot be stored.
pub(super) fn unstorable(id: InstallationId, problem: &str) -> Error {
    StoreError::Unstorable {
        id,
        problem: problem.into(),
    }
    .into()
}

struct Decoder<'a> {
    values: &'a Values,
    /// They must never quote a configuration or a token.
    problems: Vec<String>,
}

impl Decoder<'_> {
    fn value(&self, column: &str) -> &Value {
        &self.values[position(column)]
    }

    fn text(&self, column: &str) -> Option<&str> {
        match self.value(column) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn optional_text(&mut self, column: &str) -> Option<String> {
        let text = self.text(column).map(str::to_owned);
        if text.is_none() && *self.value(column) != Value::Null {
            self.wrong(column, "is not text");
        }
        text
    }

    /// Adds a problem of a column.
    fn wrong(&mut self, column: &str, problem: &str) {
        self.problems.push(format!("{column} {problem}"));
    }

    fn json<T: DeserializeOwned + Default>(&mut self, column: &str) -> T {
        let problem = match self.text(column).map(serde_json::from_str) {
            Some(Ok(value)) => return value,
            Some(Err(error)) => describe(&error),
            None => "is not text".to_owned(),
        };
        self.wrong(column, &problem);
        T::default()
    }

    fn manifest(&mut self) -> Manifest {
        let Some(text) = self.text("manifest") else {
            self.wrong("manifest", "is not text");
            return Manifest::default();
        };
        let error = match serde_json::from_str(text) {
            Ok(manifest) => return manifest,
            Err(error) => error,
        };
        // Enough to recognise the plugin.
        let read: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let member = |name| {
            let member = read.get(name).and_then(serde_json::Value::as_str);
            member.unwrap_or_default().to_owned()
        };
        let manifest = Manifest {
            id: member("id"),
            name: member("name"),
            ..Manifest::default()
        };
        // A manifest has no secrets, so the parser's own message can be shown.
        self.wrong("manifest", &format!("cannot be read: {error}"));
        manifest
    }

    fn active_state(&mut self) -> ActiveState {
        if let Some(Ok(state)) = self.text("active_state").map(str::parse) {
            return state;
        }
        self.wrong("active_state", "is not a state");
        ActiveState::Inactive
    }

    fn time(&mut self, column: &str) -> SystemTime {
        if let &Value::Integer(nanoseconds) = self.value(column) {
            let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
            let time = if nanoseconds < 0 {
                UNIX_EPOCH.checked_sub(distance)
            } else {
                UNIX_EPOCH.checked_add(distance)
            };
            if let Some(time) = time {
                return time;
            }
        }
        self.wrong(column, "is not a time");
        UNIX_EPOCH
    }

    fn kind(&mut self) -> PluginKind {
        match self.text("mode").and_then(|mode| mode.parse().ok()) {
            Some(PluginMode::Supervised) => PluginKind::Supervised(self.source()),
            Some(PluginMode::External) => self.external(),
            None => {
                self.wrong("mode", "is neither supervised nor external");
                PluginKind::Supervised(self.source_stand_in())
            }
        }
    }

    fn source(&mut self) -> Source {
        let path = match self.value("source_path") {
            Value::Blob(bytes) => Some(PathBuf::from(OsString::from_vec(bytes.clone()))),
            _ => None,
        };
        let stored = match (self.text("archive_sha256"), self.value("archive_size")) {
            (Some(sha256), &Value::Integer(size)) => {
                u64::try_from(size).ok().map(|size| Source::Stored {
                    sha256: sha256.to_owned(),
                    size,
                })
            }
            _ => None,
        };
        let source = match self.text("source_kind") {
            Some(ARCHIVE) => path.map(Source::Archive),
            Some(DIRECTORY) => path.map(Source::Directory),
            Some(STORED) => stored,
            _ => None,
        };
        source.unwrap_or_else(|| {
            self.wrong(
                "source_kind",
                "does not fit what else is known of the source",
            );
            self.source_stand_in()
        })
    }

    /// Keeps the name of an archive, which would otherwise be removed as unused.
    fn source_stand_in(&self) -> Source {
        match self.text("archive_sha256") {
            Some(sha256) => Source::Stored {
                sha256: sha256.to_owned(),
                size: 0,
            },
            None => Source::Directory(PathBuf::new()),
        }
    }

    fn external(&mut self) -> PluginKind {
        let digest: Option<TokenDigest> =
            self.text("token_digest").and_then(|text| text.parse().ok());
        let Some(digest) = digest else {
            self.wrong("token_digest", "is not a digest");
            // The digest of no token.
            return PluginKind::known_by(TokenDigest::default());
        };
        if *self.value("token") == Value::Null {
            return PluginKind::known_by(digest);
        }
        let token = self.text("token").map(ExternalToken::parse);
        match token.and_then(std::result::Result::ok) {
            Some(token) if token.binary_digest() == digest => PluginKind::external(token),
            _ => {
                self.wrong("token", "is not the one with that digest");
                PluginKind::known_by(digest)
            }
        }
    }
}

/// Says what is wrong with a JSON text, without quoting it.
fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Syntax | Category::Io => "is not JSON",
        Category::Eof => "is cut off",
        Category::Data => "is not what it should be",
    };
    format!("{what} at line {}, column {}", error.line(), error.column())
}

/// Decodes all rows; returns how many of them are no records as well.
pub(super) fn decode_all(rows: &[Values]) -> (Vec<Record>, usize) {
    let records: Vec<_> = rows.iter().filter_map(decode).collect();
    for record in &records {
        if let Some(problem) = &record.damage {
            let plugin = PluginName {
                manifest_id: &record.manifest.id,
                id: record.id,
            };
            log::warn!("the record of {plugin} is damaged: {problem}");
        }
    }
    let skipped = rows.len() - records.len();
    (records, skipped)
}

/// Returns what reading a row back will return, which is what is cached of it.
///
/// # Errors
/// [`StoreError::Unstorable`]: it could not be read back whole.
pub(super) fn normalized(values: &Values, id: InstallationId) -> Result<Record> {
    let Some(mut record) = decode(values) else {
        return Err(unstorable(id, "its id is not one"));
    };
    match record.damage.take() {
        Some(problem) => Err(unstorable(id, &problem)),
        None => Ok(record),
    }
}
