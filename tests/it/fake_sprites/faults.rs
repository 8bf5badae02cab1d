//! Requests that meet faults, and how they are counted.

use std::io::Read as _;
use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::{call, create, request, script, socket, upgrade};
use crate::sprites::{Answer, Fake, Fault};
use crate::support::http::{assert_ends_unanswered, connect};
use crate::support::wait_until;

fn next(fake: &Fake, times: usize, pattern: &str, fault: Fault) {
    fake.set(|switches| switches.next(times, pattern, fault));
}

/// The end of a connection without an answer.
#[track_caller]
fn unanswered(fake: &Fake, method: &str, target: &str, body: &str) {
    let mut stream = connect(fake.address());
    let text = request(fake, method, target, body);
    stream.write_all(text.as_bytes()).unwrap();
    assert_ends_unanswered(stream);
}

#[test]
fn requests_are_counted_by_path_and_without_their_query() {
    let fake = Fake::start();
    create(&fake, "one");
    for number in 0..3 {
        let target = format!("/v1/sprites/one/fs/write?path=/{number}&workingDir=/");
        call(&fake, "PUT", &target, "text");
    }
    assert_eq!(fake.calls().count("PUT /v1/sprites/one/fs/write"), 3);
    assert_eq!(fake.calls().count("PUT */fs/*"), 3);
    assert_eq!(fake.calls().count("*"), 4);
    let calls = fake.calls();
    let last = calls.of("PUT *").last().unwrap();
    assert_eq!((last.body, last.status), (4, Some(200)));
    assert_eq!(last.query[0], ("path".to_owned(), "/2".to_owned()));
    assert_eq!(last.authorization, Some(format!("Bearer {}", fake.token())));
    fake.forget_calls();
    assert_eq!(fake.calls().count("*"), 0);
    fake.finish();
}

#[test]
fn creates_are_limited_and_fail_and_can_have_been_done() {
    let fake = Fake::start();
    let limited = Answer::rate_limited("sprite_creation_rate_limited", Some(7), Some(3));
    next(&fake, 2, "POST /v1/sprites", Fault::Answer(limited));
    next(&fake, 1, "POST /v1/sprites", Fault::Done(Answer::html(500)));
    next(&fake, 1, "POST /v1/sprites", Fault::DoneDrop);
    for _ in 0..2 {
        let answer = create(&fake, "one");
        assert_eq!(
            (answer.status, answer.header("Retry-After")),
            (429, Some("7"))
        );
        assert!(answer.header("X-RateLimit-Reset").is_some());
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["error"], "sprite_creation_rate_limited");
        assert_eq!(body["retry_after_seconds"], 3);
    }
    assert_eq!(fake.sprites(), Vec::<String>::new());
    let failed = create(&fake, "one");
    assert_eq!(failed.status, 500);
    assert_eq!(failed.header("Content-Type"), Some("text/html"));
    unanswered(&fake, "POST", "/v1/sprites", r#"{"name": "two"}"#);
    assert_eq!(fake.sprites(), ["one", "two"]);
    assert_eq!(create(&fake, "one").status, 409);
    fake.finish();
}

#[test]
fn answers_are_padded_cut_trickled_and_late() {
    let fake = Fake::start();
    create(&fake, "one");
    let target = "/v1/sprites/one";
    next(&fake, 1, "GET *", Fault::Pad(4 * 1024 * 1024));
    next(&fake, 1, "GET *", Fault::Trickle(Duration::from_micros(1)));
    next(&fake, 1, "GET *", Fault::Delay(Duration::from_millis(1)));
    for size in [4 * 1024 * 1024, 0, 0] {
        let answer = call(&fake, "GET", target, "");
        assert!(answer.body.len() >= size);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["name"], "one");
    }
    next(&fake, 1, "GET *", Fault::Cut(20));
    let mut stream = connect(fake.address());
    stream
        .write_all(request(&fake, "GET", target, "").as_bytes())
        .unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).unwrap();
    assert_eq!(got.len(), 20);
    assert!(got.starts_with("HTTP/1.1 200"));
    fake.finish();
}

#[test]
fn malicious_answers_have_no_end_or_no_sense() {
    let fake = Fake::start();
    let target = "/v1/sprites";
    for fault in [Fault::EndlessHead, Fault::EndlessBody, Fault::VastBody] {
        next(&fake, 1, "GET *", fault);
        let mut stream = connect(fake.address());
        stream
            .write_all(request(&fake, "GET", target, "").as_bytes())
            .unwrap();
        // More than anybody should take.
        std::io::copy(&mut (&stream).take(8 * 1024 * 1024), &mut std::io::sink()).unwrap();
    }
    next(&fake, 1, "GET *", Fault::Garbage);
    let mut stream = connect(fake.address());
    stream
        .write_all(request(&fake, "GET", target, "").as_bytes())
        .unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(!got.starts_with(b"HTTP"));
    next(&fake, 1, "GET *", Fault::Drop);
    unanswered(&fake, "GET", target, "");

    let elsewhere = Fake::start();
    for status in [301, 302, 303, 307, 308] {
        let to = format!("{}{target}", elsewhere.url());
        next(&fake, 1, "*", Fault::Answer(Answer::redirect(status, &to)));
        let answer = call(&fake, "GET", target, "");
        assert_eq!(
            (answer.status, answer.header("Location")),
            (status, Some(to.as_str()))
        );
    }
    assert_eq!(elsewhere.calls().count("*"), 0);
    elsewhere.finish();

    // Never answered, and no hindrance to the end.
    next(&fake, 1, "GET *", Fault::Hang);
    let mut stream = connect(fake.address());
    stream
        .write_all(request(&fake, "GET", target, "").as_bytes())
        .unwrap();
    wait_until("the request", || fake.calls().count("GET *") == 11);
    fake.finish();
}

#[test]
fn upgrades_are_refused_elsewhere_wrong_and_lost() {
    let fake = Fake::start();
    create(&fake, "one");
    next(&fake, 1, "GET */exec", Fault::Answer(Answer::html(502)));
    next(
        &fake,
        1,
        "GET */exec",
        Fault::Answer(Answer::redirect(302, "http://127.0.0.1:1/")),
    );
    let target = script("cat");
    for status in [502, 302] {
        let mut head = String::new();
        let mut stream = connect(fake.address());
        let text = request(&fake, "GET", &target, "");
        stream.write_all(text.as_bytes()).unwrap();
        stream.read_to_string(&mut head).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
    assert_eq!(fake.sessions("one").len(), 0);
    next(&fake, 1, "GET */exec", Fault::WrongAccept);
    let wrong = upgrade(&fake, &target);
    assert_eq!(wrong.status, 101);
    assert_ne!(
        wrong.header("Sec-WebSocket-Accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    // Started, and nobody is told.
    next(&fake, 1, "GET */exec", Fault::DoneDrop);
    let mut stream = connect(fake.address());
    let text = crate::support::http::Request::upgrade(&target);
    let text = text.with("Authorization", &format!("Bearer {}", fake.token()));
    stream.write_all(text.to_text().as_bytes()).unwrap();
    assert_ends_unanswered(stream);
    assert_eq!(fake.sessions("one").len(), 2);
    fake.finish();
}

#[test]
fn the_clock_can_be_an_hour_off() {
    let fake = Fake::start();
    let dates = [0, 3_600, -3_600].map(|offset| {
        fake.set(|switches| switches.clock_offset = offset);
        let answer = call(&fake, "GET", "/v1/sprites", "");
        let date = answer.header("Date").unwrap();
        date[17..19].parse::<i32>().unwrap()
    });
    // Each was asked within the hour, or a little past it.
    let ahead = (dates[1] - dates[0]).rem_euclid(24);
    let behind = (dates[0] - dates[2]).rem_euclid(24);
    assert!(
        [1, 2].contains(&ahead) && [0, 1].contains(&behind),
        "{dates:?}"
    );
    fake.finish();
}

#[test]
fn a_kill_is_done_though_its_answer_is_lost() {
    let fake = Fake::start();
    create(&fake, "one");
    let mut peer = socket(&fake, &script("echo up; while read -r line; do :; done"));
    let id = peer.receive()["session_id"].as_str().unwrap().to_owned();
    // A shell that is only starting may lose a signal.
    assert_eq!(peer.socket.read().unwrap().into_data(), b"\x01up\n"[..]);
    next(&fake, 1, "POST */kill", Fault::DoneDrop);
    let target = format!("/v1/sprites/one/exec/{id}/kill?signal=INT&timeout=20s");
    unanswered(&fake, "POST", &target, "");
    let exit = peer.socket.read().unwrap().into_data();
    assert_eq!(exit, vec![3, 130]);
    assert_eq!(call(&fake, "POST", &target, "").status, 410);
    fake.finish();
}
