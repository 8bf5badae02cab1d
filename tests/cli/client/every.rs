//! What holds for every command: its exit statuses, output for people and for programs, and readers that leave.

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{Place, expect};
use crate::program::{Program, text};

/// The commands in an order in which each can be carried out again and again: what has to be done before, the
/// command, and its status where no host runs.
const COMMANDS: [(&str, &str, i32); 32] = [
    ("", "list", 0),
    ("", "top --once", 4),
    ("", "get hello", 0),
    ("", "restart hello", 4),
    ("", "deactivate hello", 4),
    ("", "activate hello", 4),
    ("", "call hello ping", 4),
    ("", "publish EventThreadPublished", 4),
    ("", "logs hello", 0),
    ("", "config get hello", 0),
    ("", "config schema hello", 0),
    ("", "config set hello greeting=hi", 0),
    ("", "env set hello LEVEL=debug", 0),
    ("", "env list hello", 0),
    ("", "env list hello --show", 0),
    ("env set hello LEVEL=debug", "env unset hello LEVEL", 0),
    ("", "limits hello", 0),
    ("", "limits hello --open-files 300", 0),
    ("", "update hello hello-2.zip", 0),
    ("", "versions hello", 0),
    ("update hello hello-2.zip", "rollback hello", 4),
    ("", "history hello", 0),
    ("", "download hello --output copy.zip --force", 0),
    ("", "install hello.zip --update", 0),
    ("", "install hello.zip --update --activate", 4),
    ("", "dev install hello", 4),
    ("", "install --external chat.json --update", 0),
    ("", "update chat --manifest chat.json", 0),
    ("", "token rotate chat", 4),
    ("install bad.zip", "remove bad --yes", 0),
    ("", "validate hello hello.zip", 0),
    ("", "dev package hello --force --output again.zip", 0),
];

/// The commands that print nothing but what was not there before.
const SILENT_AT_FIRST: [&str; 1] = ["history hello"];

/// Commands that need neither a host nor its directory.
fn is_local(command: &str) -> bool {
    ["validate", "dev package", "completions", "man", "help"]
        .iter()
        .any(|local| command.starts_with(local))
}

/// The word that names a plugin.
fn named(command: &str) -> Option<&str> {
    let mut words = command.split_whitespace();
    let takes_none = is_local(command)
        || ["install", "dev install"]
            .iter()
            .any(|install| command.starts_with(install));
    words.find(|word| !takes_none && ["hello", "chat", "bad"].contains(word))
}

/// The problems of all commands, so that one failure hides no other.
fn check(problems: impl IntoIterator<Item = Option<String>>) {
    let problems: Vec<_> = problems.into_iter().flatten().collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What is wrong with the end of a command, which says why in one sentence if it failed.
fn ended(command: &str, output: &Output, status: i32) -> Option<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    let is_a_sentence =
        status == 0 || said.starts_with("plugin-runner: ") && said.lines().count() == 1;
    let is_right = output.status.code() == Some(status) && is_a_sentence;
    (!is_right).then(|| format!("{command}: {} instead of {status}: {said:?}", output.status))
}

/// What is wrong with the output of a command.
fn printed(command: &str, output: &Output) -> Option<String> {
    let shown = text(&output.stdout);
    if shown.is_empty() && !SILENT_AT_FIRST.contains(&command) {
        return Some(format!("{command} prints nothing"));
    }
    if shown.contains('\u{1b}') || !(shown.is_empty() || shown.ends_with('\n')) {
        return Some(format!("{command} prints {shown:?}"));
    }
    None
}

/// What is wrong with lines that are not one JSON object each.
fn is_json(command: &str, output: &Output) -> Option<String> {
    let other = text(&output.stdout)
        .lines()
        .find(|line| !serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object()))?;
    Some(format!("{command} --json prints {other:?}"))
}

/// Does what has to be done before a command, which may need a host.
fn before(place: &Place, before: &str) {
    if !before.is_empty() {
        place.output(before);
    }
}

#[test]
fn every_command_ends_with_0_for_people_and_for_programs() {
    let place = Place::prepared();
    check(COMMANDS.iter().flat_map(|&(first, command, _)| {
        before(&place, first);
        let shown = place.output(command);
        before(&place, first);
        let json = place.output(&format!("{command} --json"));
        [
            ended(command, &shown, 0).or_else(|| printed(command, &shown)),
            ended(command, &json, 0)
                .or_else(|| printed(command, &json))
                .or_else(|| is_json(command, &json)),
        ]
    }));
}

#[test]
fn without_a_host_every_command_does_its_work_or_says_that_none_runs() {
    let mut place = Place::prepared();
    place.server.take().unwrap().program.stop();
    check(COMMANDS.iter().flat_map(|&(first, command, status)| {
        ["", " --json"].map(|form| {
            before(&place, first);
            let command = format!("{command}{form}");
            let output = place.output(&command);
            let ended = ended(&command, &output, status);
            let shows = status == 4 && !text(&output.stdout).is_empty();
            ended
                .or_else(|| shows.then(|| format!("{command} prints something")))
                .or_else(|| {
                    if form.is_empty() {
                        None
                    } else {
                        is_json(&command, &output)
                    }
                })
        })
    }));
    assert!(!place.scratch.path("data/admin.json").exists());
    // A directory in which nothing ever was stays so.
    check(
        COMMANDS
            .iter()
            .filter(|(_, command, _)| !is_local(command))
            .map(|&(_, command, _)| {
                let other = format!("{command} --data other");
                // Those make the directory.
                let installs = command.starts_with("install");
                (!installs)
                    .then(|| ended(command, &place.output(&other), 4))
                    .flatten()
            }),
    );
    assert!(!place.scratch.path("other").exists());
}

#[test]
fn a_name_that_none_has_or_several_have_is_refused_with_3_everywhere() {
    let place = Place::prepared();
    place.ok("install bad.zip");
    let server = place.server.as_ref().unwrap();
    // To the host two installations of one plugin are no fault.
    for package in ["hello.zip", "bad.zip"] {
        server.install(&place.scratch.path(package));
    }
    let ids: Vec<_> = place
        .lines("list")
        .iter()
        .map(|plugin| plugin["id"].to_string())
        .collect();
    let common = ids[0]
        .trim_matches('"')
        .chars()
        .zip(ids[1].trim_matches('"').chars());
    let prefix: String = common
        .take_while(|(one, other)| one == other)
        .map(|(one, _)| one)
        .collect();
    assert!(!prefix.is_empty(), "{ids:?}");
    check(COMMANDS.iter().flat_map(|&(_, command, _)| {
        let Some(name) = named(command) else {
            return vec![None];
        };
        let called = |other: &str| {
            let command = command.replacen(&format!(" {name}"), &format!(" {other}"), 1);
            ended(&command, &place.output(&command), 3)
        };
        let mut problems = vec![called("nobody"), called(&prefix)];
        if name != "chat" {
            problems.push(called(name));
        }
        problems
    }));
    let twice = "install hello.zip --update";
    expect(
        &place.fails(3, twice),
        &[
            "\"hello\" may be any of hello (",
            "by its id to plugin-runner update",
        ],
    );
    expect(&place.fails(3, "get ''"), &["no plugin"]);
    assert_eq!(place.lines("list").len(), 5);
}

#[test]
fn a_host_that_is_not_there_or_refuses_the_token_ends_every_command_with_4() {
    let place = Place::prepared();
    let url = place.server.as_ref().unwrap().admin_address();
    place
        .scratch
        .write("wrong", "a-token-that-no-host-has-ever-made-for-anyone");
    let remote = COMMANDS.iter().filter(|(_, command, _)| !is_local(command));
    check(remote.flat_map(|&(_, command, _)| {
        [
            "--admin http://127.0.0.1:1",
            &format!("--admin http://{url}"),
            "",
        ]
        .map(|host| {
            let command = format!("{command} {host} --token-file wrong");
            ended(&command, &place.output(&command), 4)
        })
    }));
    assert_eq!(place.state("hello"), "active");
}

#[test]
fn wrong_arguments_end_every_command_with_2() {
    let place = Place::prepared();
    let wrong = [
        "--nonsense",
        "--admin nonsense",
        "--admin http://127.0.0.1:1 --data data",
    ];
    check(COMMANDS.iter().flat_map(|&(_, command, _)| {
        wrong.map(|wrong| {
            let command = format!("{command} {wrong}");
            ended(&command, &place.output(&command), 2)
        })
    }));
    let path = "--admin http://127.0.0.1:1";
    expect(
        &place.fails(2, &format!("list {path}")),
        &["no token", "--token-file"],
    );
}

/// A command whose standard output is read by a program that has left.
fn unread(mut command: Command) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = command
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It has a copy.
    drop(command);
    child.wait_with_output().unwrap()
}

#[test]
fn a_reader_that_leaves_is_no_failure_of_any_command() {
    let place = Place::prepared();
    let documents = [
        "completions bash",
        "man",
        "--help",
        "list --help",
        "--version",
        "help",
    ];
    let commands = COMMANDS.iter().flat_map(|&(first, command, _)| {
        [
            (first, command.to_owned()),
            (first, format!("{command} --json")),
        ]
    });
    let documents = documents.map(|command| ("", command.to_owned()));
    let streams = [
        ("", "logs hello -f".to_owned()),
        ("", "download hello --output -".to_owned()),
    ];
    check(
        commands
            .chain(documents)
            .chain(streams)
            .flat_map(|(first, command)| {
                before(&place, first);
                let unread = unread(place.command(&command));
                before(&place, first);
                let is_quiet = !text(&unread.stderr).contains("cannot write");
                // Standard output that was closed before.
                let mut shell = Command::new("sh");
                shell.args(["-c", "exec \"$0\" \"$@\" >&-"]);
                let like = place.command(&command);
                shell.arg(like.get_program()).args(like.get_args());
                for (name, value) in like.get_envs() {
                    match value {
                        Some(value) => shell.env(name, value),
                        None => shell.env_remove(name),
                    };
                }
                shell
                    .current_dir(like.get_current_dir().unwrap())
                    .stdin(Stdio::null());
                let closed = (!command.contains(" -f")).then(|| Program::start(shell).end());
                [
                    ended(&command, &unread, 0),
                    (!is_quiet).then(|| format!("{command} complains")),
                    closed.and_then(|closed| ended(&format!("{command} >&-"), &closed, 0)),
                ]
            }),
    );
}

#[test]
fn every_command_is_in_the_table() {
    let place = Place::new();
    let help = place.ok("--help");
    let all = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let all = all.take_while(|line| !line.is_empty()).filter_map(|line| {
        let line = line
            .strip_prefix("  ")
            .filter(|line| !line.starts_with(' '))?;
        line.split_whitespace().next()
    });
    // Those host plugins, or are no commands of operators.
    let others = ["run", "serve", "completions", "man", "help"];
    check(all.filter(|name| !others.contains(name)).map(|name| {
        let is_there = COMMANDS
            .iter()
            .any(|(_, command, _)| command.split_whitespace().next() == Some(name));
        (!is_there).then(|| format!("{name} is not in the table"))
    }));
    assert!(
        fs::read_dir(place.scratch.path("tmp"))
            .unwrap()
            .next()
            .is_none()
    );
}
