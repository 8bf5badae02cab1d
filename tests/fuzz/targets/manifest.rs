//! Manifests: what is accepted keeps every rule and is the same again once it is written and read;
//! what is refused is refused in words that can be shown.

use plugin_runner::protocol::Manifest;
use plugin_runner::{Error, ErrorKind};
use serde::Deserialize as _;
use serde_json::Value;

use super::Target;
use super::configuration::schema;
use super::json::{Json, Make};
use crate::random::Random;

pub(crate) const TARGET: Target = Target {
    name: "manifest",
    generate,
    words: &[
        b"\xef\xbb\xbf",
        b"\"id\":",
        b"\"ID\":",
        b"\"type\":\"object\"",
        b"\"extra\":0.1,",
        b"null",
        b"\"transport\":\"stdio\",",
        b"\\u0000",
        b"\\u001b[2J",
        b"\"\\u212a\"",
        b"\"links\":[{}],",
        b"4.35e-5",
    ],
    longest: 16 * 1024,
    check,
    runs: 2_500,
};

const SLUG: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCXYZ0123456789";
/// Members whose text is kept as it is.
const TEXTS: [&str; 6] = ["id", "author", "name", "description", "version", "command"];

fn generate(random: &mut Random) -> Vec<u8> {
    let mut json = Json::new(random);
    if json.random.one_in(16) {
        json.push("\u{feff}");
    }
    json.space();
    json.some_of(
        &[
            ("id", slug),
            ("author", slug),
            ("name", slug),
            ("description", Json::string),
            ("version", Json::string),
            ("command", command),
        ],
        &[
            ("args", strings),
            ("events_consumed", events),
            ("access", access),
            ("configuration_schema", schema),
            ("capabilities", capabilities),
            ("transport", transport),
        ],
    );
    json.text.into_bytes()
}

fn slug(json: &mut Json) {
    json.word(SLUG, 40);
}

fn command(json: &mut Json) {
    let command = json
        .random
        .pick(&["./main", "python3", "bin/../x", "", "/bin/sh"]);
    json.plain(command);
}

fn strings(json: &mut Json) {
    json.list(4, Json::string);
}

fn events(json: &mut Json) {
    json.list(6, |json| {
        let event = json.random.pick(&[
            "EventThreadPublished",
            "EventNodeCreated",
            "EventOfNobody",
            "x",
        ]);
        json.plain(event);
    });
}

fn transport(json: &mut Json) {
    let transport = json.random.pick(&["websocket", "stdio"]);
    json.plain(transport);
}

fn access(json: &mut Json) {
    json.some_of(
        &[
            ("handle", slug),
            ("name", Json::string),
            ("permissions", strings),
        ],
        &[
            ("bio", Json::string),
            ("links", links),
            ("metadata", free_form),
        ],
    );
}

fn links(json: &mut Json) {
    json.list(3, |json| {
        json.some_of(&[("text", Json::string)], &[("url", link_url)]);
    });
}

fn link_url(json: &mut Json) {
    if json.random.one_in(2) {
        json.string();
    } else {
        json.some_of(
            &[],
            &[
                ("Scheme", Json::string),
                ("Host", Json::string),
                ("Path", Json::string),
            ],
        );
    }
}

fn free_form(json: &mut Json) {
    json.some_of(&[], &[("a", Json::value), ("b", Json::value)]);
}

fn capabilities(json: &mut Json) {
    json.list(3, |json| {
        let common: [(&str, Make); 2] = [("name", Json::string), ("description", Json::string)];
        if json.random.one_in(2) {
            let required: [(&str, Make); 3] = [
                ("type", |json| json.plain("robot.llm_provider")),
                ("id", slug),
                ("version", slug),
            ];
            json.some_of(&required, &common);
        } else {
            let required: [(&str, Make); 3] = [
                ("type", |json| json.plain("robot.tool_provider")),
                ("id", slug),
                ("version", slug),
            ];
            let [name, description] = common;
            json.some_of(
                &required,
                &[name, description, ("tools", tools), ("toolsets", toolsets)],
            );
        }
    });
}

fn tools(json: &mut Json) {
    json.list(3, |json| {
        json.some_of(
            &[
                ("id", |json| json.word(SLUG, 8)),
                ("name", Json::string),
                ("description", Json::string),
                ("input_schema", object_schema),
            ],
            &[
                ("output_schema", object_schema),
                ("title", Json::string),
                ("requires_confirmation", Json::boolean),
                ("requires_workspace", Json::boolean),
                ("annotations", annotations),
            ],
        );
    });
}

fn object_schema(json: &mut Json) {
    json.some_of(
        &[("type", |json| json.plain("object"))],
        &[("properties", free_form), ("minimum", Json::number)],
    );
}

fn annotations(json: &mut Json) {
    json.some_of(
        &[],
        &[
            ("readOnlyHint", Json::boolean),
            ("destructiveHint", Json::boolean),
            ("idempotentHint", Json::boolean),
            ("openWorldHint", Json::boolean),
        ],
    );
}

fn toolsets(json: &mut Json) {
    json.list(2, |json| {
        json.some_of(
            &[
                ("id", |json| json.word(SLUG, 8)),
                ("name", Json::string),
                ("description", Json::string),
                ("tools", |json| json.push("[]")),
            ],
            &[
                ("instruction", Json::string),
                ("requires_workspace", Json::boolean),
            ],
        );
    });
}

fn check(input: &[u8]) -> bool {
    let without_mark = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    let value = serde_json::from_slice::<Value>(without_mark);
    match (Manifest::parse(input), value) {
        (Ok(manifest), Ok(value)) => {
            accepted(&manifest, &value);
            true
        }
        (Err(error), Ok(value)) if value.is_object() => {
            refused(&error, &value);
            false
        }
        (Err(error), _) => {
            assert_eq!(error.problems(), []);
            false
        }
        (parsed, value) => panic!("{parsed:?} of {value:?}"),
    }
}

fn accepted(manifest: &Manifest, value: &Value) {
    assert_eq!(manifest.problems(), []);
    let written = serde_json::to_vec(manifest).unwrap();
    let again = Manifest::parse(&written).unwrap();
    assert_eq!(&again, manifest, "once written and read");
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
    assert_eq!(&Manifest::deserialize(value).unwrap(), manifest);

    let written: Value = serde_json::from_slice(&written).unwrap();
    for name in TEXTS {
        if let Some(text) = value.get(name).filter(|text| !text.is_null()) {
            assert_eq!(written.get(name), Some(text), "{name}");
        }
    }
    let events: Vec<_> = manifest.events().collect();
    let mut distinct = events.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), events.len());
    assert!(events.iter().all(|event| manifest.consumes(event)));
}

fn refused(error: &Error, value: &Value) {
    let problems = error.problems();
    assert!((1..=100).contains(&problems.len()));
    for problem in problems {
        let line = problem.to_string();
        let shown = !line.contains(char::is_control) && line.len() < 1_000;
        assert!(shown, "{line:?}");
    }
    assert_eq!(error.kind(), ErrorKind::InvalidManifest);
    assert_eq!(error.to_string().lines().count(), 1);
    // Types alone are good: then it is the rules that say no.
    if let Ok(manifest) = Manifest::deserialize(value) {
        assert_eq!(manifest.problems(), problems);
    }
}
