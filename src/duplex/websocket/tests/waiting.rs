//! Peers that read slowly or not at all, and the callers that wait for them.

use super::*;
use crate::testing::assert_matches;

#[test]
fn a_callers_deadline_harms_nobody() {
    for make in [tcp, unix] {
        let settings = settings();
        let (halves, mut peer) = make(&settings);
        let mut expected = fill(&halves.writer);
        // The writer thread is at it now, so these are only queued.
        let later = halves.writer.send("later", long()).unwrap();
        let withdrawn = halves.writer.send("withdrawn", long()).unwrap();
        halves.writer.send("last", long()).unwrap();
        assert!(halves.writer.withdraw(withdrawn));
        assert!(!halves.writer.withdraw(withdrawn), "only once");
        expected.push("later".to_owned());
        expected.push("last".to_owned());

        for text in &expected {
            peer.expect_text(text);
        }
        assert!(!halves.writer.withdraw(later), "it has arrived");
        drop(halves);
        assert!(peer.next().is_none(), "nothing else was sent");
        wait_for_threads(&settings);
    }
}

#[test]
fn a_caller_waits_for_room_only_until_its_deadline() {
    let mut settings = settings();
    settings.outbound_bytes = 1000;
    let (halves, mut peer) = unix(&settings);
    let mut expected = fill(&halves.writer);
    let large = "l".repeat(900);
    halves.writer.send(&large, long()).unwrap();
    expected.push(large);
    let no_room = halves
        .writer
        .send(&"n".repeat(200), Deadline::after(Duration::from_millis(50)));
    assert_matches!(no_room, Err(SendError::Timeout { withdrawn: true }));
    // This one waits until the peer reads.
    let waiting = thread::spawn({
        let writer = halves.writer.clone();
        move || writer.send(&"w".repeat(2000), long())
    });
    expected.push("w".repeat(2000));
    for text in &expected {
        peer.expect_text(text);
    }
    waiting.join().unwrap().unwrap();
}

#[test]
fn callers_in_line_for_room_are_all_served() {
    let mut settings = settings();
    settings.outbound_bytes = 1000;
    let (halves, mut peer) = tcp(&settings);
    let senders: Vec<_> = (0..6)
        .map(|_| {
            let writer = halves.writer.clone();
            thread::spawn(move || {
                let text = "t".repeat(700);
                for _ in 0..2000 {
                    writer.send(&text, long()).unwrap();
                }
            })
        })
        .collect();
    for _ in 0..6 * 2000 {
        assert_eq!(peer.next().expect("a frame").1.len(), 700);
    }
    for sender in senders {
        sender.join().unwrap();
    }
}

#[test]
fn a_peer_that_never_reads_is_given_up_for_everybody() {
    let mut settings = settings();
    settings.write_stall = Duration::from_millis(300);
    settings.outbound_bytes = 500_000;
    let (halves, _peer) = tcp(&settings);
    let reading = read_out(halves.reader);
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let writer = halves.writer.clone();
            thread::spawn(move || {
                let text = "s".repeat(100_000);
                loop {
                    if let Err(error) = writer.send(&text, long()) {
                        return error.to_string();
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        assert_eq!(
            sender.join().unwrap(),
            "not connected: the plugin read nothing for 300ms"
        );
    }
    let (cause, _reader) = reading.join().unwrap();
    assert_matches!(cause, Disconnect::Stalled { .. });
    wait_for_threads(&settings);
}

#[test]
fn a_stall_is_noticed_when_all_callers_have_gone() {
    let mut settings = settings();
    settings.write_stall = Duration::from_millis(300);
    let (mut halves, _peer) = unix(&settings);
    fill(&halves.writer);
    let cause = halves.reader.receive().unwrap_err();
    assert_matches!(cause, Disconnect::Stalled { .. });
    wait_for_threads(&settings);
}

#[test]
fn a_slow_peer_is_not_a_stalled_one() {
    let mut settings = settings();
    settings.write_stall = Duration::from_millis(200);
    let (halves, mut peer) = unix(&settings);
    let text = "s".repeat(3_000_000);
    let sending = thread::spawn({
        let (writer, text) = (halves.writer.clone(), text.clone());
        move || writer.send(&text, long())
    });
    // Takes three times the stall timeout for it all, a little at a time.
    let mut piece = vec![0; 20_000];
    let started = Instant::now();
    for part in 0..150 {
        let due = started + Duration::from_millis(4) * part;
        let _ = crossbeam_channel::at(due).recv();
        peer.0.read_exact(&mut piece).unwrap();
    }
    peer.0.read_exact(&mut [0; 10]).unwrap();
    sending.join().unwrap().unwrap();
}

#[test]
fn nothing_is_lost_without_a_single_thread_to_be_had() {
    let mut settings = settings();
    settings.threads = Threads::with_limit(0);
    settings.outbound_bytes = 1000;
    let (mut halves, mut peer) = unix(&settings);
    let mut expected = fill(&halves.writer);
    peer.send(PING, b"patience");
    assert_matches!(halves.reader.receive(), Ok(Received::Alive));
    halves.writer.post("posted").unwrap();
    // Nobody can write on, so this caller tries, and takes its message back.
    let late = halves
        .writer
        .send("late", Deadline::after(Duration::from_millis(50)));
    assert_matches!(late, Err(SendError::Timeout { withdrawn: true }));
    let sending = thread::spawn({
        let writer = halves.writer.clone();
        move || writer.send("last", long())
    });
    for text in expected.drain(..) {
        peer.expect_text(&text);
    }
    assert_eq!(peer.next(), Some((PONG, b"patience".to_vec())));
    peer.expect_text("posted");
    peer.expect_text("last");
    sending.join().unwrap().unwrap();
}

#[test]
fn a_stall_is_noticed_without_a_single_thread_to_be_had() {
    let mut settings = settings();
    settings.threads = Threads::with_limit(0);
    settings.write_stall = Duration::from_millis(200);
    let (mut halves, _peer) = unix(&settings);
    fill(&halves.writer);
    let stalled = halves.writer.send("next", long()).unwrap_err();
    assert_eq!(
        stalled.to_string(),
        "not connected: the plugin read nothing for 200ms"
    );
    assert_matches!(halves.reader.receive(), Err(Disconnect::Stalled { .. }));
}
