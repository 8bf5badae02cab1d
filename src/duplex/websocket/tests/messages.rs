//! Messages both ways, and what is no message.

use super::*;
use crate::testing::assert_matches;

#[test]
fn messages_go_both_ways_over_both_kinds_of_socket() {
    for make in [tcp, unix] {
        let settings = settings();
        let (mut halves, mut peer) = make(&settings);
        for length in [0, 1, 125, 126, 65_535, 65_536, 200_000] {
            let text = "y".repeat(length);
            peer.send(TEXT, text.as_bytes());
            assert!(receive_text(&mut halves.reader) == text);
            let sent = thread::spawn({
                let (writer, text) = (halves.writer.clone(), text.clone());
                move || writer.send(&text, long()).unwrap()
            });
            peer.expect_text(&text);
            sent.join().unwrap();
        }
        drop(peer);
        assert_matches!(halves.reader.receive(), Err(Disconnect::Lost));
        // And again, and for the writer too.
        assert_matches!(halves.reader.receive(), Err(Disconnect::Lost));
        let refused = halves.writer.send("late", long()).unwrap_err();
        assert_eq!(refused.to_string(), "not connected: connection lost");
        wait_for_threads(&settings);
    }
}

#[test]
fn what_was_read_with_the_handshake_comes_first() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let early = Peer::frame(TEXT, b"early");
    let (part, rest) = early.split_at(4);
    theirs.write_all(rest).unwrap();
    let socket = WebSocket::server(ours, part.to_vec());
    let mut halves = Halves::of(socket, &settings()).unwrap();
    assert_eq!(receive_text(&mut halves.reader), "early");
}

#[test]
fn the_kind_of_a_socket_is_found_out() {
    let (ours, theirs) = tcp_streams();
    let address = theirs.local_addr().unwrap().to_string();
    assert_eq!(WebSocket::server(ours, Vec::new()).peer_address(), address);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let boxed: Box<dyn Duplex> = Box::new(WebSocket::server(ours, Vec::new()));
    assert_eq!(boxed.peer_address(), "unix socket");
}

#[test]
fn what_is_no_socket_is_refused() {
    let (pipe, _writer) = std::io::pipe().unwrap();
    let socket = WebSocket::server(pipe, Vec::new());
    let refused = Halves::of(socket, &settings()).unwrap_err();
    assert_matches!(refused, Error::Io { .. });
}

#[test]
fn a_client_and_a_server_of_ours_understand_each_other() {
    let settings = settings();
    let (one, other) = UnixStream::pair().unwrap();
    let client = WebSocket::client(one, Vec::new());
    let mut client = Halves::of(client, &settings).unwrap();
    let server = WebSocket::server(other, Vec::new());
    let mut server = Halves::of(server, &settings).unwrap();
    client.writer.send("from the client", long()).unwrap();
    assert_eq!(receive_text(&mut server.reader), "from the client");
    server.writer.send("from the server", long()).unwrap();
    assert_eq!(receive_text(&mut client.reader), "from the server");
    assert!(client.writer.ping());
    assert_matches!(server.reader.receive(), Ok(Received::Alive));
    assert_matches!(client.reader.receive(), Ok(Received::Alive));

    let client_end = read_out(client.reader);
    let server_end = read_out(server.reader);
    server.writer.close(1000, "closed", long());
    let (seen, _) = client_end.join().unwrap();
    assert_eq!(seen.to_string(), "closed by the plugin (code 1000, closed)");
    let (seen, _) = server_end.join().unwrap();
    assert_eq!(seen.to_string(), "closed by the host: closed");
    wait_for_threads(&settings);
}

#[test]
fn every_message_arrives_as_its_sender_was_told() {
    const WRITERS: usize = 6;
    for threads in [0, 4] {
        let mut settings = settings();
        settings.threads = Threads::with_limit(threads);
        settings.outbound_bytes = 200_000;
        let (halves, mut peer) = unix(&settings);
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let writer = halves.writer.clone();
                thread::spawn(move || {
                    let mut expected = Vec::new();
                    let mut random = number as u64 + 1;
                    for message in 0..300 {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let length = usize::try_from(random % 60_000).unwrap();
                        let text = format!("{number} {message} {}", "r".repeat(length));
                        let time = Duration::from_micros(random % 5_000);
                        match writer.send(&text, Deadline::after(time)) {
                            Ok(ticket) if random.is_multiple_of(5) && writer.withdraw(ticket) => {}
                            Ok(_) | Err(SendError::Timeout { withdrawn: false }) => {
                                expected.push(text);
                            }
                            Err(SendError::Timeout { withdrawn: true }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    expected
                })
            })
            .collect();
        let reading = thread::spawn(move || {
            let mut arrived = vec![Vec::new(); WRITERS];
            loop {
                let text = String::from_utf8(peer.next().expect("a frame").1).unwrap();
                if text == "end" {
                    return arrived;
                }
                let writer: usize = text[..1].parse().unwrap();
                arrived[writer].push(text);
            }
        });
        let expected: Vec<_> = writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect();
        halves.writer.send("end", long()).unwrap();
        let arrived = reading.join().unwrap();
        for (arrived, expected) in arrived.iter().zip(&expected) {
            assert!(
                arrived == expected,
                "{} and {}",
                arrived.len(),
                expected.len()
            );
        }
        drop(halves);
        wait_for_threads(&settings);
    }
}

#[test]
fn many_writers_never_mix_and_keep_their_order() {
    const WRITERS: usize = 8;
    const MESSAGES: usize = 2000;
    for make in [tcp, unix] {
        let settings = settings();
        let (halves, mut peer) = make(&settings);
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let writer = halves.writer.clone();
                thread::spawn(move || {
                    for message in 0..MESSAGES {
                        let length = match message % 97 {
                            0 => 65_536,
                            7 => 4_000,
                            other => other * 3,
                        };
                        let filler = char::from(b'a' + u8::try_from(message % 26).unwrap());
                        let filler = String::from(filler).repeat(length);
                        let text = format!("{number} {message} {filler}");
                        writer.send(&text, long()).unwrap();
                    }
                })
            })
            .collect();
        let mut next = [0; WRITERS];
        for _ in 0..WRITERS * MESSAGES {
            let (first, payload) = peer.next().expect("a frame");
            assert_eq!(first, TEXT);
            let text = String::from_utf8(payload).unwrap();
            let mut parts = text.split(' ');
            let writer: usize = parts.next().unwrap().parse().unwrap();
            let message: usize = parts.next().unwrap().parse().unwrap();
            assert_eq!(message, next[writer], "of writer {writer}");
            next[writer] += 1;
            let length = match message % 97 {
                0 => 65_536,
                7 => 4_000,
                other => other * 3,
            };
            let filler = parts.next().unwrap();
            assert_eq!(filler.len(), length);
            let letter = b'a' + u8::try_from(message % 26).unwrap();
            assert!(filler.bytes().all(|byte| byte == letter));
        }
        for writer in writers {
            writer.join().unwrap();
        }
        drop(halves);
        wait_for_threads(&settings);
    }
}

/// Sends frames that must end the connection; gives the cause and the code the peer saw.
fn offend(settings: &DuplexSettings, bytes: &[u8]) -> (Disconnect, u16) {
    let (mut halves, mut peer) = tcp(settings);
    peer.0.write_all(bytes).unwrap();
    let reading = thread::spawn(move || {
        loop {
            if let Err(cause) = halves.reader.receive() {
                return cause;
            }
        }
    });
    let (code, _) = peer.expect_close();
    drop(peer);
    let cause = reading.join().unwrap();
    wait_for_threads(settings);
    (cause, code)
}

#[test]
fn the_read_limit_is_exact() {
    let mut settings = settings();
    settings.inbound_message = 1000;
    let (mut halves, mut peer) = tcp(&settings);
    peer.send(TEXT, &[b'a'; 1000]);
    assert_eq!(receive_text(&mut halves.reader).len(), 1000);
    peer.send(0x01, &[b'a'; 600]);
    peer.send(0x80, &[b'a'; 400]);
    assert_eq!(receive_text(&mut halves.reader).len(), 1000);

    let one_over = Peer::frame(TEXT, &[b'a'; 1001]);
    let mut in_fragments = Peer::frame(0x01, &[b'a'; 600]);
    in_fragments.extend(Peer::frame(0x80, &[b'a'; 401]));
    // The header alone is enough, and makes nobody reserve a terabyte.
    let mut announced = Peer::header(TEXT, 0x80, 1 << 40);
    announced.extend([0; 4]);
    for bytes in [one_over, in_fragments, announced] {
        let (cause, code) = offend(&settings, &bytes);
        assert_matches!(cause, Disconnect::TooLarge { limit: 1000 });
        assert_eq!(code, 1009);
    }
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let whole = Peer::frame(TEXT, b"\xff\xfe");
    let mut split = Peer::frame(0x01, b"\xe2\x82");
    split.extend(Peer::frame(0x80, b"x"));
    for bytes in [whole, split] {
        let (cause, code) = offend(&settings(), &bytes);
        assert_matches!(cause, Disconnect::NotUtf8);
        assert_eq!(code, 1007);
    }
}

#[test]
fn breaches_of_the_protocol_are_refused() {
    let mut unmasked = Peer::header(TEXT, 0, 2);
    unmasked.extend(b"hi");
    let cases = [
        ("unmasked", unmasked),
        ("reserved bits", Peer::frame(0xc1, b"compressed")),
        ("reserved opcode", Peer::frame(0x83, b"")),
        ("stray continuation", Peer::frame(0x80, b"more")),
        ("long ping", Peer::frame(PING, &[0; 126])),
        ("half a close code", Peer::frame(CLOSE, b"x")),
    ];
    for (name, bytes) in cases {
        let (cause, code) = offend(&settings(), &bytes);
        assert_matches!(cause, Disconnect::Violation(_), "{name}");
        assert_eq!(code, 1002, "{name}");
    }
}

#[test]
fn an_offender_that_floods_and_never_reads_is_cut_off() {
    let settings = settings();
    let (halves, mut peer) = unix(&settings);
    fill(&halves.writer);
    peer.send(TEXT, b"\xff");
    let flood = thread::spawn(move || {
        let frame = Peer::frame(TEXT, &[b'f'; 1000]);
        while peer.0.write_all(&frame).is_ok() {}
    });
    let (cause, _reader) = read_out(halves.reader).join().unwrap();
    assert_matches!(cause, Disconnect::NotUtf8);
    flood.join().unwrap();
    wait_for_threads(&settings);
}

#[test]
fn fragments_are_joined_and_binary_is_skipped() {
    let settings = settings();
    let (mut halves, mut peer) = tcp(&settings);
    peer.send(0x82, b"binary");
    assert_matches!(
        halves.reader.receive(),
        Ok(Received::Binary { bytes: 6, .. })
    );
    peer.send(0x01, b"one ");
    peer.send(PING, b"between");
    peer.send(0x00, b"two ");
    peer.send(0x80, b"three");
    assert_matches!(halves.reader.receive(), Ok(Received::Alive));
    assert_eq!(receive_text(&mut halves.reader), "one two three");
    peer.send(PONG, b"unasked");
    assert_matches!(halves.reader.receive(), Ok(Received::Alive));
}

#[test]
fn a_message_that_is_kept_keeps_nothing_else() {
    let (mut halves, mut peer) = unix(&settings());
    // Read in one go, so they lie in one buffer, one behind the other.
    let frame = Peer::frame(TEXT, &[b'k'; 100]);
    peer.0.write_all(&frame.repeat(2)).unwrap();
    let [first, second] = [(); 2].map(|()| match halves.reader.receive() {
        Ok(Received::Message(message)) => message,
        other => panic!("{other:?}"),
    });
    let address = |message: &Message| message.as_str().as_ptr() as usize;
    assert_ne!(
        address(&first) + frame.len(),
        address(&second),
        "both are pieces of the buffer"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn the_descriptor_is_the_only_one_and_is_closed_with_the_last_part() {
    use std::os::fd::AsRawFd;

    let (ours, theirs) = tcp_streams();
    let link = |number: &std::path::Path| std::fs::read_link(number).ok();
    let socket = link(format!("/proc/self/fd/{}", ours.as_raw_fd()).as_ref()).unwrap();
    let open = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        descriptors
            .filter(|entry| link(&entry.as_ref().unwrap().path()).as_ref() == Some(&socket))
            .count()
    };
    let settings = settings();
    let ours = WebSocket::server(ours, Vec::new());
    let mut halves = Halves::of(ours, &settings).unwrap();
    halves.writer.send("bye", long()).unwrap();
    let mut peer = Peer(Box::new(theirs));
    peer.expect_text("bye");
    peer.send(PING, b"");
    assert_matches!(halves.reader.receive(), Ok(Received::Alive));
    assert_eq!(open(), 1);
    drop(halves);
    wait_for_threads(&settings);
    assert_eq!(open(), 0);
}

#[test]
fn what_is_queued_goes_out_together_and_not_before() {
    let settings = settings();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let socket = WebSocket::server(ours, Vec::new());
    let halves = Halves::of(socket, &settings).unwrap();
    let both = b"\x81\x03one\x81\x03two";
    let mut read = [0; 100];
    for send in [true, false] {
        let ticket = halves.writer.queue("none", long()).unwrap();
        halves.writer.queue("one", long()).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let nothing = theirs.read(&mut read).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
        assert!(halves.writer.withdraw(ticket));
        if send {
            halves.writer.send("two", long()).unwrap();
        } else {
            halves.writer.queue("two", long()).unwrap();
            halves.writer.flush();
        }
        theirs.set_nonblocking(false).unwrap();
        let count = theirs.read(&mut read).unwrap();
        assert_eq!(&read[..count], both);
    }
    // Without anything to write it does nothing.
    halves.writer.flush();
    wait_for_threads(&settings);
}

fn receive_within(halves: &mut Halves, policy: WaitPolicy) -> Option<Received> {
    halves.reader.own().unwrap().receive_within(policy)
}

#[test]
fn a_timed_read_goes_on_where_the_one_before_gave_up() {
    let soon = || WaitPolicy {
        spin_until: None,
        deadline: Deadline::after(Duration::from_millis(1)),
        is_coarse: true,
    };
    let looking = || WaitPolicy {
        spin_until: Some(Instant::now() + Duration::from_millis(1)),
        ..soon()
    };
    for make in [tcp, unix] {
        for limit in [None, Some(Duration::from_millis(1))] {
            let settings = settings();
            let (mut halves, mut peer) = make(&settings);
            assert!(halves.reader.own().unwrap().set_timed(limit));
            assert!(receive_within(&mut halves, soon()).is_none());
            let text = "z".repeat(100_000);
            let frame = Peer::frame(TEXT, text.as_bytes());
            for piece in frame.chunks(30_000) {
                for policy in [soon(), looking()] {
                    assert!(receive_within(&mut halves, policy).is_none());
                }
                peer.0.write_all(piece).unwrap();
            }
            let received = loop {
                if let Some(received) = receive_within(&mut halves, looking()) {
                    break received;
                }
            };
            assert_matches!(received, Received::Message(message) if *message == *text);
            // The end is for the read that has all the time it takes.
            peer.send(CLOSE, &1000_u16.to_be_bytes());
            drop(peer);
            wait_until("the end", || receive_within(&mut halves, soon()).is_none());
            assert!(halves.reader.own().unwrap().set_timed(None));
            let end = halves.reader.receive().unwrap_err();
            assert_matches!(
                end,
                Disconnect::ByPeer {
                    code: Some(1000),
                    ..
                }
            );
            wait_for_threads(&settings);
        }
    }
}

#[test]
fn a_timed_read_ends_whatever_keeps_coming() {
    let settings = settings();
    let (mut halves, mut peer) = tcp(&settings);
    assert!(
        halves
            .reader
            .own()
            .unwrap()
            .set_timed(Some(Duration::from_millis(1)))
    );
    let (done, is_done) = crossbeam_channel::bounded::<()>(0);
    let flooding = thread::spawn(move || {
        // A message that never gets whole, nor any longer.
        peer.send(0x01, b"");
        let pieces = Peer::frame(0x00, b"").repeat(10_000);
        while is_done.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
            peer.0.write_all(&pieces).unwrap();
        }
    });
    for is_coarse in [true, false] {
        let policy = WaitPolicy {
            spin_until: None,
            deadline: Deadline::after(Duration::from_millis(20)),
            is_coarse,
        };
        assert!(receive_within(&mut halves, policy).is_none());
    }
    drop(done);
    // What is still on its way must go somewhere.
    halves.reader.own().unwrap().set_timed(None);
    let reading = thread::spawn(move || halves.reader.receive().unwrap_err());
    flooding.join().unwrap();
    reading.join().unwrap();
    wait_for_threads(&settings);
}

#[test]
fn a_batch_larger_than_the_limit_goes_out_as_there_is_room() {
    let mut settings = settings();
    settings.outbound_bytes = 100_000;
    let (halves, mut peer) = tcp(&settings);
    let text = "b".repeat(40_000);
    let reading = thread::spawn({
        let text = text.clone();
        move || {
            for _ in 0..102 {
                peer.expect_text(&text);
            }
        }
    });
    for _ in 0..100 {
        halves.writer.queue(&text, long()).unwrap();
    }
    // Room is made for one who cannot wait as well.
    halves.writer.queue(&text, long()).unwrap();
    while halves.writer.try_send(&text).is_err() {
        thread::yield_now();
    }
    halves.writer.flush();
    reading.join().unwrap();
    let late = halves.writer.queue(&text, Deadline::after(Duration::ZERO));
    assert_matches!(late, Err(SendError::Timeout { withdrawn: true }));
    halves.writer.interrupt();
    wait_for_threads(&settings);
}
