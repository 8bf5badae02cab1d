//! `logs`: its end, and going on after the host was away.

use rustix::process::Signal;
use serde_json::Value;

use super::{done, refused};
use crate::program::{Program, Scratch};
use crate::serve::{Server, bare};

#[test]
fn the_last_lines_are_shown_also_when_no_host_runs() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "");
    let id = server.obedient(&scratch);
    server.print(id, 0, 200, 0);
    let all = done(&scratch, "logs obedient --lines all");
    assert!(all.starts_with("pid "), "{all}");
    assert_eq!(all.lines().count(), 201);
    assert_eq!(done(&scratch, "logs obedient").lines().count(), 100);
    assert_eq!(
        done(&scratch, "logs obedient --since 1h").lines().count(),
        201
    );
    assert_eq!(
        done(&scratch, "logs obedient --since 2999-01-01T00:00:00Z"),
        ""
    );
    let timed = done(&scratch, "logs obedient -n 1 --timestamps");
    let (at, line) = timed.split_once(' ').unwrap();
    assert!(humantime::parse_rfc3339(at).is_ok(), "{timed}");
    assert_eq!(line.trim_end(), "line 199");
    for (wrong, named) in [
        ("--since yesterday", "such as 500ms"),
        ("--since 1h -n 1", "--lines"),
    ] {
        let said = refused(&scratch, &format!("logs obedient {wrong}"), 2);
        assert!(said.contains(named), "{said}");
    }
    server.program.stop();
    let last = done(&scratch, "logs obedient -n 2 --json");
    let last: Vec<Value> = last
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(last.len(), 2, "{last:?}");
    assert_eq!(last[0]["line"].as_str().unwrap().trim_end(), "line 198");
    assert_eq!(last[1]["line"].as_str().unwrap().trim_end(), "line 199");
    assert_eq!(last[1]["installation"], id.to_string());
    let at = last[1]["at"].as_str().unwrap();
    assert!(humantime::parse_rfc3339(at).is_ok(), "{at}");
    let said = refused(&scratch, "logs obedien", 3);
    assert!(said.contains("did you mean obedient"), "{said}");
}

#[test]
fn following_goes_on_behind_the_last_line_after_the_host_was_killed() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "");
    let id = server.obedient(&scratch);
    server.print(id, 0, 10, 0);
    let mut follower = Program::start(bare(&scratch, "logs obedient -f -n all --data data"));
    let expect = |follower: &mut Program, numbers: std::ops::Range<u32>| {
        for number in numbers {
            let line = follower.line().unwrap();
            assert_eq!(line.trim_end(), format!("line {number}"));
        }
    };
    assert!(follower.line().unwrap().starts_with("pid "));
    expect(&mut follower, 0..10);
    server.program.signal(Signal::KILL);
    server.program.end();
    follower.error_with("has gone; waiting for it");
    // At another address, which the directory names.
    let server = Server::start(&scratch, "");
    follower.error_with("the host is back");
    server.expect_active(id);
    server.print(id, 10, 20, 0);
    assert!(follower.line().unwrap().starts_with("pid "));
    expect(&mut follower, 10..20);
    follower.signal(Signal::TERM);
    follower.end();
    server.program.stop();
}
