//! How connections end.

use super::*;
use crate::testing::assert_matches;

#[test]
fn a_close_reaches_a_peer_that_is_sending() {
    for make in [tcp, unix] {
        let settings = settings();
        let (halves, mut peer) = make(&settings);
        // Unread when the close begins: nobody reads yet.
        peer.send(TEXT, "u".repeat(50_000).as_bytes());
        peer.send(TEXT, "u".repeat(50_000).as_bytes());
        let closing = thread::spawn({
            let writer = halves.writer.clone();
            move || writer.close(1012, "package updated", long())
        });
        assert_eq!(peer.expect_close(), (1012, "package updated".to_owned()));
        assert!(peer.next().is_none(), "our direction ends");
        peer.send(CLOSE, &1012_u16.to_be_bytes());
        let reading = read_out(halves.reader);
        drop(peer);
        let (cause, mut reader) = reading.join().unwrap();
        assert_matches!(cause, Disconnect::ByHost { code: 1012, .. });
        assert_matches!(reader.receive(), Err(Disconnect::ByHost { code: 1012, .. }));
        closing.join().unwrap();
        let refused = halves.writer.send("late", long()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "not connected: closed by the host: package updated"
        );
        wait_for_threads(&settings);
    }
}

#[test]
fn a_close_ends_in_time_with_a_peer_that_neither_reads_nor_stops() {
    let settings = settings();
    let (halves, mut peer) = unix(&settings);
    fill(&halves.writer);
    let reading = read_out(halves.reader);
    let flood = thread::spawn(move || {
        let frame = Peer::frame(TEXT, &[b'f'; 1000]);
        while peer.0.write_all(&frame).is_ok() {}
    });
    let started = Instant::now();
    halves
        .writer
        .close(1000, "closed", Deadline::after(Duration::from_millis(400)));
    assert!(started.elapsed() < Duration::from_secs(10));
    let (cause, _) = reading.join().unwrap();
    assert_matches!(cause, Disconnect::ByHost { code: 1000, .. });
    flood.join().unwrap();
    // Again: nothing to do any more, and the first counts.
    halves.writer.close(1012, "again", long());
    assert!(
        halves
            .writer
            .send("late", long())
            .unwrap_err()
            .to_string()
            .ends_with("closed")
    );
    wait_for_threads(&settings);
}

#[test]
fn a_close_drops_what_is_queued_and_finishes_what_is_begun() {
    let settings = settings();
    let (halves, mut peer) = unix(&settings);
    let begun = fill(&halves.writer);
    halves.writer.send("queued", long()).unwrap();
    let reading = read_out(halves.reader);
    let closing = thread::spawn({
        let writer = halves.writer.clone();
        move || writer.close(1000, "closed", long())
    });
    // Closing has begun when others are refused.
    wait_until("the close to begin", || halves.writer.post("p").is_err());
    for text in &begun {
        peer.expect_text(text);
    }
    let (first, _) = peer.next().unwrap();
    assert_eq!(first, CLOSE);
    drop(peer);
    closing.join().unwrap();
    reading.join().unwrap();
}

#[test]
fn the_peers_close_is_answered_and_reported() {
    for make in [tcp, unix] {
        let settings = settings();
        let (mut halves, mut peer) = make(&settings);
        let mut payload = 1001_u16.to_be_bytes().to_vec();
        payload.extend(b"going");
        peer.send(CLOSE, &payload);
        let reading = thread::spawn(move || halves.reader.receive().unwrap_err());
        assert_eq!(peer.expect_close(), (1001, "going".to_owned()));
        assert!(peer.next().is_none());
        drop(peer);
        let cause = reading.join().unwrap();
        assert_eq!(cause.to_string(), "closed by the plugin (code 1001, going)");
        wait_for_threads(&settings);
    }
}

#[test]
fn a_close_without_a_code_has_none() {
    let settings = settings();
    let (mut halves, mut peer) = tcp(&settings);
    peer.send(CLOSE, b"");
    let reading = thread::spawn(move || halves.reader.receive().unwrap_err());
    assert_eq!(peer.next(), Some((CLOSE, Vec::new())));
    drop(peer);
    assert_matches!(
        reading.join().unwrap(),
        Disconnect::ByPeer { code: None, .. }
    );
}

#[test]
fn the_peers_close_counts_though_a_write_failed_first() {
    let settings = settings();
    let (mut halves, mut peer) = unix(&settings);
    peer.send(CLOSE, &1000_u16.to_be_bytes());
    drop(peer);
    let refused = halves.writer.send("too late", long()).unwrap_err();
    assert_eq!(refused.to_string(), "not connected: connection lost");
    let cause = halves.reader.receive().unwrap_err();
    assert_matches!(
        cause,
        Disconnect::ByPeer {
            code: Some(1000),
            ..
        }
    );
    let refused = halves.writer.send("later still", long()).unwrap_err();
    assert!(refused.to_string().contains("closed by the plugin"));
}

#[test]
fn an_interrupt_wakes_the_reader_and_the_writers() {
    for make in [tcp, unix] {
        let settings = settings();
        let (halves, _peer) = make(&settings);
        let reading = read_out(halves.reader);
        let sending = thread::spawn({
            let writer = halves.writer.clone();
            move || {
                let text = "b".repeat(100_000);
                loop {
                    if let Err(error) = writer.send(&text, long()) {
                        return error;
                    }
                }
            }
        });
        halves.writer.interrupt();
        let (_, mut reader) = reading.join().unwrap();
        assert!(reader.receive().is_err());
        assert_matches!(sending.join().unwrap(), SendError::Closed(_));
        halves.writer.interrupt();
        wait_for_threads(&settings);
    }
}

#[test]
fn a_close_that_is_begun_reaches_its_peer_before_anybody_waits() {
    let settings = settings();
    let mut connections: Vec<_> = [tcp, unix].iter().map(|make| make(&settings)).collect();
    for (halves, _) in &connections {
        halves.writer.begin_close(1012, "later");
    }
    for (halves, peer) in &mut connections {
        assert_eq!(peer.expect_close(), (1012, "later".to_owned()));
        assert!(peer.next().is_none(), "our direction ends");
        let refused = halves.writer.send("late", long()).unwrap_err();
        assert_matches!(refused, SendError::Closed(_));
    }
    let readers: Vec<_> = connections
        .into_iter()
        .map(|(Halves { reader, writer, .. }, mut peer)| {
            peer.send(CLOSE, &1012_u16.to_be_bytes());
            drop(peer);
            (read_out(reader), writer)
        })
        .collect();
    for (reading, writer) in readers {
        // The second to come finds the first's close, and waits for its end.
        writer.close(1000, "another", long());
        let (cause, _) = reading.join().unwrap();
        assert_matches!(cause, Disconnect::ByHost { code: 1012, .. });
    }
    wait_for_threads(&settings);
}

#[test]
fn a_close_that_is_begun_ends_in_time_with_a_peer_that_reads_nothing() {
    let settings = settings();
    let (halves, peer) = unix(&settings);
    fill(&halves.writer);
    halves.writer.begin_close(1000, "closed");
    let reading = read_out(halves.reader);
    let soon = Deadline::after(Duration::from_millis(1));
    halves.writer.close(1000, "closed", soon);
    let (cause, _) = reading.join().unwrap();
    assert_matches!(cause, Disconnect::ByHost { code: 1000, .. });
    drop(peer);
    wait_for_threads(&settings);
}
