//! Exec sockets: what comes over them, both halves in use at once, and each way in which they end.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};
use tungstenite::{Message, WebSocket};

use super::server::{Peer, Seen, Server, Then, answer, json, upgraded, wait_for_end, write};
use super::{SHORT, Setup, problem};
use crate::deadline::Deadline;
use crate::error::{SpritesError, SpritesProblem};
use crate::runtime::sprites::exec::{ExecCommand, ExecEvent, ExecReader, ExecWriter};
use crate::testing::{LONG, assert_matches};

const COMMAND: ExecCommand<'static> = ExecCommand {
    command: &["sh", "-c", "true"],
    environment: &[("HOME", "/home/sprite")],
    directory: "/home/sprite",
    has_stdin: true,
    detached_limit: Duration::from_secs(60),
};

type Socket<'a> = WebSocket<&'a mut dyn Peer>;

/// A server that upgrades every request, and then does this.
fn serving(serve: impl Fn(&mut Socket<'_>) -> Then + Send + 'static) -> Server {
    Server::start(move |_, seen, peer| upgrade(seen, peer, &serve))
}

pub(super) fn upgrade(
    seen: &Seen,
    peer: &mut dyn Peer,
    serve: impl Fn(&mut Socket<'_>) -> Then,
) -> Then {
    write(peer, upgraded(seen).as_bytes());
    serve(&mut WebSocket::from_raw_socket(peer, Role::Server, None))
}

/// Sends what was read back until the end of standard input, then exits.
pub(super) fn echo(socket: &mut Socket<'_>) -> Then {
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) if bytes[0] == 0 => {
                let mut back = bytes.to_vec();
                back[0] = 1;
                socket.send(Message::Binary(back.into())).unwrap();
            }
            Ok(Message::Binary(bytes)) if bytes[..] == [4] => {
                socket.send(binary(b"\x03\x00")).unwrap();
            }
            Ok(_) => {}
            Err(_) => return Then::Close,
        }
    }
}

fn binary(bytes: &'static [u8]) -> Message {
    Message::Binary(bytes.into())
}

fn start(setup: &Setup) -> Result<(ExecReader, ExecWriter), SpritesError> {
    setup.client.start("s", &COMMAND, setup.long())
}

/// The next event, which has to come.
#[track_caller]
fn next(reader: &mut ExecReader) -> ExecEvent {
    let event = reader.next(Some(Deadline::after(LONG))).unwrap();
    event.expect("nothing came")
}

#[track_caller]
fn end(reader: &mut ExecReader) -> SpritesProblem {
    problem(
        reader
            .next(Some(Deadline::after(LONG)))
            .map(|event| assert_eq!(event, None)),
    )
}

/// Writes all of it from another thread while this one reads it back.
pub(super) fn write_and_read_back(setup: &Setup, size: usize) {
    let (mut reader, writer) = start(setup).unwrap();
    let sent: Vec<u8> = (0..=250).cycle().take(size).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write(&sent, setup.long()).unwrap();
            writer.end_stdin(setup.long()).unwrap();
        });
        let mut received = Vec::new();
        loop {
            match next(&mut reader) {
                ExecEvent::Stdout(bytes) => received.extend(bytes),
                ExecEvent::Exit(code) => {
                    assert_eq!(code, 0);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(
            received == sent,
            "{} of {} bytes",
            received.len(),
            sent.len()
        );
    });
}

#[test]
fn a_program_is_started_and_followed_to_its_exit() {
    let server = serving(|socket| {
        assert_eq!(socket.read().unwrap(), binary(b"\x04"));
        for message in [
            Message::from(r#"{"type":"session_info","session_id":7,"tty":false}"#),
            binary(b"\x01out\n"),
            binary(b""),
            binary(b"\x09what"),
            Message::from(r#"{"type":"port_opened","port":80}"#),
            Message::from("no json"),
            binary(b"\x02err"),
            binary(b"\x03\x82"),
        ] {
            socket.send(message).unwrap();
        }
        // The service holds the socket; its client does not wait for that.
        while socket.read().is_ok() {}
        Then::Close
    });
    let setup = Setup::of(&server);
    let command = ExecCommand {
        has_stdin: false,
        ..COMMAND
    };
    let (mut reader, _writer) = setup.client.start("s", &command, setup.long()).unwrap();
    let id = "7".to_owned();
    assert_eq!(next(&mut reader), ExecEvent::Session { id });
    assert_eq!(next(&mut reader), ExecEvent::Stdout(b"out\n".to_vec()));
    assert_eq!(next(&mut reader), ExecEvent::Stderr(b"err".to_vec()));
    assert_eq!(next(&mut reader), ExecEvent::Exit(130));
    assert_matches!(end(&mut reader), SpritesProblem::Broken(_));
    let seen = &server.seen()[0];
    assert_eq!(
        seen.target,
        "/v1/sprites/s/exec?cmd=sh&cmd=-c&cmd=true&path=sh&env=HOME%3D%2Fhome%2Fsprite\
         &dir=%2Fhome%2Fsprite&stdin=false&max_run_after_disconnect=60s"
    );
    assert_eq!(seen.head.matches("secret-token").count(), 1);
}

#[test]
fn an_exit_may_come_as_text() {
    let server = serving(|socket| {
        socket
            .send(Message::from(
                r#"{"type":"error","message":"no such program"}"#,
            ))
            .unwrap();
        socket
            .send(Message::from(r#"{"type":"exit","exit_code":127}"#))
            .unwrap();
        Then::Drop
    });
    let setup = Setup::of(&server);
    let (mut reader, _writer) = start(&setup).unwrap();
    let said = "no such program".to_owned();
    assert_eq!(next(&mut reader), ExecEvent::Problem(said));
    assert_eq!(next(&mut reader), ExecEvent::Exit(127));
}

#[test]
fn a_socket_that_is_cut_anywhere_is_no_exit() {
    const STREAM: &[u8] =
        b"\x82\x06\x01hello\x81\x0d{\"type\":\"no\"}\x82\x03\x02ab\x82\x02\x03\x05";
    // Whole messages, and what each is.
    let ends = [(8, 1), (28, 2)];
    for length in 0..=STREAM.len() {
        let server = Server::start(move |_, seen, peer| {
            let mut bytes = upgraded(seen).into_bytes();
            bytes.extend_from_slice(&STREAM[..length]);
            write(peer, &bytes);
            // Without a close frame.
            Then::Drop
        });
        let setup = Setup::of(&server);
        let (mut reader, _writer) = start(&setup).unwrap();
        let events = ends.iter().filter(|(end, _)| *end <= length);
        for (_, stream) in events {
            match next(&mut reader) {
                ExecEvent::Stdout(bytes) => assert_eq!((*stream, &*bytes), (1, &b"hello"[..])),
                ExecEvent::Stderr(bytes) => assert_eq!((*stream, &*bytes), (2, &b"ab"[..])),
                other => panic!("{length}: {other:?}"),
            }
        }
        if length == STREAM.len() {
            assert_eq!(next(&mut reader), ExecEvent::Exit(5));
        } else {
            assert_matches!(end(&mut reader), SpritesProblem::Broken(_), "{length}");
        }
    }
}

#[test]
fn a_close_without_an_exit_is_a_broken_connection() {
    for code in [CloseCode::Normal, CloseCode::Restart] {
        let server = serving(move |socket| {
            let reason = "".into();
            socket.close(Some(CloseFrame { code, reason })).unwrap();
            while socket.read().is_ok() {}
            Then::Close
        });
        let setup = Setup::of(&server);
        let (mut reader, _writer) = start(&setup).unwrap();
        let problem = end(&mut reader);
        let text = format!("closed with code {}", u16::from(code));
        assert!(problem.to_string().contains(&text), "{problem}");
    }
}

#[test]
fn frames_that_are_wrong_end_the_connection() {
    const LONG_PING: [u8; 260] = {
        let mut frame = [b'x'; 260];
        [frame[0], frame[1], frame[2], frame[3]] = [0x89, 0x7e, 1, 0];
        frame
    };
    for (frames, is_too_large) in [
        // Reserved bits, an unknown opcode, a mask, no UTF-8, a ping that is too long.
        (&b"\xc2\x01\x01"[..], false),
        (b"\x8b\x00", false),
        (b"\x82\x81\x00\x00\x00\x00\x01", false),
        (b"\x81\x02\xff\xff", false),
        (&LONG_PING, false),
        // A message that goes on and was not begun.
        (b"\x80\x01a", false),
        // 2^63 bytes.
        (b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", true),
    ] {
        let server = Server::start(move |_, seen, peer| {
            write(peer, upgraded(seen).as_bytes());
            write(peer, frames);
            wait_for_end(peer);
            Then::Close
        });
        let setup = Setup::of(&server);
        let (mut reader, _writer) = start(&setup).unwrap();
        match end(&mut reader) {
            SpritesProblem::TooLarge { .. } => assert!(is_too_large, "{frames:?}"),
            SpritesProblem::Protocol(_) => assert!(!is_too_large, "{frames:?}"),
            other => panic!("{frames:?}: {other:?}"),
        }
    }
}

#[test]
fn a_message_in_pieces_without_end_is_cut_off() {
    let server = Server::start(|_, seen, peer| {
        write(peer, upgraded(seen).as_bytes());
        let mut piece = vec![0x02, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0];
        piece.resize(piece.len() + 65_536, b'x');
        write(peer, &piece);
        piece[0] = 0;
        while write(peer, &piece) {}
        Then::Drop
    });
    let setup = Setup::of(&server);
    let (mut reader, _writer) = start(&setup).unwrap();
    assert_matches!(end(&mut reader), SpritesProblem::TooLarge { .. });
}

#[test]
fn a_refused_upgrade_says_why() {
    type Check = fn(&SpritesProblem) -> bool;
    let cases: [(String, Check); 7] = [
        (json(404, r#"{"error":"sprite not found"}"#), |problem| {
            matches!(problem, SpritesProblem::NotFound)
        }),
        (
            json(401, r#"{"message":"bad org/id/secret-token"}"#),
            |problem| {
                problem
                    .to_string()
                    .contains("401 (check SPRITES_API_KEY): bad [token]")
            },
        ),
        (
            answer(302, "Location: http://127.0.0.1:9/\r\n", ""),
            |problem| matches!(problem, SpritesProblem::Redirect { .. }),
        ),
        // It may have been started all the same, so it is not tried again.
        (
            answer(500, "Content-Type: text/html\r\n", "<html>"),
            |problem| matches!(problem, SpritesProblem::Unavailable { status: 500, .. }),
        ),
        (json(200, "{}"), |problem| {
            matches!(problem, SpritesProblem::Protocol(_))
        }),
        (
            "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(),
            |problem| matches!(problem, SpritesProblem::Protocol(_)),
        ),
        ("garbage\r\n\r\n".to_owned(), |problem| {
            matches!(problem, SpritesProblem::Protocol(_))
        }),
    ];
    for (answer, check) in cases {
        let server = Server::with([answer.clone()]);
        let setup = Setup::of(&server);
        let problem = problem(start(&setup).map(drop));
        assert!(check(&problem), "{answer}: {problem:?}");
        assert_eq!(server.seen().len(), 1, "{answer}");
    }
}

#[test]
fn a_head_without_end_is_cut_off() {
    let server = Server::start(|_, _, peer| {
        write(peer, b"HTTP/1.1 101 X\r\n");
        while write(peer, b"X-More: and more of the same\r\n") {}
        Then::Drop
    });
    let setup = Setup::of(&server);
    let problem = problem(start(&setup).map(drop));
    assert_matches!(problem, SpritesProblem::TooLarge { .. });
}

#[test]
fn a_start_is_tried_again_only_if_nothing_was_started() {
    let server = Server::start(|number, seen, peer| {
        if number == 0 {
            write(peer, answer(429, "Retry-After: 1\r\n", "").as_bytes());
            return Then::Close;
        }
        upgrade(seen, peer, echo)
    });
    let setup = Setup::of(&server);
    start(&setup).unwrap();
    assert_eq!(server.seen().len(), 2);
    // To attach twice does no harm.
    let server = Server::start(|number, seen, peer| {
        if number < 2 {
            write(peer, json(503, "").as_bytes());
            return Then::Drop;
        }
        upgrade(seen, peer, echo)
    });
    let setup = Setup::of(&server);
    setup.client.attach("s", "7", false, setup.long()).unwrap();
    let targets: Vec<_> = server.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/v1/sprites/s/exec/7?stdin=false"; 3]);
    // Lost on the way.
    let server = Server::start(|_, _, _| Then::Drop);
    let setup = Setup::of(&server);
    assert_matches!(problem(start(&setup).map(drop)), SpritesProblem::Broken(_));
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn one_thread_reads_while_another_writes() {
    let server = serving(echo);
    let setup = Setup::of(&server);
    write_and_read_back(&setup, 4 * 1024 * 1024);
    write_and_read_back(&setup, 1);
    write_and_read_back(&setup, 0);
}

#[test]
fn a_writer_whose_program_reads_nothing_waits_until_its_deadline_and_can_be_woken() {
    let (release, wait) = mpsc::channel::<()>();
    let server = serving(move |_| {
        let _ = wait.recv_timeout(LONG);
        Then::Drop
    });
    let setup = Setup::of(&server);
    let (mut reader, writer) = start(&setup).unwrap();
    let vast = vec![0; 64 * 1024 * 1024];
    let begun = Instant::now();
    let late = problem(writer.write(&vast, setup.within(SHORT)));
    assert_matches!(late, SpritesProblem::Timeout { .. });
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| problem(reader.next(None).map(drop)));
        let writing = scope.spawn(|| problem(writer.write(&vast, setup.long())));
        writer.close();
        assert_matches!(reading.join().unwrap(), SpritesProblem::Cancelled);
        assert_matches!(writing.join().unwrap(), SpritesProblem::Cancelled);
    });
    // Not because the server gave up.
    assert!(begun.elapsed() < LONG / 2);
    drop(release);
}

#[test]
fn what_a_writer_left_goes_out_while_the_reader_waits() {
    // The server reads when the writer has given up.
    let (given_up, wait) = mpsc::channel::<usize>();
    let server = serving(move |socket| {
        socket.send(binary(b"\x01x")).unwrap();
        let expected = wait.recv_timeout(LONG).unwrap();
        let mut received = 0;
        while received < expected {
            received += socket.read().unwrap().len() - 1;
        }
        socket.send(binary(b"\x03\x00")).unwrap();
        Then::Close
    });
    let setup = Setup::of(&server);
    let (mut reader, writer) = start(&setup).unwrap();
    // Or a ping would wake it.
    reader.hurry(LONG * 2, LONG * 4);
    std::thread::scope(|scope| {
        let (begin, begun) = mpsc::channel();
        let reading = scope.spawn(move || {
            assert_matches!(next(&mut reader), ExecEvent::Stdout(_));
            begin.send(()).unwrap();
            next(&mut reader)
        });
        // It waits before there is anything to be written.
        begun.recv_timeout(LONG).unwrap();
        let piece = vec![0; 64 * 1024];
        let mut taken = 0;
        while let Ok(count) = writer.try_write(&piece) {
            taken += count;
        }
        given_up.send(taken).unwrap();
        assert_eq!(reading.join().unwrap(), ExecEvent::Exit(0));
    });
}

#[test]
fn a_blocked_reader_is_woken_by_a_close_and_by_nothing_else() {
    let server = serving(|socket| {
        while socket.read().is_ok() {}
        Then::Close
    });
    let setup = Setup::of(&server);
    let (mut reader, writer) = start(&setup).unwrap();
    // The host's interrupt is for calls.
    assert_eq!(reader.next(Some(Deadline::after(SHORT))).unwrap(), None);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| problem(reader.next(None).map(drop)));
        writer.close();
        assert_matches!(reading.join().unwrap(), SpritesProblem::Cancelled);
    });
    let refused = problem(writer.write(b"x", setup.long()));
    assert_matches!(refused, SpritesProblem::Cancelled);
}

#[test]
fn an_idle_socket_costs_nothing() {
    let server = serving(|socket| {
        while socket.read().is_ok() {}
        Then::Close
    });
    let setup = Setup::of(&server);
    let (mut reader, _writer) = start(&setup).unwrap();
    let switches = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
        let line = status.lines().find(|line| line.starts_with("voluntary"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let Some(before) = switches() else {
        // Not Linux.
        return;
    };
    assert_eq!(reader.next(Some(Deadline::after(SHORT * 3))).unwrap(), None);
    let waits = switches().unwrap() - before;
    assert!(waits < 10, "the reader woke {waits} times");
}

#[test]
fn time_that_the_caller_takes_is_no_silence() {
    let server = serving(|socket| {
        socket.send(binary(b"\x01x")).unwrap();
        while socket.read().is_ok() {}
        Then::Close
    });
    let setup = Setup::of(&server);
    let (mut reader, _writer) = start(&setup).unwrap();
    reader.hurry(SHORT / 10, SHORT);
    assert_matches!(next(&mut reader), ExecEvent::Stdout(_));
    // Its output is being written where there is no room.
    setup.long().pause(SHORT * 2).unwrap();
    let soon = Some(Deadline::after(SHORT / 2));
    assert_eq!(reader.next(soon).unwrap(), None);
}

#[test]
fn silence_is_noticed_and_a_pong_is_a_sign_of_life() {
    // The frozen program of a sprite that sleeps.
    let server = serving(|socket| {
        wait_for_end(*socket.get_mut());
        Then::Close
    });
    let setup = Setup::of(&server);
    let (mut reader, _writer) = start(&setup).unwrap();
    reader.hurry(SHORT / 10, SHORT);
    let problem = end(&mut reader);
    assert!(problem.to_string().contains("no sign of life"), "{problem}");

    let (count, counted) = mpsc::channel();
    let server = serving(move |socket| {
        let begun = Instant::now();
        let mut pings = 0;
        while begun.elapsed() < SHORT * 4 {
            match socket.read() {
                Ok(Message::Ping(_)) => pings += 1,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        socket.send(binary(b"\x03\x00")).unwrap();
        count.send(pings).unwrap();
        Then::Close
    });
    let setup = Setup::of(&server);
    let (mut reader, _writer) = start(&setup).unwrap();
    reader.hurry(SHORT / 10, SHORT * 2);
    assert_eq!(next(&mut reader), ExecEvent::Exit(0));
    assert!(counted.recv_timeout(LONG).unwrap() > 2);
}

#[test]
fn a_ping_of_the_service_is_answered() {
    let server = serving(|socket| {
        socket.send(Message::Ping(vec![1, 2, 3].into())).unwrap();
        while socket.read().unwrap() != Message::Pong(vec![1, 2, 3].into()) {}
        socket.send(binary(b"\x03\x00")).unwrap();
        Then::Close
    });
    let setup = Setup::of(&server);
    let (mut reader, _writer) = start(&setup).unwrap();
    assert_eq!(next(&mut reader), ExecEvent::Exit(0));
}
