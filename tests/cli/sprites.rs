//! `--runtime sprites`, with the service played on this machine.

use std::fs;
use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fake::{Fake, Fault, Switches};
use crate::program::{ANSWERING, FAILING, Program, Scratch, manifest, text};
use crate::support::wait_until;

const STOPPING: &str = "plugin-runner: stopping; once more to kill\n";

const UPLOAD: &str = "PUT */fs/write";
const CREATE: &str = "POST /v1/sprites";
const DELETE: &str = "DELETE /v1/sprites/*";

/// Settings with which plugins run on this service. Those over stdio need no address, but the program does.
fn start(scratch: &Scratch, fake: &Fake, arguments: &str) -> Program {
    let arguments = format!("{arguments} --runtime sprites --max-backoff 10ms");
    let arguments = if arguments.contains("--public-url") {
        arguments
    } else {
        format!("{arguments} --public-url ws://127.0.0.1:1")
    };
    let mut command = scratch.command(&arguments);
    command
        .env("SPRITES_API_URL", fake.url())
        .env("SPRITES_API_KEY", fake.token());
    Program::start(command)
}

/// An address that nobody listens on.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A manifest of the fixture as a plugin that connects, and its program.
fn connecting(id: &str) -> (Value, String) {
    let mut json = manifest(id);
    json["transport"] = "websocket".into();
    let fixture = env!("CARGO_BIN_EXE_plugin-runner-fixture");
    (json, format!("#!/bin/sh\nexec {fixture} behave\n"))
}

#[test]
fn the_sample_shows_a_whole_life_and_its_sprite_goes_with_it() {
    let (scratch, fake) = (Scratch::new(), Fake::start());
    let mut program = start(&scratch, &fake, "run");
    for part in [
        "* starting",
        "* connecting",
        "* active",
        "> ping answered in ",
        "* restarting in 10ms: exit status 1",
        "* starting",
        "* connecting",
        "* active",
        "> ping answered in ",
    ] {
        program.line_with(part);
    }
    assert_eq!(fake.sprites().len(), 1);
    assert_eq!(fake.calls().count(CREATE), 1, "also when it starts again");
    program.signal(Signal::INT);
    program.line_with("* inactive");
    let output = program.end();
    assert_eq!(
        text(&output.stderr),
        format!(
            "plugin-runner: no plugin given, so this runs the built-in sample; Ctrl-C ends it\n{STOPPING}"
        )
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(fake.sprites(), [""; 0]);
    assert_eq!(fake.calls().count(DELETE), 1);
    fake.finish();
    scratch.assert_nothing_left();
}

#[test]
fn a_data_directory_keeps_the_sprite_and_nothing_is_uploaded_again() {
    let (scratch, fake) = (Scratch::new(), Fake::start());
    let mut program = start(&scratch, &fake, "run --data kept");
    program.line_with("I crash now, once");
    program.line_with("I crashed once already");
    program.stop();
    let sprites = fake.sprites();
    assert_eq!(sprites.len(), 1);
    assert_eq!(fake.sessions(&sprites[0]), [0; 0], "nothing runs on it");

    fake.forget_calls();
    let mut program = start(&scratch, &fake, "run --data kept");
    // What it has stored is there too.
    program.line_with("I crashed once already");
    program.line_with("> ping answered in ");
    program.stop();
    assert_eq!(fake.sprites(), sprites);
    let calls = fake.calls();
    assert_eq!((calls.count(CREATE), calls.count(UPLOAD)), (0, 0));
    fake.finish();
}

#[test]
fn a_directory_and_a_zip_with_a_plugin_that_connects_run_side_by_side() {
    let (scratch, fake) = (Scratch::new(), Fake::start());
    let (json, script) = connecting("from-directory");
    scratch.plugin("directory", &json, &script);
    let (json, script) = connecting("from-zip");
    scratch.zipped("plugin.zip", &json, &script);
    let address = free_address();
    let reached = format!("--listen {address} --public-url ws://{address}");
    let arguments = format!("run directory plugin.zip --json {reached}");
    let mut program = start(&scratch, &fake, &arguments);
    let mut active = std::collections::BTreeSet::new();
    while active.len() < 2 {
        let object = program.object().unwrap();
        if object["to"] == "active" {
            active.insert(object["plugin"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(fake.sprites().len(), 2);
    assert_eq!(program.stop(), STOPPING);
    assert_eq!(fake.sprites(), [""; 0]);
    fake.finish();
    scratch.assert_nothing_left();
}

#[test]
fn a_plugin_that_fails_errs_with_what_it_printed() {
    let (scratch, fake) = (Scratch::new(), Fake::start());
    scratch.plugin("bad", &manifest("bad"), FAILING);
    let arguments = "run bad --json --max-restart-attempts 1";
    let mut program = start(&scratch, &fake, arguments);
    let errored = program.state("bad", "errored");
    assert_eq!(errored["message"], "exit status 42");
    let details = &errored["details"];
    assert_eq!(details["runtime_provider"], "sprites");
    assert_eq!(
        (&details["exit_code"], &details["attempts"]),
        (&json!(42), &json!(2))
    );
    let output = program.end();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "plugin-runner: plugin bad has errored, so nothing runs any more\n"
    );
    assert_eq!(fake.sprites(), [""; 0]);
    fake.finish();
}

/// The environment, the arguments, the exit code, and what the sentence has in it.
const MISTAKES: &str = "
SPRITES_API_KEY= | --public-url wss://p.example | 2 | needs the key of an account at sprites.dev in the environment variable SPRITES_API_KEY
SPRITES_API_KEY=\t | --public-url wss://p.example | 2 | needs the key of an account at sprites.dev
SPRITES_API_KEY=a\tb | --public-url wss://p.example | 2 | SPRITES_API_KEY: it has a space or another character
SPRITES_API_URL=sprites.dev | --public-url wss://p.example | 2 | SPRITES_API_URL: it is not a URL
SPRITES_API_URL=ftp://sprites.dev | --public-url wss://p.example | 2 | SPRITES_API_URL: 
SPRITES_API_URL=http://sprites.dev | --public-url wss://p.example | 2 | use https://
SPRITES_API_URL=https://u:p@sprites.dev | --public-url wss://p.example | 2 | SPRITES_API_URL: it has a user name
SPRITES_API_URL= | | 2 | needs --public-url URL, such as wss://plugins.example.com
SPRITES_API_URL= | --public-url ws://localhost:8000 | 2 | --public-url leads to the machine that asks
SPRITES_API_URL= | --public-url ws://0.0.0.0:8000 | 2 | --public-url leads to the machine that asks
SPRITES_API_URL= | --public-url localhost:8000 | 2 | --public-url leads to the machine that asks
SPRITES_API_URL= | --public-url ws:// | 2 | --public-url 
SPRITES_API_URL= | --runtime docker | 2 | write local or sprites
";

#[test]
fn mistakes_are_told_in_one_sentence_before_anything_is_asked() {
    let scratch = Scratch::new();
    scratch.plugin("fine", &manifest("fine"), ANSWERING);
    for line in MISTAKES.trim().lines() {
        let parts: Vec<_> = line.split('|').map(|part| part.trim_matches(' ')).collect();
        let [variable, arguments, code, part] = parts[..] else {
            panic!("{line}");
        };
        let (name, value) = variable.split_once('=').unwrap();
        let runtime = if arguments.contains("--runtime") {
            ""
        } else {
            "--runtime sprites"
        };
        let mut command = scratch.command(&format!("run fine {runtime} {arguments}"));
        command
            .env("SPRITES_API_KEY", "org/1/2/hush")
            .env_remove("SPRITES_API_URL");
        if value.is_empty() && name == "SPRITES_API_URL" {
            command.env_remove(name);
        } else {
            command.env(name, value);
        }
        let output = Program::start(command).end();
        let said = text(&output.stderr);
        let status = output.status.code().map(|status| status.to_string());
        assert_eq!(status.as_deref(), Some(code), "{line}: {said}");
        assert!(said.contains(part.trim_end()), "{line}: {said}");
        assert!(said.starts_with("plugin-runner: "), "{line}: {said}");
        assert_eq!(said.lines().count(), 1, "{line}: {said}");
        assert!(!said.contains("hush"), "{line}: {said}");
        assert_eq!(text(&output.stdout), "", "{line}");
    }
    scratch.assert_nothing_left();
}

#[test]
fn a_key_that_the_service_refuses_is_told_at_once() {
    let (scratch, fake) = (Scratch::new(), Fake::start());
    scratch.plugin("fine", &manifest("fine"), ANSWERING);
    let mut command =
        scratch.command("run fine --runtime sprites --public-url ws://127.0.0.1:1 --json");
    command
        .env("SPRITES_API_URL", fake.url())
        .env("SPRITES_API_KEY", "another");
    let mut program = Program::start(command);
    let errored = program.state("fine", "errored");
    let message = errored["message"].as_str().unwrap();
    assert!(
        message.contains("status 401 (check SPRITES_API_KEY)"),
        "{message}"
    );
    assert_eq!(errored["details"]["attempts"], 1);
    let output = program.end();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(
        lines[0].contains("delete it by hand if it is there"),
        "{said}"
    );
    assert!(
        lines[1].ends_with("plugin fine has errored, so nothing runs any more"),
        "{said}"
    );
    fake.finish();
}

#[test]
fn a_file_that_the_service_does_not_take_is_named() {
    let (scratch, fake) = (Scratch::new(), Fake::start());
    scratch.plugin("large", &manifest("large"), ANSWERING);
    let file = fs::File::create(scratch.path("large/model.bin")).unwrap();
    file.set_len(16 * 1024 * 1024 + 1).unwrap();
    let output = start(&scratch, &fake, "run large").end();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("plugin-runner: plugin large: model.bin has 16777217 bytes")
            && said.contains("have the plugin fetch it into PLUGIN_DATA_DIR"),
        "{said}"
    );
    assert_eq!(fake.calls().count(CREATE), 0);
    fake.finish();
}

#[test]
fn a_service_that_is_away_is_told_and_waited_for() {
    let (scratch, fake) = (Scratch::new(), Fake::start());
    scratch.plugin("fine", &manifest("fine"), ANSWERING);
    let away = |is_away| fake.set(|switches: &mut Switches| switches.away = is_away);
    away(true);
    let mut program = start(&scratch, &fake, "run fine");
    program.line_with("* starting");
    let warning = program.error_with("[WARN] ");
    assert!(
        warning.contains("cannot list the programs on the sprite: ")
            && warning.contains("; again in "),
        "{warning}"
    );
    away(false);
    program.line_with("* active");
    program.stop();
    assert_eq!(fake.sprites(), [""; 0]);
    fake.finish();
}

#[test]
fn a_run_that_waits_for_the_service_ends_at_once() {
    let (scratch, fake) = (Scratch::new(), Fake::start());
    scratch.plugin("fine", &manifest("fine"), ANSWERING);
    fake.set(|switches| switches.next(1_000, "*", Fault::Hang));
    let mut program = start(&scratch, &fake, "run fine --data kept");
    program.line_with("* starting");
    wait_until("a request", || fake.calls().count("*") > 0);
    assert_eq!(program.stop(), STOPPING);
    fake.finish();
}

#[test]
fn a_second_signal_leaves_sprites_that_cannot_be_deleted_and_names_them() {
    let (scratch, fake) = (Scratch::new(), Fake::start());
    scratch.plugin("fine", &manifest("fine"), ANSWERING);
    fake.set(|switches| switches.next(1_000, DELETE, Fault::Hang));
    let mut program = start(&scratch, &fake, "run fine");
    program.line_with("* active");
    let sprites = fake.sprites();
    program.signal(Signal::INT);
    program.line_with("* inactive");
    program.error_with("deleting the sprites; once more to leave them");
    program.signal(Signal::INT);
    let output = program.end();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains(&format!("the sprite {} is not deleted yet", sprites[0])),
        "{said}"
    );
    assert!(
        said.ends_with("plugin-runner: ended at once on a second signal\n"),
        "{said}"
    );
    fake.finish();
}

#[test]
fn plugins_that_do_not_end_are_killed_all_at_once_and_named() {
    let (scratch, fake) = (Scratch::new(), Fake::start());
    let mut stubborn = manifest("stubborn");
    stubborn["args"] = json!(["stubborn"]);
    for directory in ["one", "two"] {
        stubborn["id"] = directory.into();
        scratch.plugin(directory, &stubborn, ANSWERING);
    }
    let mut program = start(&scratch, &fake, "run one two --json --stop-grace 100ms");
    let mut active = 0;
    program.object_with("both active", |object| {
        active += usize::from(object["to"] == "active");
        active == 2
    });
    let said = program.stop();
    let killed = "plugin-runner: killed, because it had not ended in 100ms: one, two\n";
    assert_eq!(said, format!("{STOPPING}{killed}"));
    assert_eq!(fake.sprites(), [""; 0]);

    // Far beyond the test's own deadline.
    let mut program = start(&scratch, &fake, "run one --json --stop-grace 1h");
    program.state("one", "active");
    program.signal(Signal::INT);
    program.state("one", "stopping");
    program.signal_until(Signal::INT, "\"to\":\"inactive\"");
    let output = program.end();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        format!("{STOPPING}plugin-runner: ended at once on a second signal\n")
    );
    assert_eq!(fake.sprites(), [""; 0]);
    fake.finish();
}

#[test]
fn no_output_has_a_key_a_token_or_the_url_of_a_request() {
    let (scratch, fake) = (Scratch::new(), Fake::start());
    let (json, script) = connecting("connecting");
    scratch.plugin("connecting", &json, &script);
    scratch.plugin("answering", &manifest("answering"), ANSWERING);
    let address = free_address();
    let mut program = start(
        &scratch,
        &fake,
        &format!(
            "run connecting answering -vv --env HUSH=hush-hush --listen {address} --public-url ws://{address}"
        ),
    );
    for _ in 0..2 {
        program.line_with("* active");
    }
    program.signal(Signal::INT);
    let output = program.end();
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stderr).to_owned() + text(&output.stdout);
    assert!(
        said.contains("DEBUG") && said.contains("plugin_runner::"),
        "{said}"
    );
    for secret in [fake.token(), "sdprt_", "hush-hush"] {
        assert!(!said.contains(secret), "{secret}: {said}");
    }
    // The HTTP client tells a URL's host at this level.
    for line in said.lines().filter(|line| !line.contains(" ureq")) {
        for part in ["://", "/v1/", "?token"] {
            assert!(!line.contains(part), "{part}: {line}");
        }
    }
    fake.finish();
}
