//! Records and archives with everything that they can contain.

use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::Outcome;
use crate::auth::ExternalToken;
use crate::health::Health;
use crate::package::{Archive, PackageLimits};
use crate::process::ProcessLimits;
use crate::protocol::access::AccessShape;
use crate::protocol::configuration::Configuration;
use crate::protocol::manifest::Manifest;
use crate::state::ActiveState;
use crate::store::{Overrides, PluginKind, RELEASES, Record, Release, Source};

/// A manifest with as few members as possible, and this name.
pub(super) fn small_manifest(name: &str) -> Outcome<Manifest> {
    parse(&json!({"id": "small", "author": "conformance", "name": name}))
}

/// A supervised plugin with nothing special about it.
pub(super) fn plain(name: &str) -> Outcome<Record> {
    let source = Source::Directory("/plugins/plain".into());
    Ok(Record::supervised(small_manifest(name)?, source))
}

/// An external plugin with this token, which is kept.
pub(super) fn external(token: &ExternalToken) -> Outcome<Record> {
    let mut record = plain("external")?;
    record.kind = PluginKind::external(token.clone());
    Ok(record)
}

/// A plugin whose archive is in the store.
pub(super) fn stored(archive: &Archive) -> Outcome<Record> {
    let sha256 = archive.sha256().to_owned();
    let size = archive.content().size()?;
    let source = Source::Stored { sha256, size };
    Ok(Record::supervised(small_manifest("stored")?, source))
}

/// Records of every kind, in which no field is as it is after installation. The archive must be stored
/// first.
pub(super) fn exotic(archive: &Archive) -> Outcome<Vec<Record>> {
    let hashed = ExternalToken::generate()?.digest();
    let kinds = [
        PluginKind::Supervised(Source::Archive("/a b/ü/\u{10ffff}\n'\".zip".into())),
        PluginKind::Supervised(Source::Directory("relative/../\\folder".into())),
        stored(archive)?.kind,
        PluginKind::external(ExternalToken::generate()?),
        PluginKind::external_by_digest(&hashed)?,
    ];
    let mut records = Vec::new();
    for (number, kind) in (0_u32..).zip(kinds) {
        let mut record = plain("exotic")?;
        record.manifest = full_manifest()?;
        record.kind = kind;
        record.active_state = [ActiveState::Active, ActiveState::Inactive][number as usize % 2];
        // The last nanosecond of the year 2099, and the first of all.
        let late = Duration::new(4_102_444_799, 999_999_999 - number);
        record.active_state_changed_at = SystemTime::UNIX_EPOCH + late;
        record.added_at = SystemTime::UNIX_EPOCH + Duration::from_nanos(number.into());
        record.configuration = configuration();
        // None, one that is empty, and one that is full are three things.
        record.pending_configuration = match number % 3 {
            0 => Some(configuration()),
            1 => Some(Configuration::new()),
            _ => None,
        };
        record.overrides = overrides();
        // An empty text is another thing than none.
        record.added_by = Some(["a\0ü'\"", "", &"x".repeat(256)][number as usize % 3].to_owned());
        record.labels = labels(number);
        record.releases = releases(number);
        records.push(record);
    }
    Ok(records)
}

/// Numbers and texts that are easily lost.
fn configuration() -> Configuration {
    let mut deep = json!("bottom");
    for level in 0..40 {
        deep = if level % 2 == 0 {
            json!([deep])
        } else {
            json!({ "": deep })
        };
    }
    let value = json!({
        "numbers": [
            i64::MIN, i64::MAX, u64::MAX, 9_007_199_254_740_993_i64, 0, 1, 1.0, 0.0, -0.0, 0.1,
            1e300, -1e-300, 5e-324, f64::MAX, f64::MIN_POSITIVE, 0.1 + 0.2,
        ],
        "minus zero": -0.0,
        "one": 1,
        "one point zero": 1.0,
        "texts": [
            "", " ", "\0", "a\0b", "\u{1}\u{7f}\r\n\t", "'; DROP TABLE x; --", "\"\\/", "ü", "u\u{308}",
            "\u{feff}", "\u{fffd}", "\u{2028}", "\u{10ffff}", "👩‍👩‍👧", "null",
        ],
        "no\0name": null,
        "": {"": {}},
        "empty": [[], {}, null, true, false],
        "deep": deep,
        "long": "x".repeat(300_000),
    });
    members(value)
}

fn overrides() -> Overrides {
    let text = |text: &str| text.to_owned();
    let pairs = [("A", "1 = 2\n"), ("A", "again"), ("", ""), ("Ü\0", "\0")];
    Overrides {
        environment: pairs.map(|(name, value)| (text(name), text(value))).into(),
        access_shape: Some(AccessShape::Python),
        outbound_message: Some(usize::MAX),
        health: Some(
            Health::default()
                .interval(Duration::new(1, 1))
                .timeout(Duration::MAX)
                .misses_allowed(u32::MAX)
                .rpc_ping(true)
                .busy_limit(Duration::new(7, 7)),
        ),
        inbound_per_second: Some(0),
        process_limits: ProcessLimits::default()
            .memory(u64::MAX)
            .cpu_time(Duration::ZERO)
            .nice(-20),
    }
}

/// As many as there may be, each as long as it may be; or one.
fn labels(number: u32) -> BTreeMap<String, String> {
    let label = |place: usize| {
        let key = format!("{place:02}._/-{}", "k".repeat(57));
        (key, "ü".repeat(128))
    };
    match number % 3 {
        0 => (0..32).map(label).collect(),
        1 => BTreeMap::from([("a".to_owned(), "a\0'\"\\\n\u{10ffff}".to_owned())]),
        _ => BTreeMap::from([("acme.example/team".to_owned(), String::new())]),
    }
}

/// As many as there may be, with and without what is not known of each; or none.
fn releases(number: u32) -> Vec<Release> {
    let release = |place: usize| {
        let mut release = Release::new(format!("{place:064x}"), u64::MAX, &"ü\0".repeat(85));
        let time = SystemTime::UNIX_EPOCH + Duration::new(4_102_444_799, 999_999_999);
        release.used_from = place.is_multiple_of(2).then_some(time);
        release.used_until = place.is_multiple_of(3).then_some(time);
        release
    };
    (0..RELEASES * (number as usize % 2)).map(release).collect()
}

fn full_manifest() -> Outcome<Manifest> {
    let mut manifest = parse(&json!({
        "id": "weather-bot",
        "author": "acme",
        "name": "Weather",
        "description": "Says\0what comes: ☔.",
        "version": "1.2.0",
        "command": "./weather",
        "args": ["--units", "", "metric\n"],
        "events_consumed": ["EventThreadPublished", "EventThreadPublished"],
        "access": {
            "handle": "weather",
            "name": "Weather Bot",
            "permissions": ["READ_PUBLISHED_THREADS"],
            "bio": "Rain, mostly.",
            "links": [{"text": "Home", "url": "https://acme.example/weather"}],
            "metadata": {"number": 0.1},
        },
        "configuration_schema": {"fields": [
            {"type": "string", "id": "city", "label": "City", "description": "", "default": "Oslo"},
            {"type": "number", "id": "days", "label": "", "description": "", "default": 1e300},
            {"type": "boolean", "id": "loud", "label": "", "description": "", "default": false},
        ]},
        "capabilities": [
            {"type": "robot.llm_provider", "id": "acme.ai-1", "version": "v1", "name": "Acme"},
        ],
        "transport": "stdio",
    }))?;
    // What another version of the host has written.
    manifest.extra = members(json!({"homepage": {"kept": [1, 1.0, null, u64::MAX]}}));
    Ok(manifest)
}

/// An archive with a manifest, and this many bytes that cannot be compressed.
pub(super) fn archive(name: &str, bytes: usize) -> Outcome<Archive> {
    let manifest = serde_json::to_vec(&small_manifest(name)?)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect();
    let packed = zipped(&[("manifest.json", &manifest), ("noise", &noise)])?;
    Ok(Archive::from_bytes(packed, &PackageLimits::default())?)
}

fn zipped(files: &[(&str, &[u8])]) -> zip::result::ZipResult<Vec<u8>> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, options)?;
        writer.write_all(content)?;
    }
    Ok(writer.finish()?.into_inner())
}

fn parse(manifest: &Value) -> Outcome<Manifest> {
    Ok(Manifest::parse(manifest.to_string().as_bytes())?)
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
