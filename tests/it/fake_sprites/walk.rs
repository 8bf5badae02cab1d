//! The tables of the protocol, walked by a client that was written apart from ours; see
//! `tests/fixtures/sprites_client.py`.

use std::process::Command;
use std::time::Duration;

use crate::sprites::{Certificate, Exit, Fake, Info, Switches};
use crate::support::TestDir;
use crate::third_party::venv;

/// Has these sections walked, with switches.
fn walk(test: &'static str, sections: &[&str], set: impl FnOnce(&mut Switches)) {
    let fake = Fake::start();
    fake.set(set);
    walk_on(test, &fake, sections, &[]);
    fake.finish();
}

fn walk_on(test: &'static str, fake: &Fake, sections: &[&str], variables: &[(&str, &str)]) {
    let Some(venv) = venv(test, "websockets-15.0.1") else {
        return;
    };
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/sprites_client.py"
    );
    let walked = Command::new(venv.join("bin/python"))
        // Without leaving a compiled module beside it.
        .arg("-B")
        .arg(script)
        .args(sections)
        .env("SPRITES_API_URL", fake.url())
        .env("SPRITES_API_KEY", fake.token())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&walked.stdout);
    let wrong = String::from_utf8_lossy(&walked.stderr);
    assert!(walked.status.success(), "{said}{wrong}");
    print!("{said}");
    assert_eq!(said.lines().count(), sections.len());
    assert_eq!(fake.sprites(), Vec::<String>::new());
}

#[test]
fn sprites_are_made_shown_listed_and_deleted() {
    let sections = ["authentication", "sprites", "listing"];
    walk(
        "sprites_are_made_shown_listed_and_deleted",
        &sections,
        |_| {},
    );
}

#[test]
fn files_are_written_read_listed_and_deleted() {
    let sections = ["files", "more_files"];
    walk(
        "files_are_written_read_listed_and_deleted",
        &sections,
        |_| {},
    );
}

#[test]
fn commands_run_as_they_were_asked_for() {
    let sections = ["commands", "streams", "terminals"];
    walk("commands_run_as_they_were_asked_for", &sections, |_| {});
}

#[test]
fn sessions_outlive_their_sockets_and_are_killed() {
    let sections = ["sessions", "kills"];
    walk(
        "sessions_outlive_their_sockets_and_are_killed",
        &sections,
        |_| {},
    );
}

#[test]
fn a_session_without_a_client_has_ten_seconds() {
    let sections = ["the_default_time"];
    walk(
        "a_session_without_a_client_has_ten_seconds",
        &sections,
        |_| {},
    );
}

#[test]
fn sessions_can_go_unannounced() {
    walk(
        "sessions_can_go_unannounced",
        &["missing_info"],
        |switches| {
            switches.info = Info::Missing;
        },
    );
}

#[test]
fn ids_can_be_numbers() {
    walk("ids_can_be_numbers", &["numbers"], |switches| {
        switches.info = Info::Number;
    });
}

#[test]
fn exits_have_several_forms() {
    for (exit, section) in [
        (Exit::Text, "exits_as_text"),
        (Exit::EmptyFrame, "empty_exits"),
        (Exit::Close, "closes_without_exit"),
        (Exit::Drop, "drops_without_exit"),
    ] {
        walk("exits_have_several_forms", &[section], |switches| {
            switches.exit = exit;
            switches.hold = Duration::ZERO;
        });
    }
}

#[test]
fn answers_can_be_as_bare_as_they_were_seen() {
    walk(
        "answers_can_be_as_bare_as_they_were_seen",
        &["bare_answers"],
        |switches| {
            switches.signal_capability = false;
            switches.bare_session_list = true;
            switches.bare_file_errors = true;
            switches.counters_under_org = true;
            switches.replay = 1024;
        },
    );
}

/// Without sockets: the threaded client, on Python 3.11 and a busy machine, was seen to lose requests over TLS.
#[test]
fn plain_requests_are_the_same_over_tls() {
    let test = "plain_requests_are_the_same_over_tls";
    let (fake, root) = Fake::over_tls(Certificate::Right);
    let dir = TestDir::new(test);
    let file = dir.path().join("root.pem");
    std::fs::write(&file, root.pem()).unwrap();
    let sections = ["sprites", "listing", "files", "more_files"];
    let variables = [("SPRITES_ROOT", file.to_str().unwrap())];
    walk_on(test, &fake, &sections, &variables);
    fake.finish();
}
