//! Talking with plugins while they run: commands on standard input, the configuration, and what the host answers.

use std::fs::File;
use std::io::Read as _;
use std::process::Output;

use serde_json::{Value, json};

use crate::program::{ANSWERING, Program, Scratch, manifest, text};

/// Prints what it is called with, asks the host for things if it is told to, and refuses the volume 11.
pub(crate) const TALKING: &str = r#"#!/usr/bin/env python3
import json, sys
def send(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
for line in sys.stdin:
    call = json.loads(line)
    if "method" not in call:
        print("answered", json.dumps(call.get("result", call.get("error"))), file=sys.stderr, flush=True)
        send({"id": asked, "result": {}})
        continue
    params = call.get("params") or {}
    print("called", call["method"], json.dumps(params), file=sys.stderr, flush=True)
    if call["method"] == "ask":
        asked = call["id"]
        send({"id": "from-plugin", "method": params["method"], "params": params.get("params", {})})
    elif call["method"] == "fail":
        send({"id": call["id"], "error": {"code": 7, "message": "no way", "data": {"why": "told"}}})
    elif call["method"] == "configure":
        send({"id": call["id"], "result": {"ok": params.get("volume") != 11}})
    else:
        send({"id": call["id"], "result": {"ok": True, "status": "ok"}})
"#;

pub(crate) fn talking(id: &str) -> Value {
    let mut manifest = manifest(id);
    manifest["events_consumed"] = json!(["EventThreadPublished"]);
    manifest["configuration_schema"] = json!({"fields": [
        {"type": "number", "id": "volume", "label": "", "description": ""},
    ]});
    manifest
}

/// Runs the program with these lines on standard input, to its end.
fn told(scratch: &Scratch, arguments: &str, lines: &str) -> Output {
    let path = scratch.write("commands", lines);
    let mut command = scratch.command(arguments);
    command.stdin(File::open(path).unwrap());
    Program::start(command).end()
}

/// The objects of this type that were printed.
fn of_type(output: &Output, wanted: &str) -> Vec<Value> {
    let lines = text(&output.stdout);
    let objects = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    objects
        .filter(|object: &Value| object["type"] == wanted)
        .collect()
}

#[test]
fn commands_are_done_one_after_the_other_and_the_last_ends_the_run() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &talking("hello"), TALKING);
    let lines = "call greet {\"to\": [1, 2]}\n\nevent EventThreadPublished {\"id\": \"1\"}\n\
                 configure {\"volume\": 3}\nstate\nrestart\ncall greet\nstop\nstate\nstart\ncall greet";
    let output = told(&scratch, "run hello --stdin --json", lines);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let replies = of_type(&output, "reply");
    let commands: Vec<_> = replies
        .iter()
        .map(|reply| reply["command"].as_str().unwrap())
        .collect();
    assert_eq!(
        commands,
        [
            "call greet",
            "event EventThreadPublished",
            "configure",
            "state",
            "restart",
            "call greet",
            "stop",
            "state",
            "start",
            "call greet"
        ]
    );
    for (at, result) in [
        (0, json!({"ok": true, "status": "ok"})),
        (1, json!({"hello": "delivered"})),
        (3, json!("active")),
        (7, json!("inactive")),
    ] {
        assert_eq!(replies[at]["result"], result, "{}", replies[at]);
    }
    for reply in &replies {
        assert!(reply["at"].as_str().unwrap().ends_with('Z'), "{reply}");
        assert!(reply["seconds"].as_f64().unwrap() < 60.0, "{reply}");
    }
    assert_eq!(replies[0]["installation"].as_str().unwrap().len(), 20);
    let logged = of_type(&output, "log");
    let has = |line: &str| logged.iter().any(|logged| logged["line"] == line);
    assert!(has("called greet {\"to\": [1, 2]}"), "{logged:#?}");
    assert!(has("called configure {\"volume\": 3}"), "{logged:#?}");
    scratch.assert_nothing_left();
}

#[test]
fn what_fails_is_said_and_does_not_end_the_run() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &talking("hello"), TALKING);
    let lines = "cal greet\ncall fail\nevent EventNobodyWants\nconfigure {\"volume\": \"loud\"}\n\
                 configure {\"volume\": 11}\ncall greet [1]\nstop\ncall greet\nhelp\ncall";
    let output = told(&scratch, "run hello --stdin", lines);
    let shown = text(&output.stdout);
    for words in [
        "> cal greet: there is no \"cal\"; did you mean call?",
        "> call fail: the plugin answered with an error: no way (7)",
        "> event EventNobodyWants: no active plugin consumes",
        "> configure: volume: must be a number, found a string",
        "> configure: the plugin refuses it",
        "> call greet [1]: write a JSON object",
        "> call greet: it does not run; start starts it",
        "> call METHOD {…} ",
        "> call: call what?",
    ] {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "plugin-runner: 8 commands failed\n");
    scratch.assert_nothing_left();
}

#[test]
fn with_several_plugins_a_name_comes_first() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &talking("hello"), TALKING);
    scratch.plugin("other", &talking("other"), TALKING);
    let lines = "hello call greet\nother state\ncall greet\nhallo state\nhello\n\
                 event EventThreadPublished\nquit\nhello call greet";
    let output = told(&scratch, "run hello other --stdin --json", lines);
    let replies = of_type(&output, "reply");
    let named: Vec<_> = replies
        .iter()
        .map(|reply| reply["plugin"].as_str())
        .collect();
    assert_eq!(
        named,
        [Some("hello"), Some("other"), None, None, None, None]
    );
    for (at, words) in [
        (2, "which one? begin with hello, other"),
        (3, "did you mean hello?"),
        (4, "what is hello to do?"),
    ] {
        let error = replies[at]["error"].as_str().unwrap();
        assert!(error.contains(words), "{error}");
    }
    // An event is everyone's.
    assert_eq!(
        replies[5]["result"],
        json!({"hello": "delivered", "other": "delivered"})
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn calls_to_the_host_are_shown_and_answered_as_the_arguments_say() {
    let scratch = Scratch::new();
    let mut manifest = talking("hello");
    manifest["access"] = json!({"permissions": []});
    scratch.plugin("hello", &manifest, TALKING);
    scratch.write("config.json", r#"{"volume": 4, "secret": "x"}"#);
    scratch.write("value.json", r#"{"value": 5}"#);
    let mut command = scratch.command("run hello --stdin --json --config config.json");
    command.args([
        "--answer",
        "kv_get=@value.json",
        "--answer",
        "kv_set=!read only",
    ]);
    let asked = ["kv_get", "kv_set", "unknown", "get_config"];
    let lines = asked.map(|method| {
        format!(
            "call ask {}\n",
            json!({"method": method, "params": {"keys": ["volume"]}})
        )
    });
    command.stdin(File::open(scratch.write("commands", lines.concat())).unwrap());
    let output = Program::start(command).end();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let calls = of_type(&output, "call");
    let methods: Vec<_> = calls
        .iter()
        .map(|call| call["method"].as_str().unwrap())
        .collect();
    assert_eq!(methods, asked);
    assert_eq!(calls[0]["result"], json!({"value": 5}));
    assert_eq!(calls[0]["params"], json!({"keys": ["volume"]}));
    assert!(
        calls[1]["error"].as_str().unwrap().contains("read only"),
        "{}",
        calls[1]
    );
    assert!(
        calls[2]["error"]
            .as_str()
            .unwrap()
            .contains("--answer 'unknown={}'"),
        "{}",
        calls[2]
    );
    assert_eq!(calls[3]["result"], json!({"volume": 4}));
    let logged = of_type(&output, "log");
    let has = |part: &str| {
        logged
            .iter()
            .any(|logged| logged["line"].as_str().unwrap().contains(part))
    };
    // The plugin was told, and got what is shown.
    assert!(
        has("called configure {\"secret\": \"x\", \"volume\": 4}"),
        "{logged:#?}"
    );
    assert!(has("\"value\": 5"), "{logged:#?}");
    assert!(has("read only"), "{logged:#?}");
}

#[test]
fn a_configuration_that_is_taken_is_the_one_that_counts() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &talking("hello"), TALKING);
    let ask = "call ask {\"method\": \"get_config\", \"params\": {\"keys\": []}}\n";
    let lines =
        format!("configure {{\"volume\": 2}}\nconfigure {{\"volume\": 11}}\nrestart\n{ask}");
    let output = told(&scratch, "run hello --stdin --json", &lines);
    let calls = of_type(&output, "call");
    assert_eq!(
        calls.last().unwrap()["result"],
        json!({"volume": 2}),
        "{calls:#?}"
    );
}

#[test]
fn arguments_that_cannot_work_are_refused_before_anything_starts() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &talking("hello"), TALKING);
    scratch.plugin("other", &talking("other"), ANSWERING);
    scratch.write("list.json", "[1]");
    scratch.write("wrong.json", r#"{"volume": "loud"}"#);
    for (arguments, code, words) in [
        (
            "run hello --config missing.json",
            1,
            "--config missing.json: missing.json: cannot open it",
        ),
        ("run hello --config list.json", 1, "write a JSON object"),
        (
            "run hello --config wrong.json",
            2,
            "the plugin's schema does not allow it",
        ),
        ("run hello other --config wrong.json", 2, "write ID=FILE"),
        ("run hello --answer kv_get", 2, "write METHOD=JSON"),
        ("run hello --answer kv_get=1", 2, "write a JSON object"),
        ("run hello --answer get_config={}", 2, "comes from --config"),
        ("run hello --answer access_get={}", 2, "access_key"),
        ("run --watch", 2, "--watch needs"),
        ("run hello --plugin-memory 5XB", 2, "write a size"),
        ("run hello --timestamps --json", 2, "cannot be used with"),
    ] {
        let output = scratch.output(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
        assert!(said.contains(words), "{arguments}: {said}");
    }
    scratch.assert_nothing_left();
}

#[test]
fn lines_may_begin_with_the_time_of_day() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &talking("hello"), TALKING);
    let output = told(&scratch, "run hello --stdin --timestamps", "state\n");
    for line in text(&output.stdout).lines() {
        let (time, rest) = line.split_at(12);
        let shape: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "00:00:00.000", "{line}");
        assert!(rest.starts_with(" hello  "), "{line}");
    }
}

#[test]
fn limits_of_the_arguments_are_those_of_the_process() {
    const LIMITED: &str = r#"#!/usr/bin/env python3
import json, os, resource, sys
for line in sys.stdin:
    call = json.loads(line)
    names = {"files": "NOFILE", "memory": "AS", "time": "CPU", "processes": "NPROC"}
    limit = lambda name: resource.getrlimit(getattr(resource, "RLIMIT_" + name))[0]
    result = {"nice": os.nice(0), **{key: limit(name) for key, name in names.items()}}
    print(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}), flush=True)
"#;
    let scratch = Scratch::new();
    scratch.plugin("hello", &manifest("hello"), LIMITED);
    let arguments = "run hello --stdin --json --no-health --plugin-open-files 99 --plugin-nice 17 \
                     --plugin-memory 2GiB --plugin-cpu-time 1h --plugin-processes 4000";
    let output = told(&scratch, arguments, "call limits\n");
    let replies = of_type(&output, "reply");
    let limits = json!({
        "files": 99, "nice": 17, "memory": 2_u64 << 30, "time": 3600, "processes": 4000,
    });
    assert_eq!(replies[0]["result"], limits);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_line_that_is_too_long_is_left_out_and_said() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &talking("hello"), TALKING);
    let long = "x".repeat(3 * 1024 * 1024);
    let lines = format!("call first\ncall long {{\"a\": \"{long}\"}}\ncall second\n");
    let output = told(&scratch, "run hello --stdin --json", &lines);
    let replies = of_type(&output, "reply");
    let commands: Vec<_> = replies
        .iter()
        .map(|reply| reply["command"].as_str().unwrap())
        .collect();
    assert_eq!(commands, ["call first", "a line", "call second"]);
    let error = replies[1]["error"].as_str().unwrap();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "plugin-runner: a command failed\n");
}

#[test]
fn standard_input_that_cannot_be_read_is_a_failure() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &talking("hello"), TALKING);
    let mut command = scratch.command("run hello --stdin");
    command.stdin(File::open(scratch.path("hello")).unwrap());
    let output = Program::start(command).end();
    let shown = text(&output.stdout);
    assert!(shown.contains("> standard input: "), "{shown}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn commands_to_a_plugin_that_does_not_come_up_fail() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &manifest("hello"), crate::program::FAILING);
    let arguments = "run hello --stdin --max-restart-attempts 0";
    let output = told(&scratch, arguments, "call greet\n");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    scratch.assert_nothing_left();
}

#[test]
fn no_reply_is_lost_when_commands_come_faster_than_the_output_is_read() {
    const COMMANDS: usize = 5000;
    const SLOWLY: usize = 300_000;
    let scratch = Scratch::new();
    scratch.plugin("hello", &talking("hello"), TALKING);
    let path = scratch.write("commands", "state\n".repeat(COMMANDS) + "call last\n");
    let output = scratch.path("output");
    let mut command = scratch.command("run hello --stdin --json");
    command.stdin(File::open(path).unwrap());
    // A pipe, which holds fewer than all replies.
    crate::program::make_pipe(&output);
    let reader = std::thread::spawn({
        let output = output.clone();
        move || {
            // Byte for byte at first, which is slower than the commands are done.
            let (mut output, mut shown) = (File::open(output).unwrap(), Vec::new());
            let mut byte = [0];
            while shown.len() < SLOWLY && output.read(&mut byte).unwrap() == 1 {
                shown.push(byte[0]);
            }
            output.read_to_end(&mut shown).unwrap();
            String::from_utf8(shown).unwrap()
        }
    });
    command.stdout(
        std::fs::OpenOptions::new()
            .write(true)
            .open(&output)
            .unwrap(),
    );
    let mut child = command.spawn().unwrap();
    drop(command);
    assert!(crate::program::wait_for_end(&mut child).success());
    let shown = reader.join().unwrap();
    let replies = shown.lines().filter(|line| line.contains("\"reply\""));
    assert_eq!(replies.count(), COMMANDS + 1);
}
