//! What `PROTOCOL.md` shows goes through the crate's own types, and its headings are where links say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::jsonrpc::{Incoming, ResultSpan};
use super::manifest::Manifest;
use super::method::{
    AccessGet, Configure, Event, GetConfig, Method, Ping, RobotModelProviderGenerate,
    RobotModelProviderListModels, RobotRun, RobotToolCall, decode_params, decode_reply,
};

const DOCUMENT: &str = include_str!("PROTOCOL.md");

/// The JSON values of all blocks that are marked as such.
fn examples() -> Vec<Box<RawValue>> {
    let blocks = DOCUMENT.split("```json\n").skip(1);
    blocks
        .flat_map(|block| {
            let (block, _) = block.split_once("```").unwrap();
            serde_json::Deserializer::from_str(block)
                .into_iter()
                .collect::<Result<Vec<_>, _>>()
                .unwrap()
        })
        .collect()
}

/// Reads the params or the result and writes them again: whatever the types do not know is lost.
fn check<M: Method>(params: Option<&str>, result: Option<&str>) {
    let written = |json: &str, again: Value| {
        let mut shown: Map<String, Value> = serde_json::from_str(json).unwrap();
        if result.is_some() {
            assert_eq!(shown.remove("method"), Some(M::NAME.into()));
        }
        assert_eq!(Value::Object(shown), again, "{json}");
    };
    if let Some(json) = params {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        let params = decode_params::<M>(Some(&raw)).unwrap();
        written(json, serde_json::to_value(params).unwrap());
    }
    if let Some(json) = result {
        let reply = decode_reply::<M>(json).unwrap();
        // Its forms are tested with the type.
        if M::NAME != AccessGet::NAME {
            written(json, serde_json::to_value(reply).unwrap());
        }
    }
}

fn check_method(method: &str, params: Option<&str>, result: Option<&str>) {
    let check = match method {
        Event::NAME => check::<Event>,
        Configure::NAME => check::<Configure>,
        Ping::NAME => check::<Ping>,
        RobotModelProviderListModels::NAME => check::<RobotModelProviderListModels>,
        RobotModelProviderGenerate::NAME => check::<RobotModelProviderGenerate>,
        RobotToolCall::NAME => check::<RobotToolCall>,
        AccessGet::NAME => check::<AccessGet>,
        GetConfig::NAME => check::<GetConfig>,
        RobotRun::NAME => check::<RobotRun>,
        other => panic!("{other} is not a method of the protocol"),
    };
    check(params, result);
}

#[test]
fn examples_of_all_nine_methods_go_through_their_types() {
    let mut shown: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    let mut manifests = 0;
    for example in examples() {
        let text = example.get();
        let Ok(message) = Incoming::parse_line(text) else {
            let manifest = Manifest::parse(text.as_bytes()).unwrap();
            assert_eq!(manifest.unknown_members().count(), 0);
            manifests += 1;
            continue;
        };
        match message {
            Incoming::Request { method, params, .. } => {
                check_method(&method, Some(params.unwrap().get()), None);
                shown.entry(method.into_owned()).or_default()[0] += 1;
            }
            Incoming::Response { outcome, .. } => {
                let span = ResultSpan::locate(text, outcome.unwrap());
                let result: Value = serde_json::from_str(span.of(text)).unwrap();
                let method = result["method"].as_str().unwrap();
                check_method(method, None, Some(span.of(text)));
                shown.entry(method.to_owned()).or_default()[1] += 1;
            }
            Incoming::Notification { .. } => panic!("a request without an id: {text}"),
        }
    }
    assert_eq!(manifests, 1);
    assert_eq!(shown.len(), 9);
    for (method, [requests, replies]) in shown {
        assert!(requests > 0 && replies > 0, "{method}");
    }
}

#[test]
fn every_field_of_a_manifest_is_shown() {
    let example = examples().into_iter().next().unwrap();
    let shown: Map<String, Value> = serde_json::from_str(example.get()).unwrap();
    let shown: BTreeSet<&str> = shown.keys().map(String::as_str).collect();
    assert_eq!(shown, super::manifest::MEMBERS.into_iter().collect());
}

/// What rustdoc and GitHub make of the headings.
fn anchors() -> BTreeSet<String> {
    let headings = DOCUMENT.lines().filter_map(|line| {
        let heading = line.trim_start_matches('#').strip_prefix(' ')?;
        line.starts_with('#').then_some(heading)
    });
    headings
        .map(|heading| {
            let kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
            let kept: String = heading.chars().filter(kept).collect();
            kept.to_lowercase().replace(' ', "-")
        })
        .collect()
}

fn rust_files(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn links_to_headings_lead_to_headings() {
    let anchors = anchors();
    let mut files = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    rust_files(&root.join("src"), &mut files);
    // In two pieces, so that this file does not name one itself.
    let link = concat!("protocol", "#");
    let mut links = 0;
    for rest in files.iter().flat_map(|file| file.split(link).skip(1)) {
        let end = |letter: char| !letter.is_ascii_alphanumeric() && !"-_".contains(letter);
        let anchor = rest.split(end).next().unwrap();
        assert!(anchors.contains(anchor), "no heading for #{anchor}");
        links += 1;
    }
    assert!(links > 0);
}
