//! Manifests as authors write them, good and bad.

use serde_json::{Value, json};

use super::*;
use crate::error::FailureCause;

/// A manifest with everything, in the form in which it is written again.
fn full() -> Value {
    json!({
        "id": "weather-bot",
        "author": "acme",
        "name": "Weather",
        "description": "Says what comes.",
        "version": "1.2.0",
        "command": "./weather",
        "args": ["--units", "metric"],
        "events_consumed": ["EventThreadPublished", "EventPostReacted"],
        "access": {
            "handle": "weather",
            "name": "Weather Bot",
            "permissions": ["READ_PUBLISHED_THREADS", "CREATE_POST"],
            "bio": "Rain, mostly.",
            "links": [
                {"text": "Home", "url": "https://acme.example/weather"},
                {"text": "Code", "url": {"Scheme": "https", "Host": "code.example", "Path": "/w"}},
            ],
            "metadata": {"colour": "blue"},
        },
        "configuration_schema": {"fields": [
            {"type": "string", "id": "city", "label": "City", "description": "Where.", "default": "Oslo"},
            {"type": "number", "id": "days", "label": "Days", "description": "", "default": 2},
            {"type": "boolean", "id": "loud", "label": "Loud", "description": ""},
        ]},
        "capabilities": [
            {"type": "robot.llm_provider", "id": "acme.ai-1", "version": "v1", "name": "Acme"},
            {
                "type": "robot.tool_provider", "id": "weather", "version": "v1",
                "description": "Weather tools.",
                "tools": [{
                    "id": "forecast", "name": "forecast", "description": "What comes.",
                    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
                    "output_schema": {"type": "object"},
                    "title": "Forecast",
                    "requires_confirmation": true,
                    "requires_workspace": true,
                    "annotations": {"readOnlyHint": true, "openWorldHint": true},
                }],
                "toolsets": [{
                    "id": "all", "name": "All", "description": "Every tool.",
                    "instruction": "Ask for the city.", "requires_workspace": true,
                    "tools": ["forecast"],
                }],
            },
        ],
        "transport": "stdio",
        "homepage": {"kept": [1, null]},
    })
}

/// The smallest manifest that passes.
fn small() -> Value {
    json!({"id": "a", "author": "b", "name": "c"})
}

/// The small manifest with one member changed.
fn with(name: &str, value: Value) -> Value {
    let mut manifest = small();
    manifest[name] = value;
    manifest
}

fn parse(manifest: &Value) -> Result<Manifest> {
    Manifest::parse(manifest.to_string().as_bytes())
}

#[track_caller]
fn problems(manifest: &Value) -> Vec<String> {
    let Err(error) = parse(manifest) else {
        panic!("{manifest} has no problems");
    };
    error.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn a_full_manifest_is_understood_and_written_again_the_same() {
    let manifest = parse(&full()).unwrap();
    assert_eq!(manifest.id, "weather-bot");
    assert_eq!(manifest.transport, Transport::Stdio);
    let access = manifest.access.as_ref().unwrap();
    assert_eq!(access.links[0].url(), "https://acme.example/weather");
    assert_eq!(access.links[1].url(), "https://code.example/w");
    let home = AccessLink::new("Home", "https://acme.example/weather");
    assert_eq!(access.links[0], home);
    let Capability::RobotToolProvider { tools, .. } = &manifest.capabilities[1] else {
        panic!("{:?}", manifest.capabilities[1]);
    };
    let tool = &tools[0];
    assert!(tool.requires_confirmation && tool.annotations.read_only_hint);
    assert!(!tool.annotations.destructive_hint);
    assert_eq!(manifest.capabilities[0].id(), "acme.ai-1");
    assert_eq!(manifest.problems(), []);

    assert_eq!(serde_json::to_value(&manifest).unwrap(), full());
    let stored: Manifest = serde_json::from_value(full()).unwrap();
    assert_eq!(stored, manifest);
}

/// Records hold it as text.
#[test]
fn a_manifest_is_written_with_the_same_bytes_as_ever() {
    let written = |manifest: &Value| serde_json::to_string(&parse(manifest).unwrap()).unwrap();
    let expected = [
        r#"{"id":"weather-bot","author":"acme","name":"Weather","description":"Says what comes.","#,
        r#""version":"1.2.0","command":"./weather","args":["--units","metric"],"#,
        r#""events_consumed":["EventThreadPublished","EventPostReacted"],"#,
        r#""access":{"handle":"weather","name":"Weather Bot","#,
        r#""permissions":["READ_PUBLISHED_THREADS","CREATE_POST"],"bio":"Rain, mostly.","#,
        r#""links":[{"text":"Home","url":"https://acme.example/weather"},"#,
        r#"{"text":"Code","url":{"Host":"code.example","Path":"/w","Scheme":"https"}}],"#,
        r#""metadata":{"colour":"blue"}},"configuration_schema":{"fields":["#,
        r#"{"type":"string","default":"Oslo","id":"city","label":"City","description":"Where."},"#,
        r#"{"type":"number","default":2,"id":"days","label":"Days","description":""},"#,
        r#"{"type":"boolean","id":"loud","label":"Loud","description":""}]},"#,
        r#""capabilities":[{"type":"robot.llm_provider","id":"acme.ai-1","version":"v1","name":"Acme"},"#,
        r#"{"type":"robot.tool_provider","id":"weather","version":"v1","description":"Weather tools.","#,
        r#""tools":[{"id":"forecast","name":"forecast","description":"What comes.","#,
        r#""input_schema":{"properties":{"city":{"type":"string"}},"type":"object"},"#,
        r#""output_schema":{"type":"object"},"title":"Forecast","requires_confirmation":true,"#,
        r#""requires_workspace":true,"annotations":{"readOnlyHint":true,"openWorldHint":true}}],"#,
        r#""toolsets":[{"id":"all","name":"All","description":"Every tool.","#,
        r#""instruction":"Ask for the city.","requires_workspace":true,"tools":["forecast"]}]}],"#,
        r#""transport":"stdio","homepage":{"kept":[1,null]}}"#,
    ];
    assert_eq!(written(&full()), expected.concat());
    let empty_schema = with("configuration_schema", json!({"fields": []}));
    assert_eq!(
        written(&empty_schema),
        r#"{"id":"a","author":"b","name":"c","description":"","version":"","command":"","configuration_schema":{}}"#
    );
}

#[test]
fn required_members_are_always_written_and_empty_optional_ones_never() {
    let mut manifest = small();
    for name in ["args", "events_consumed", "capabilities"] {
        manifest[name] = json!([]);
    }
    for name in ["access", "configuration_schema", "transport", "command"] {
        manifest[name] = Value::Null;
    }
    let manifest = parse(&manifest).unwrap();
    assert_eq!(
        serde_json::to_string(&manifest).unwrap(),
        r#"{"id":"a","author":"b","name":"c","description":"","version":"","command":""}"#
    );
    let manifest = parse(&with("transport", json!("websocket"))).unwrap();
    assert!(
        !serde_json::to_string(&manifest)
            .unwrap()
            .contains("transport")
    );
    let manifest = parse(&with("access", json!({"links": [], "bio": ""}))).unwrap();
    assert_eq!(
        serde_json::to_value(&manifest).unwrap()["access"],
        json!({"handle": "", "name": "", "permissions": []})
    );
}

#[test]
fn a_byte_order_mark_is_tolerated() {
    let mut bytes = b"\xef\xbb\xbf".to_vec();
    bytes.extend(small().to_string().bytes());
    assert_eq!(Manifest::parse(&bytes).unwrap().id, "a");
}

#[test]
fn names_match_in_any_case_and_the_exact_one_wins() {
    let text = br#"{"ID":"x","Author":"b","name":"c","id":"a","iD":"y","Events_Consumed":["E"]}"#;
    let manifest = Manifest::parse(text).unwrap();
    assert_eq!((manifest.id.as_str(), manifest.author.as_str()), ("a", "b"));
    assert!(manifest.consumes("E"));
    assert!(manifest.extra.is_empty());
}

#[test]
fn of_repeated_members_the_last_counts() {
    let text = br#"{"id":"x","author":"b","name":"c","id":"a"}"#;
    assert_eq!(Manifest::parse(text).unwrap().id, "a");
}

#[test]
fn what_is_no_single_object_is_refused() {
    let refusal = |text: &str| Manifest::parse(text.as_bytes()).unwrap_err();
    let is_no_json = |text: &[u8]| {
        let error = Manifest::parse(text).unwrap_err();
        let cause = error.cause();
        matches!(cause, Some(FailureCause::Manifest(ManifestError::Json(_))))
    };
    for text in ["", "{", "id: a", r#"{"id":"a"} x"#, r#"{"id":"a"}{}"#] {
        assert!(is_no_json(text.as_bytes()), "{text}");
    }
    assert!(is_no_json(b"{\"id\":\"\xff\"}"));
    assert_eq!(
        refusal("[]").to_string(),
        "the manifest is not a JSON object but an array"
    );
    assert_eq!(
        refusal("null").to_string(),
        "the manifest is not a JSON object but null"
    );
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(is_no_json(deep.as_bytes()));
}

#[test]
fn ids_and_authors_are_letters_digits_and_inner_hyphens() {
    for id in ["a", "7", "A-1--b", &"x".repeat(1_000)] {
        assert!(parse(&with("id", json!(id))).is_ok(), "{id}");
        assert!(parse(&with("author", json!(id))).is_ok(), "{id}");
    }
    for id in ["-", "-a", "a-", "a_b", "a b", "ä", "a\n", "a/b"] {
        assert_eq!(
            problems(&with("id", json!(id))),
            [format!(
                "field `id` must begin and end with a letter or digit and hold only those and \
                 hyphens, found {id:?}"
            )]
        );
        assert_eq!(problems(&with("author", json!(id))).len(), 1, "{id}");
    }
    assert_eq!(
        problems(&json!({})),
        [
            "field `id` is missing or empty",
            "field `author` is missing or empty",
            "field `name` is missing or empty",
        ]
    );
}

#[test]
fn names_have_up_to_a_hundred_bytes() {
    assert!(parse(&with("name", json!("ä".repeat(50)))).is_ok());
    assert_eq!(
        problems(&with("name", json!("ä".repeat(51)))),
        ["field `name` must have at most 100 bytes, found 102"]
    );
}

#[test]
fn every_wrong_type_is_reported_with_its_place() {
    let manifest = json!({
        "id": 5,
        "author": "-",
        "name": "c",
        "args": ["a", 1, null],
        "events_consumed": "EventThreadPublished",
        "access": {"permissions": [true], "links": [{"url": 1}, 2], "metadata": []},
        "configuration_schema": {"fields": [
            {"type": "number", "id": "n", "default": "2"},
            {"type": "colour", "id": "c"},
            {"id": "none"},
            7,
        ]},
        "capabilities": [
            null,
            {"id": "x"},
            {"type": "robot.dance", "id": "x", "version": "v1"},
            {"type": "robot.tool_provider", "id": "x", "version": "v1", "tools": [
                {"id": "t", "input_schema": true, "annotations": {"readOnlyHint": "yes"}},
            ]},
        ],
        "transport": "telepathy",
    });
    assert_eq!(
        problems(&manifest),
        [
            "field `id` must be a string, found a number",
            "field `args[1]` must be a string, found a number",
            "field `args[2]` must be a string, found null",
            "field `events_consumed` must be an array, found a string",
            "field `access.permissions[0]` must be a string, found a boolean",
            "field `access.links[0].url` must be a string or an object, found a number",
            "field `access.links[1]` must be an object, found a number",
            "field `access.metadata` must be an object, found an array",
            "field `configuration_schema.fields[0].default` must be a number, found a string",
            "field `configuration_schema.fields[1].type` must be one of \"string\", \"number\", \"boolean\", found \"colour\"",
            "field `configuration_schema.fields[2].type` is missing or empty",
            "field `configuration_schema.fields[3]` must be an object, found a number",
            "field `capabilities[0]` must be an object, found null",
            "field `capabilities[1].type` is missing or empty",
            "field `capabilities[2].type` must be one of \"robot.llm_provider\", \"robot.tool_provider\", found \"robot.dance\"",
            "field `capabilities[3].tools[0].input_schema` must be an object, found a boolean",
            "field `capabilities[3].tools[0].annotations.readOnlyHint` must be a boolean, found a string",
            "field `transport` must be one of \"websocket\", \"stdio\", found \"telepathy\"",
            // A rule, for a member that has the right type.
            "field `author` must begin and end with a letter or digit and hold only those and hyphens, found \"-\"",
        ]
    );
    // Types alone keep it from being decoded.
    let error = serde_json::from_value::<Manifest>(manifest).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the manifest cannot be used: field `id` must be"),
        "{error}"
    );
}

#[test]
fn rules_do_not_keep_a_stored_manifest_from_being_read() {
    let manifest: Manifest = serde_json::from_value(with("id", json!("a_b"))).unwrap();
    assert_eq!(manifest.problems().len(), 1);
    assert_eq!(manifest.problems()[0].field, "id");
}

#[test]
fn a_manifest_full_of_problems_gives_a_hundred() {
    let manifest = with("args", json!(vec![1; 100_000]));
    assert_eq!(problems(&manifest).len(), FieldProblem::LIMIT);
    let manifest = with("events_consumed", json!(vec![""; 100_000]));
    assert_eq!(problems(&manifest).len(), FieldProblem::LIMIT);
}

#[test]
fn capability_ids_follow_the_pattern_of_their_type() {
    let capability = |kind: &str, id: &str| {
        with(
            "capabilities",
            json!([{"type": kind, "id": id, "version": "v1"}]),
        )
    };
    for id in ["a", "9.x_y-", "Acme.ai"] {
        assert!(parse(&capability("robot.llm_provider", id)).is_ok(), "{id}");
    }
    for id in [".a", "_a", "-a", "a b", "a\n", "ä"] {
        assert_eq!(problems(&capability("robot.llm_provider", id)).len(), 1);
    }
    for id in ["a", "9x_y_"] {
        assert!(
            parse(&capability("robot.tool_provider", id)).is_ok(),
            "{id}"
        );
    }
    for id in ["_a", "a.b", "a-b"] {
        assert_eq!(
            problems(&capability("robot.tool_provider", id)),
            [format!(
                "field `capabilities[0].id` must begin with a letter or digit and go on with \
                 letters, digits and '_', found {id:?}"
            )]
        );
    }
    assert_eq!(
        problems(&with(
            "capabilities",
            json!([{"type": "robot.llm_provider"}])
        )),
        [
            "field `capabilities[0].id` is missing or empty",
            "field `capabilities[0].version` is missing or empty",
        ]
    );
}

#[test]
fn tools_and_toolsets_fit_together() {
    let schema = json!({"type": "object"});
    let manifest = with(
        "capabilities",
        json!([{
            "type": "robot.tool_provider", "id": "p", "version": "v1",
            "tools": [
                {"id": "one", "input_schema": schema},
                {"id": "one", "input_schema": schema},
                {"id": "t-3", "input_schema": {"type": "array"}},
                {"id": "four", "input_schema": schema, "output_schema": {}},
                {"id": "five"},
            ],
            "toolsets": [
                {"id": "s", "tools": ["one", "missing"]},
                {"id": "s", "tools": ["four"]},
            ],
        }]),
    );
    assert_eq!(
        problems(&manifest),
        [
            "field `capabilities[0].tools[1].id` has \"one\" a second time",
            "field `capabilities[0].tools[2].id` must begin with a letter or digit and go on with letters, digits and '_', found \"t-3\"",
            "field `capabilities[0].tools[2].input_schema` must be a JSON Schema whose top-level `type` is \"object\"",
            "field `capabilities[0].tools[3].output_schema` must be a JSON Schema whose top-level `type` is \"object\"",
            "field `capabilities[0].tools[4].input_schema` must be a JSON Schema whose top-level `type` is \"object\"",
            "field `capabilities[0].toolsets[0].tools[1]` names the tool \"missing\", which this provider does not have",
            "field `capabilities[0].toolsets[1].id` has \"s\" a second time",
        ]
    );
}

#[test]
fn events_are_an_open_set_without_repetitions() {
    let manifest = parse(&with(
        "events_consumed",
        json!([
            "EventPostReacted",
            "OrderPlaced",
            "EventPostReacted",
            "OrderPlaced"
        ]),
    ))
    .unwrap();
    let events: Vec<_> = manifest.events().collect();
    assert_eq!(events, ["EventPostReacted", "OrderPlaced"]);
    let unknown: Vec<_> = manifest.unknown_events().collect();
    assert_eq!(unknown, ["OrderPlaced"]);
    assert!(manifest.consumes("OrderPlaced") && !manifest.consumes("orderplaced"));
    // As written, so that an author gets back what was sent in.
    assert_eq!(manifest.events_consumed.len(), 4);
    assert_eq!(
        problems(&with("events_consumed", json!(["a", ""]))),
        ["field `events_consumed[1]` is missing or empty"]
    );
}

#[test]
fn members_kept_for_others_cannot_stand_in_for_known_ones() {
    let mut manifest = parse(&small()).unwrap();
    manifest.extra.insert("Command".to_owned(), json!("./evil"));
    manifest.extra.insert("homepage".to_owned(), json!("x"));
    let again = serde_json::to_value(&manifest).unwrap();
    assert_eq!(again["command"], "");
    assert_eq!(again["homepage"], "x");
    assert!(again.get("Command").is_none());
}

#[test]
fn numbers_are_the_same_however_often_they_are_stored() {
    for number in ["0.1", "-2.2267993754925985e+253", "1.8666702488009638e+188"] {
        let text = format!(
            r#"{{"id": "a", "author": "b", "name": "c", "access": {{"metadata": {{"n": {number}}}}}}}"#
        );
        let mut manifest = Manifest::parse(text.as_bytes()).unwrap();
        for _ in 0..3 {
            let stored = serde_json::to_vec(&manifest).unwrap();
            manifest = Manifest::parse(&stored).unwrap();
        }
        let found = &manifest.access.unwrap().metadata["n"];
        assert_eq!(found.to_string(), number);
    }
}
