//! The programs on a sprite: listing them, and ending one.

use std::time::Duration;

use super::server::{Server, Then, json, wait_for_end, write};
use super::{SHORT, Setup, problem};
use crate::error::{SpritesError, SpritesProblem};
use crate::runtime::sprites::exec::KillReport;
use crate::testing::{LONG, assert_matches};

#[test]
fn sessions_are_listed() {
    let server = Server::with([json(
        200,
        r#"{"count":2,"sessions":[{"id":"7","command":"/bin/sh"},{"id":8,"tty":true}]}"#,
    )]);
    let setup = Setup::of(&server);
    let sessions = setup.client.sessions("s", setup.long()).unwrap();
    let ids: Vec<_> = sessions.iter().map(|session| &*session.id).collect();
    assert_eq!(ids, ["7", "8"]);
    assert_eq!(server.seen()[0].target, "/v1/sprites/s/exec");
}

fn kill(setup: &Setup, within: Duration) -> Result<KillReport, SpritesError> {
    let grace = Duration::from_secs(3);
    setup
        .client
        .kill("s", "7", "INT", grace, setup.within(within))
}

#[test]
fn a_kill_is_reported_with_its_last_line() {
    let server = Server::start(|_, _, peer| {
        write(
            peer,
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n",
        );
        write(
            peer,
            b"{\"type\":\"signal\",\"pid\":7}\n{\"type\":\"timeout\"}\n",
        );
        write(
            peer,
            b"{\"type\":\"killed\"}\n{\"type\":\"complete\",\"exit_code\":137}\n",
        );
        // And keeps the connection.
        wait_for_end(peer);
        Then::Close
    });
    let setup = Setup::of(&server);
    let report = kill(&setup, LONG).unwrap();
    assert!(report.was_there && report.was_forced);
    assert_eq!(report.exit_code, Some(137));
    let seen = &server.seen()[0];
    assert_eq!(seen.method, "POST");
    assert_eq!(
        seen.target,
        "/v1/sprites/s/exec/7/kill?signal=INT&timeout=3s"
    );
}

#[test]
fn a_kill_of_what_is_gone_is_done() {
    for status in [404, 410] {
        let server = Server::with([json(status, "{}")]);
        let setup = Setup::of(&server);
        assert!(!kill(&setup, LONG).unwrap().was_there);
    }
    // The connection is lost at some point, and whether it was killed is not known.
    let begun = "HTTP/1.1 200 OK\r\n\r\n{\"type\":\"signal\"}\n".to_owned();
    let server = Server::with([begun, json(410, "{}")]);
    let setup = Setup::of(&server);
    assert!(!kill(&setup, LONG).unwrap().was_there);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_kill_is_bounded() {
    let server = Server::start(|_, _, peer| {
        write(peer, b"HTTP/1.1 200 OK\r\n\r\n");
        while write(peer, &[b'x'; 4096]) {}
        Then::Drop
    });
    let setup = Setup::of(&server);
    let problem_of_lines = problem(kill(&setup, LONG));
    assert_matches!(problem_of_lines, SpritesProblem::TooLarge { .. });
    let server = Server::start(|_, _, peer| {
        write(peer, b"HTTP/1.1 200 OK\r\n\r\n{\"type\":\"signal\"}\n");
        wait_for_end(peer);
        Then::Drop
    });
    let setup = Setup::of(&server);
    let late = problem(kill(&setup, SHORT));
    assert_matches!(late, SpritesProblem::Timeout { .. });
}
