//! What `PROTOCOL.md` shows goes through the crate's own types, and its headings are where links say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::jsonrpc::{Incoming, ResultObject, ResultSpan, encode_request, encode_result};
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

/// Reads the params or the result of a message and writes the message again; whatever the types do not
/// know is lost.
fn check<M: Method>(text: &str) {
    let mut again = String::new();
    match Incoming::parse_line(text).unwrap() {
        Incoming::Request { id, params, .. } => {
            let id = serde_json::from_str(id.as_json()).unwrap();
            let params: M = decode_params(params.map_or("{}", RawValue::get)).unwrap();
            encode_request(&mut again, id, M::NAME, &params).unwrap();
        }
        Incoming::Response { id, outcome, .. } => {
            let reply =
                decode_reply::<M>(ResultSpan::locate(text, outcome.unwrap()).of(text)).unwrap();
            // Its forms are tested with the type.
            if M::NAME == AccessGet::NAME {
                return;
            }
            let result = ResultObject::from_serialize(&reply).unwrap();
            encode_result(&mut again, &id.unwrap().into(), M::NAME, &result);
        }
        Incoming::Notification { .. } => panic!("a request without an id: {text}"),
    }
    let value = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    assert_eq!(value(&again), value(text));
}

fn check_method(method: &str, text: &str) {
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
    check(text);
}

#[test]
fn examples_of_all_nine_methods_go_through_their_types() {
    let mut shown: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    let mut manifests = 0;
    for example in examples() {
        let text = example.get();
        let message: Value = serde_json::from_str(text).unwrap();
        let is_reply = message.get("result").is_some();
        let message = if is_reply {
            &message["result"]
        } else {
            &message
        };
        let Some(method) = message["method"].as_str() else {
            let manifest = Manifest::parse(text.as_bytes()).unwrap();
            assert_eq!(manifest.unknown_members().count(), 0);
            manifests += 1;
            continue;
        };
        check_method(method, text);
        shown.entry(method.to_owned()).or_default()[usize::from(is_reply)] += 1;
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
