//! What the reading thread has sent for it: pongs and posts.

use super::*;
use crate::testing::assert_matches;

#[test]
fn pings_are_answered_while_nobody_writes() {
    let settings = settings();
    let (mut halves, mut peer) = tcp(&settings);
    for payload in ["", "one", "two"] {
        peer.send(PING, payload.as_bytes());
        assert_matches!(halves.reader.receive(), Ok(Received::Alive));
        assert_eq!(peer.next(), Some((PONG, payload.as_bytes().to_vec())));
    }
    // The writer thread does not stay.
    wait_until("the writer thread to end", || settings.threads.count() == 0);
}

#[test]
fn a_pong_overtakes_what_is_queued_but_not_what_is_begun() {
    let settings = settings();
    let (mut halves, mut peer) = unix(&settings);
    let begun = fill(&halves.writer);
    halves.writer.send("queued", long()).unwrap();
    for payload in ["1", "2", "3"] {
        peer.send(PING, payload.as_bytes());
        assert_matches!(halves.reader.receive(), Ok(Received::Alive));
    }
    for text in &begun {
        peer.expect_text(text);
    }
    // The newest answers for all.
    assert_eq!(peer.next(), Some((PONG, b"3".to_vec())));
    peer.expect_text("queued");
}

#[test]
fn a_ping_needs_no_thread() {
    let mut settings = settings();
    settings.threads = Threads::with_limit(0);
    let (halves, mut peer) = tcp(&settings);
    assert!(halves.writer.ping());
    assert_eq!(peer.next().map(|(first, _)| first), Some(PING));
}

#[test]
fn pings_to_a_peer_that_does_not_read_wait_for_nothing_and_are_one() {
    let settings = settings();
    let (halves, mut peer) = unix(&settings);
    let begun = fill(&halves.writer);
    halves.writer.send("queued", long()).unwrap();
    let asked = Instant::now();
    for _ in 0..3 {
        assert!(halves.writer.ping());
    }
    assert!(asked.elapsed() < LONG / 2, "{:?}", asked.elapsed());
    for text in &begun {
        peer.expect_text(text);
    }
    assert_eq!(peer.next().map(|(first, _)| first), Some(PING));
    peer.expect_text("queued");
}

#[test]
fn a_flood_of_pings_from_a_peer_that_does_not_read_stays_bounded() {
    const PINGS: usize = 50_000;
    let settings = settings();
    let (mut halves, mut peer) = unix(&settings);
    let begun = fill(&halves.writer);
    let flood = thread::spawn(move || {
        for number in 0..PINGS {
            peer.send(PING, format!("{number:0100}").as_bytes());
        }
        peer
    });
    for _ in 0..PINGS {
        assert_matches!(halves.reader.receive(), Ok(Received::Alive));
    }
    let mut peer = flood.join().unwrap();
    for text in &begun {
        peer.expect_text(text);
    }
    let newest = format!("{:0100}", PINGS - 1).into_bytes();
    assert_eq!(peer.next(), Some((PONG, newest)), "one pong for all");
}

#[test]
fn posts_that_are_not_read_end_the_connection() {
    let settings = settings();
    let (mut halves, mut peer) = unix(&settings);
    halves.writer.post("answered").unwrap();
    peer.expect_text("answered");
    fill(&halves.writer);
    let refused = (0..100_000).find_map(|_| halves.writer.post("answer").err());
    assert_matches!(refused, Some(Disconnect::ControlOverflow));
    let cause = halves.reader.receive().unwrap_err();
    assert_matches!(cause, Disconnect::ControlOverflow);
    wait_for_threads(&settings);
}

#[test]
fn a_peer_that_overflows_us_and_then_reads_learns_why() {
    let settings = settings();
    let (halves, mut peer) = unix(&settings);
    fill(&halves.writer);
    while halves.writer.post("answer").is_ok() {}
    let reading = read_out(halves.reader);
    assert_eq!(peer.expect_close().0, 1013);
    drop(peer);
    let (cause, _) = reading.join().unwrap();
    assert_matches!(cause, Disconnect::ControlOverflow);
}
