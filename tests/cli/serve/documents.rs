//! What the documents say is so: the quickstart and the backup run as they are written, and their tables and files
//! are those of the program.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::Server;
use crate::program::{FAILING, Program, Scratch, manifest, text};
use crate::support::alone::Watched;
use crate::support::{names, skipped};

const OPERATE: &str = include_str!("../../../src/OPERATE.md");
const FAMILIES: &str = include_str!("../../../src/manager/metrics/families.md");

/// The blocks of this language under a heading of the document.
#[track_caller]
fn blocks(heading: &str, language: &str) -> Vec<&'static str> {
    let (_, section) = OPERATE
        .split_once(&format!("\n## {heading}\n"))
        .expect(heading);
    let section = section.split("\n## ").next().unwrap();
    let mut blocks = section.split("\n```").skip(1);
    let mut found = Vec::new();
    while let (Some(block), Some(_)) = (blocks.next(), blocks.next()) {
        if let Some(block) = block.strip_prefix(&format!("{language}\n")) {
            found.push(block);
        }
    }
    found
}

/// Commands for a shell, in the test's directory and with the program at hand.
fn shell(scratch: &Scratch, script: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_plugin-runner"));
    let path = env::var("PATH").unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-euc", script])
        .env(
            "PATH",
            format!("{}:{path}", program.parent().unwrap().display()),
        )
        .env("TMPDIR", scratch.temporary())
        .current_dir(scratch.path(""));
    command
}

/// The commands of a quickstart, on ports that are free and with a server that is waited for instead of a while.
#[track_caller]
fn quickstart(scratch: &Scratch, script: &str, data: &str) -> Command {
    assert!(script.lines().count() <= 10, "{script}");
    let waits = format!("while kill -0 $! && [ ! -s {data}/admin.json ]; do sleep 0.1; done");
    let free = script.replace("sleep 1", &waits);
    assert_ne!(free, script);
    let url = format!(r#"$(sed 's/.*"url":"\([^"]*\)".*/\1/' {data}/admin.json)"#);
    let mut command = shell(scratch, &free.replace("http://127.0.0.1:8001", &url));
    let names = env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.as_encoded_bytes().starts_with(b"PLUGIN_")) {
        command.env_remove(name);
    }
    command
        .env("PLUGIN_RUNNER_LISTEN", "127.0.0.1:0")
        .env("PLUGIN_RUNNER_ADMIN", "127.0.0.1:0");
    command
}

/// Ends the server that a quickstart has left.
#[track_caller]
fn end_server(scratch: &Scratch, data: &str) {
    let served = fs::read(scratch.path(data).join("admin.json")).unwrap();
    let served: Value = serde_json::from_slice(&served).unwrap();
    let pid = i32::try_from(served["pid"].as_i64().unwrap()).unwrap();
    let server = Watched::new(rustix::process::Pid::from_raw(pid).unwrap());
    server.signal(Signal::TERM);
    server.expect_end("the server");
}

#[test]
fn the_quickstart_is_ten_lines_and_works() {
    let [script] = blocks("Quickstart", "sh")[..] else {
        panic!("one block");
    };
    if Command::new("curl").arg("--version").output().is_err() {
        skipped("the quickstart", "there is no curl");
        return;
    }
    let scratch = Scratch::new();
    let mut quickstart = Program::start(quickstart(&scratch, script, "data"));
    let answer = quickstart.line_with("world");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer, json!({"hello": "world"}));
    quickstart.line_with("\"active_state\":\"active\"");
    end_server(&scratch, "data");
    let output = quickstart.end();
    let said = text(&output.stderr);
    assert!(said.trim_end().ends_with("stopped"), "{said}");
}

#[test]
fn the_readme_leads_from_nothing_to_an_answer_in_ten_lines() {
    const README: &str = include_str!("../../../README.md");
    let section = README.split_once("\n## The program\n").unwrap().1;
    let script = section.split_once("```sh\n").unwrap().1;
    let script = script.split_once("\n```").unwrap().0;
    let scratch = Scratch::new();
    let mut readme = Program::start(quickstart(&scratch, script, "data/plugins"));
    // Tried in the foreground, and then installed.
    readme.line_with("> call greet: {\"hello\":\"world\"}");
    readme.line_with("hello (");
    let answer: Value = serde_json::from_str(&readme.line_with("world")).unwrap();
    assert_eq!(answer, json!({"hello": "world"}));
    end_server(&scratch, "data/plugins");
    readme.end();
}

#[test]
fn what_is_named_is_there() {
    let scratch = Scratch::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let links = OPERATE.split("](").skip(1);
    for link in links.map(|link| link.split(')').next().unwrap()) {
        let path = source.join(link.split('#').next().unwrap());
        assert!(path.is_file(), "{link}");
    }
    let commands = ["help serve", "help list", "help remove", "help logs"];
    let help = commands.map(|command| text(&scratch.output(command).stdout).to_owned());
    let help = help.concat();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    for code in OPERATE.split('`').skip(1).step_by(2) {
        let name = code.split(|c| !is_name(c)).next().unwrap();
        if name.starts_with("--") || name.starts_with("PLUGIN_") {
            assert!(help.contains(name), "{name} is not in the help");
        }
    }
    let [unit] = blocks("Under systemd", "ini")[..] else {
        panic!("one block");
    };
    let file = fs::read_to_string(source.join("cli/serve/systemd/plugin-runner.service"));
    assert_eq!(unit, file.unwrap().trim_end());
}

#[test]
fn a_backup_is_restored_whether_the_server_was_stopped_or_killed() {
    let [backup, restore] = blocks("Backup and restore", "sh")[..] else {
        panic!("two blocks");
    };
    for signal in [Signal::TERM, Signal::KILL] {
        let scratch = Scratch::new();
        let server = Server::start(&scratch, "");
        let id = server.obedient(&scratch);
        server.call(id, "keep", &json!({"text": "what it kept"}));
        let mut log = server.follow(id, None);
        let place = log.log_line().id;
        server.print(id, 0, 3, 0);
        while !log.data().starts_with("line 2 ") {}
        let stopped = server.plugins()[0].clone();
        let (token, bearer) = (server.token.clone(), server.bearer());
        server.program.signal(signal);
        drop(log);
        server.program.end();

        for script in [backup, restore] {
            let output = shell(&scratch, script).output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        // As on another machine, where the first directory is not there.
        fs::rename(scratch.path("data"), scratch.path("elsewhere")).unwrap();
        fs::rename(scratch.path("restored"), scratch.path("data")).unwrap();
        let server = Server::start(&scratch, "");
        assert_eq!(server.token, token);
        assert_eq!(server.bearer(), bearer);
        server.active_after(id, 1);
        let shown = &server.plugins()[0];
        for member in ["id", "added_at", "name", "manifest"] {
            assert_eq!(shown[member], stopped[member]);
        }
        assert_eq!(server.call(id, "kept", &json!({}))["text"], "what it kept");
        let mut log = server.follow(id, place.as_deref());
        for number in 0..3 {
            let line = log.data();
            assert!(line.starts_with(&format!("line {number} ")), "{line}");
        }
        drop(log);
        server.program.stop();
        assert!(!names(&scratch.path("data")).is_empty());
    }
}

#[test]
fn the_table_of_metrics_has_every_family() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "");
    let id = server.obedient(&scratch);
    server.active(id);
    let bearer = server.bearer();
    let (status, text) = server.get("/metrics", &[("Authorization", &bearer)]);
    assert_eq!(status, 200, "{text}");
    let served: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    let rows = FAMILIES.lines().filter(|line| line.starts_with("| `"));
    let mut described = BTreeSet::new();
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        described.insert((name, cells[2]));
        // Each label, unless nothing was counted yet.
        let series = text.lines().find(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', '_']))
        });
        let labels = cells[3].split(", ").filter(|label| !label.is_empty());
        for label in labels.map(|label| label.trim_matches('`')) {
            let series = series.unwrap_or_else(|| panic!("no series of {name}"));
            assert!(series.contains(&format!("{label}=\"")), "{label}: {series}");
        }
    }
    assert_eq!(described, served);
    server.program.stop();
    // What alerts ask for is there.
    for block in blocks("Metrics", "yaml") {
        let words = block.split(|c: char| !c.is_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("plugin_runner_")) {
            assert!(described.iter().any(|(known, _)| *known == name), "{name}");
        }
    }
}

#[test]
fn mistakes_are_answered_as_the_table_says() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "--runtime none");
    let bearer = server.bearer();
    let token = ("Authorization", &*bearer);
    let json = ("Content-Type", "application/json");
    let zip = ("Content-Type", "application/zip");
    let (host, origin) = (
        ("Host", "plugins.example.com"),
        ("Origin", "https://a.example"),
    );
    for (row, method, headers) in [
        ("401", "GET", &[][..]),
        ("421", "GET", &[token, host]),
        ("403 `origin_not_allowed`", "GET", &[token, origin]),
        ("403 `disabled`", "POST", &[token, zip]),
        ("415", "POST", &[token]),
    ] {
        expect_row(&server, row, method, "/api/plugins", headers, b"PK");
    }
    server.program.stop();

    let server = Server::start(&scratch, "--max-restart-attempts 0");
    let local = br#"{"mode": "supervised", "url": "http://127.0.0.1:1/a.zip"}"#;
    for (row, headers, body) in [
        ("400 `invalid_package`", [token, zip], &b"PK"[..]),
        ("400 `private_address`", [token, json], local),
    ] {
        expect_row(&server, row, "POST", "/api/plugins", &headers, body);
    }
    let failing = server.install(&scratch.zipped("failing.zip", &manifest("failing"), FAILING));
    let rpc = format!("/api/plugins/{failing}/rpc");
    let call = br#"{"method": "wait", "timeout": 0.1}"#;
    let row = "409 `not_loaded`, `not_ready`";
    expect_row(&server, row, "POST", &rpc, &[token, json], call);
    let start = format!("/api/plugins/{failing}/active");
    let active = br#"{"active": "active"}"#;
    let row = "502 `plugin_failed`";
    expect_row(&server, row, "PATCH", &start, &[token, json], active);
    let rpc = format!("/api/plugins/{}/rpc", server.obedient(&scratch));
    expect_row(&server, "504 `timeout`", "POST", &rpc, &[token, json], call);
    server.program.stop();
}

/// Sends a request, and finds the answer in the document: its status, and one of the kinds if there are some.
#[track_caller]
fn expect_row(
    server: &Server,
    row: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) {
    assert!(OPERATE.contains(&format!("\n| {row} |")), "{row}");
    let body = if method == "GET" { b"" } else { body };
    let (status, answer) = server.send(method, path, headers, body);
    let problem: Value = serde_json::from_str(&answer).unwrap();
    let kind = problem["kind"].as_str().unwrap();
    let (expected, kinds) = row.split_at(3);
    assert_eq!(status.to_string(), expected, "{row}: {problem}");
    assert!(
        kinds.is_empty() || kinds.contains(&format!("`{kind}`")),
        "{row}: {problem}"
    );
}
