//! Requests and answers: each fault of a server, and how often it is asked.

use std::sync::mpsc;
use std::time::Instant;

use super::server::{Server, Then, answer, header, json, kept, wait_for_end, write};
use super::{SHORT, Setup, TOKEN, problem};
use crate::error::{Error, SpritesProblem};
use crate::runtime::sprites::files::FILE_LIMIT;
use crate::runtime::sprites::sprite::Creation;
use crate::runtime::sprites::{Client, ClientSettings};
use crate::testing::{LONG, assert_matches};
use crate::thread::Threads;

fn sprite(name: &str) -> String {
    json(200, &format!(r#"{{"name":"{name}","status":"cold"}}"#))
}

#[test]
fn the_token_is_in_its_header_alone() {
    let server = Server::with([sprite("pr-a")]);
    let setup = Setup::of(&server);
    let found = setup.client.sprite("pr-a", setup.long()).unwrap();
    assert_eq!(found.status.as_deref(), Some("cold"));
    let seen = &server.seen()[0];
    assert_eq!(seen.target, "/v1/sprites/pr-a");
    let authorization = header(&seen.head, "authorization");
    assert_eq!(authorization, Some(&*format!("Bearer {TOKEN}")));
    assert_eq!(seen.head.matches(TOKEN).count(), 1);
    let agent = header(&seen.head, "user-agent").unwrap();
    assert!(agent.starts_with("plugin-runner/"), "{agent}");
    assert!(!format!("{:?}", setup.client).contains("secret-token"));
}

#[test]
fn a_setting_that_cannot_be_used_is_named_and_not_repeated() {
    for (base_url, token, name) in [
        ("https://api.sprites.dev", "", "SPRITES_API_KEY"),
        ("https://api.sprites.dev", "a secret", "SPRITES_API_KEY"),
        (
            "https://api.sprites.dev",
            "secret\r\nX: y",
            "SPRITES_API_KEY",
        ),
        ("", "t", "SPRITES_API_URL"),
        ("http://secret.example", "t", "SPRITES_API_URL"),
    ] {
        let settings = ClientSettings {
            base_url: base_url.to_owned(),
            token: token.to_owned(),
            roots: Vec::new(),
        };
        let error = Client::new(settings, Threads::with_limit(1)).unwrap_err();
        let text = error.to_string();
        assert_matches!(error, Error::Setting { name: found, .. } if found == name);
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn requests_in_a_row_share_a_connection() {
    let server = Server::start(|_, _, peer| {
        write(peer, kept(&sprite("pr-a")).as_bytes());
        Then::Keep
    });
    let setup = Setup::of(&server);
    for _ in 0..5 {
        setup.client.sprite("pr-a", setup.long()).unwrap();
    }
    assert_eq!((server.seen().len(), server.connections()), (5, 1));
    // The server waits for the next request until its client is gone.
    drop(setup);
}

#[test]
fn a_connection_that_the_server_has_closed_is_not_used_again() {
    let server = Server::with([kept(&sprite("pr-a"))]);
    let setup = Setup::of(&server);
    for _ in 0..5 {
        setup.client.sprite("pr-a", setup.long()).unwrap();
    }
    assert_eq!(server.connections(), 5);
}

#[test]
fn what_cannot_change_is_not_asked_twice() {
    for (status, body) in [
        (400, "{}"),
        (401, "{}"),
        (403, ""),
        (404, "<html>"),
        (422, ""),
    ] {
        let server = Server::with([json(status, body)]);
        let setup = Setup::of(&server);
        let problem = problem(setup.client.sprite("pr-a", setup.long()));
        match (status, problem) {
            (404, SpritesProblem::NotFound) => {}
            (_, SpritesProblem::Refused { status: found, .. }) => assert_eq!(found, status),
            (_, other) => panic!("{status}: {other:?}"),
        }
        assert_eq!(server.seen().len(), 1, "{status}");
    }
}

#[test]
fn passing_failures_are_retried() {
    let page = answer(500, "Content-Type: text/html\r\n", "<html>500</html>");
    let server = Server::with([
        page,
        json(408, ""),
        // No whole answer.
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_owned(),
        sprite("pr-a"),
    ]);
    let setup = Setup::of(&server);
    setup.client.sprite("pr-a", setup.long()).unwrap();
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn a_rate_limit_is_waited_for_or_told_if_there_is_no_time() {
    let limited = answer(
        429,
        "Retry-After: 1\r\n",
        r#"{"error":"sprite_creation_rate_limited"}"#,
    );
    let server = Server::with([limited.clone(), json(201, r#"{"name":"pr-a"}"#)]);
    let setup = Setup::of(&server);
    let begun = Instant::now();
    let made = setup.client.create_sprite("pr-a", setup.long()).unwrap();
    assert_eq!(made, Creation::Made);
    assert!(begun.elapsed().as_secs() >= 1);
    assert_eq!(server.seen().len(), 2);

    let server = Server::with([limited]);
    let setup = Setup::of(&server);
    let problem = problem(setup.client.create_sprite("pr-a", setup.within(SHORT * 3)));
    assert_matches!(problem, SpritesProblem::RateLimited { wait: Some(_), .. });
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn as_many_sprites_as_there_may_be_is_told_at_once() {
    let limited = json(
        429,
        r#"{"error":"concurrent_sprite_limit_exceeded","message":"10 of 10"}"#,
    );
    let server = Server::with([limited]);
    let setup = Setup::of(&server);
    let problem = problem(setup.client.create_sprite("pr-a", setup.long()));
    assert!(problem.to_string().contains("10 of 10"), "{problem}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_create_that_failed_and_made_the_sprite_is_found() {
    for failure in [
        json(500, ""),
        json(409, "{}"),
        json(400, "{}"),
        "oops".to_owned(),
    ] {
        let server = Server::with([failure.clone(), sprite("pr-a")]);
        let setup = Setup::of(&server);
        let made = setup.client.create_sprite("pr-a", setup.long()).unwrap();
        assert_eq!(made, Creation::Found, "{failure}");
        let methods: Vec<_> = server.seen().into_iter().map(|seen| seen.method).collect();
        assert_eq!(methods, ["POST", "GET"], "{failure}");
    }
    // Not made after all: so it is made by the next attempt.
    let server = Server::with([json(500, ""), json(404, ""), json(201, "{}")]);
    let setup = Setup::of(&server);
    let made = setup.client.create_sprite("pr-a", setup.long()).unwrap();
    assert_eq!((made, server.seen().len()), (Creation::Made, 3));
    // Refused, and not because of the name.
    let server = Server::with([json(400, r#"{"message":"bad name"}"#), json(404, "")]);
    let setup = Setup::of(&server);
    let problem = problem(setup.client.create_sprite("pr-a", setup.long()));
    assert!(problem.to_string().contains("bad name"), "{problem}");
}

#[test]
fn deleting_what_is_gone_is_no_failure() {
    let server = Server::with([json(204, ""), json(404, "{}")]);
    let setup = Setup::of(&server);
    assert!(setup.client.delete_sprite("pr-a", setup.long()).unwrap());
    assert!(!setup.client.delete_sprite("pr-a", setup.long()).unwrap());
}

#[test]
fn a_list_goes_through_its_pages() {
    let server = Server::with([
        json(
            200,
            r#"{"sprites":[{"name":"pr-a"}],"has_more":true,"next_continuation_token":"x y"}"#,
        ),
        json(
            200,
            r#"{"sprites":[{"name":"pr-b"},{"name":"other"}],"has_more":false}"#,
        ),
    ]);
    let setup = Setup::of(&server);
    let sprites = setup.client.sprites("pr-", setup.long()).unwrap();
    let names: Vec<_> = sprites.iter().map(|sprite| &*sprite.name).collect();
    assert_eq!(names, ["pr-a", "pr-b"]);
    let targets: Vec<_> = server.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets[0], "/v1/sprites?prefix=pr-&max_results=100");
    assert_eq!(
        targets[1],
        "/v1/sprites?prefix=pr-&max_results=100&continuation_token=x+y"
    );
}

#[test]
fn no_redirect_is_followed() {
    let elsewhere = Server::with([sprite("pr-a")]);
    let location = format!("Location: http://127.0.0.1:{}/\r\n", elsewhere.port());
    for status in [301, 302, 303, 307, 308] {
        let server = Server::with([answer(status, &location, "")]);
        let setup = Setup::of(&server);
        let get = problem(setup.client.sprite("pr-a", setup.long()));
        assert_matches!(get, SpritesProblem::Redirect { .. });
        let post = problem(setup.client.create_sprite("pr-a", setup.long()));
        assert_matches!(post, SpritesProblem::Redirect { .. });
        assert_eq!(server.seen().len(), 2);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn an_answer_without_end_is_cut_off() {
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    ] {
        let server = Server::start(move |_, _, peer| {
            write(peer, head.as_bytes());
            while write(peer, &[b'['; 4096]) {}
            Then::Drop
        });
        let setup = Setup::of(&server);
        let problem = problem(setup.client.sprite("pr-a", setup.long()));
        assert_matches!(problem, SpritesProblem::TooLarge { .. });
        assert_eq!(server.seen().len(), 1);
    }
    // A head without end.
    let server = Server::start(|_, _, peer| {
        write(peer, b"HTTP/1.1 200 OK\r\n");
        while write(peer, b"X-More: and more of the same\r\n") {}
        Then::Drop
    });
    let setup = Setup::of(&server);
    let limit = setup.within(SHORT * 10);
    let problem = problem(setup.client.sprite("pr-a", limit));
    assert!(
        !matches!(problem, SpritesProblem::Timeout { .. }),
        "{problem:?}"
    );
}

#[test]
fn what_is_no_answer_is_told() {
    for (body, text) in [("<html>", "not JSON"), ("{}", "members"), ("", "not JSON")] {
        let server = Server::with([json(200, body)]);
        let setup = Setup::of(&server);
        let problem = problem(setup.client.sprite("pr-a", setup.long()));
        assert_matches!(problem, SpritesProblem::Protocol(_));
        assert!(problem.to_string().contains(text), "{body}: {problem}");
    }
}

#[test]
fn silence_and_dripping_end_at_the_deadline() {
    let silent = Server::start(|_, _, peer| {
        wait_for_end(peer);
        Then::Drop
    });
    let dripping = Server::start(|_, _, peer| {
        write(peer, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        let (_keep, never) = mpsc::channel::<()>();
        while write(peer, b" ") {
            let _ = never.recv_timeout(SHORT / 30);
        }
        Then::Drop
    });
    for server in [silent, dripping] {
        let setup = Setup::of(&server);
        let begun = Instant::now();
        let problem = problem(setup.client.sprite("pr-a", setup.within(SHORT)));
        assert_matches!(problem, SpritesProblem::Timeout { limit: SHORT });
        assert!(begun.elapsed() < LONG / 2);
    }
}

#[test]
fn a_call_is_cancelled_while_it_waits() {
    // For an answer, and for the time until the next attempt.
    let (asked, was_asked) = mpsc::channel();
    let server = Server::start(move |number, _, peer| {
        asked.send(()).unwrap();
        if number > 0 {
            write(peer, answer(503, "Retry-After: 20\r\n", "").as_bytes());
            return Then::Close;
        }
        wait_for_end(peer);
        Then::Drop
    });
    for _ in 0..2 {
        let setup = Setup::of(&server);
        std::thread::scope(|scope| {
            let call = scope.spawn(|| problem(setup.client.sprite("pr-a", setup.long())));
            was_asked.recv_timeout(LONG).unwrap();
            setup.interrupt.cancel();
            assert_matches!(call.join().unwrap(), SpritesProblem::Cancelled);
        });
        // Once and for all.
        let again = problem(setup.client.sprite("pr-a", setup.long()));
        assert_matches!(again, SpritesProblem::Cancelled);
    }
}

#[test]
fn nobody_listening_is_unreachable() {
    let setup = Setup::at("http://127.0.0.1:9".to_owned(), Vec::new());
    let problem = problem(setup.client.sprite("pr-a", setup.within(SHORT * 2)));
    assert_matches!(problem, SpritesProblem::Unreachable(_));
}

#[test]
fn the_name_of_the_service_is_looked_up() {
    let server = Server::with([sprite("pr-a")]);
    let setup = Setup::at(format!("http://localhost:{}", server.port()), Vec::new());
    setup.client.sprite("pr-a", setup.long()).unwrap();
}

#[test]
fn files_are_written_read_and_listed() {
    let content = b"\x00binary\xff".to_vec();
    let server = Server::start(|number, seen, peer| {
        let answer = match number {
            0 => {
                assert_eq!(seen.body, b"\x00binary\xff");
                json(200, r#"{"path":"/a b/c","size":8,"mode":"0755"}"#)
            }
            1 => {
                write(
                    peer,
                    b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n\x00binary\xff",
                );
                return Then::Close;
            }
            2 => json(
                200,
                r#"{"path":"/a b","entries":[{"name":"c","path":"/a b/c","type":"file","size":8,"mode":"0755","isDir":false}],"count":1}"#,
            ),
            3 => json(200, r#"{"path":"/e","entries":null,"count":0}"#),
            4 => json(500, r#"{"error":"unlink: no such file or directory"}"#),
            _ => json(404, r#"{"error":"oops","code":"ENOENT"}"#),
        };
        write(peer, answer.as_bytes());
        Then::Close
    });
    let setup = Setup::of(&server);
    let Setup { client, .. } = &setup;
    client
        .write_file("s", "/a b/c", &content, 0o100_755, setup.long())
        .unwrap();
    assert_eq!(
        client.read_file("s", "/a b/c", setup.long()).unwrap(),
        content
    );
    let listed = client.list_files("s", "/a b", setup.long()).unwrap();
    assert_eq!(
        (&*listed[0].name, listed[0].size, listed[0].is_dir),
        ("c", 8, false)
    );
    assert_eq!(client.list_files("s", "/e", setup.long()).unwrap(), []);
    let missing = problem(client.read_file("s", "/a b/c", setup.long()));
    assert_matches!(missing, SpritesProblem::NotFound);
    let targets: Vec<_> = server.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(
        targets[0],
        "/v1/sprites/s/fs/write?path=%2Fa+b%2Fc&workingDir=%2F&mode=0755&mkdirParents=true&mkdir=true"
    );
    assert_eq!(
        targets[1],
        "/v1/sprites/s/fs/read?path=%2Fa+b%2Fc&workingDir=%2F"
    );
}

#[test]
fn a_file_over_the_services_limit_is_refused_before_it_is_sent() {
    let server = Server::with([json(200, "{}")]);
    let setup = Setup::of(&server);
    let vast = vec![0; FILE_LIMIT + 1];
    let too_large = problem(
        setup
            .client
            .write_file("s", "/a", &vast, 0o644, setup.long()),
    );
    assert_matches!(too_large, SpritesProblem::FileTooLarge { .. });
    assert_eq!(server.connections(), 0);
    setup
        .client
        .write_file("s", "/a", &vast[1..], 0o644, setup.long())
        .unwrap();
    assert_eq!(server.seen()[0].body.len(), FILE_LIMIT);
}

#[test]
fn what_is_in_a_file_is_not_in_the_error_of_writing_it() {
    let server = Server::start(|_, seen, peer| {
        let said = String::from_utf8_lossy(&seen.body).into_owned();
        write(
            peer,
            json(400, &serde_json::json!({ "error": said }).to_string()).as_bytes(),
        );
        Then::Close
    });
    let setup = Setup::of(&server);
    let url = b"wss://host/rpc?secret-token";
    problem(setup.client.write_file("s", "/a", url, 0o600, setup.long()));
}

#[test]
fn no_name_leads_to_another_request() {
    let server = Server::with([json(204, "")]);
    let setup = Setup::of(&server);
    for name in ["", ".", ".."] {
        let refused = problem(setup.client.delete_sprite(name, setup.long()));
        assert_matches!(refused, SpritesProblem::Input(_));
    }
    assert_eq!(server.connections(), 0);
    setup
        .client
        .delete_sprite("a/../b?c#d", setup.long())
        .unwrap();
    assert_eq!(server.seen()[0].target, "/v1/sprites/a%2F..%2Fb%3Fc%23d");
}
