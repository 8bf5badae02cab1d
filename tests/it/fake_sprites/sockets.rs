//! Exec sockets that are cut, silent or wrong; sprites that go cold.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use tungstenite::{Bytes, Error, Message};

use super::{call, create, listed, script, socket};
use crate::sprites::{Fake, SocketFault, Status, frame};
use crate::support::http::assert_ends_unanswered;
use crate::support::http::connect;
use crate::support::peer::Peer;
use crate::support::{assert_matches, wait_until};

/// Says each line again.
const ECHO: &str = "while read -r line; do echo $line; done";

/// With the sprite `one`.
fn fake() -> Fake {
    let fake = Fake::start();
    assert_eq!(create(&fake, "one").status, 201);
    fake
}

fn say(peer: &mut Peer, text: &str) {
    let framed = format!("\0{text}\n").into_bytes();
    peer.socket.send(Message::binary(framed)).unwrap();
}

#[track_caller]
fn heard(peer: &mut Peer, text: &str) {
    let message = peer.socket.read().unwrap();
    assert_eq!(message.into_data(), format!("\x01{text}\n"));
}

fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The messages up to the end of a socket, and the end.
fn messages(peer: &mut Peer) -> (usize, Error) {
    let mut count = 0;
    loop {
        match peer.socket.read() {
            Ok(Message::Close(_)) => {}
            Ok(_) => count += 1,
            Err(error) => return (count, error),
        }
    }
}

#[test]
fn a_socket_is_cut_at_every_frame_and_its_session_goes_on() {
    let fake = fake();
    for at in 0..=4 {
        for is_within in [false, true] {
            let fault = if is_within {
                SocketFault::CutWithin(at + 1)
            } else {
                SocketFault::CutAfterSent(at)
            };
            fake.set(|switches| switches.sockets.push_back(fault));
            let mut peer = socket(&fake, &script(ECHO));
            let (mut count, mut error) = (0, None);
            for round in 0..=at {
                let _ = peer
                    .socket
                    .send(Message::binary(format!("\0{round}\n").into_bytes()));
                match peer.socket.read() {
                    Ok(_) => count += 1,
                    Err(cut) => {
                        error = Some(cut);
                        break;
                    }
                }
            }
            let error = error.unwrap_or_else(|| messages(&mut peer).1);
            assert_matches!(error, Error::Protocol(_) | Error::Io(_), "no close frame");
            assert_eq!(count, at, "{is_within}");
            let [id] = listed(&fake).try_into().unwrap();
            let mut again = socket(&fake, &format!("/v1/sprites/one/exec/{id}?stdin=true"));
            assert_eq!(again.receive()["session_id"], *id);
            again
                .socket
                .send(Message::binary(b"\x04".to_vec()))
                .unwrap();
            wait_until("the end of the session", || listed(&fake).is_empty());
        }
    }
    assert_eq!(fake.most_sessions("one"), 1);
    fake.finish();
}

#[test]
fn a_socket_is_cut_after_what_it_received_or_closed_while_the_command_goes_on() {
    let fake = fake();
    fake.set(|switches| {
        let faults = [
            SocketFault::CutAfterReceived(2),
            SocketFault::CloseAfterSent(1, 1000),
        ];
        switches.sockets.extend(faults);
    });
    let mut cut = socket(&fake, &script(ECHO));
    cut.receive();
    say(&mut cut, "one");
    heard(&mut cut, "one");
    say(&mut cut, "two");
    messages(&mut cut);
    let mut closed = socket(&fake, &script(ECHO));
    closed.receive();
    assert_eq!(closed.read_to_close(), Some(1000));
    assert_eq!(listed(&fake).len(), 2);
    fake.finish();
}

#[test]
fn all_sockets_end_while_the_service_is_away_and_sessions_do_not() {
    let fake = fake();
    let mut peer = socket(&fake, &script(ECHO));
    peer.receive();
    fake.set(|switches| switches.away = true);
    assert_matches!(messages(&mut peer).1, Error::Protocol(_) | Error::Io(_));
    let stream: TcpStream = connect(fake.address());
    assert_ends_unanswered(stream);
    fake.set(|switches| switches.away = false);
    assert_eq!(listed(&fake).len(), 1);
    assert_eq!(fake.calls().count("GET */exec"), 2);
    fake.finish();
}

#[test]
fn a_silent_socket_answers_no_ping_until_it_is_heard_again() {
    let fake = fake();
    let mut peer = socket(&fake, &script(ECHO));
    peer.receive();
    fake.set(|switches| switches.silence = true);
    peer.socket.send(Message::Ping(Bytes::new())).unwrap();
    say(&mut peer, "one");
    let stream = peer.socket.get_ref().try_clone().unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let silence = peer.socket.read().unwrap_err();
    assert_matches!(silence, Error::Io(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(crate::support::LONG)).unwrap();
    fake.set(|switches| switches.silence = false);
    assert_matches!(peer.socket.read().unwrap(), Message::Pong(_));
    heard(&mut peer, "one");
    fake.finish();
}

#[test]
fn wrong_frames_come_as_they_are_asked_for() {
    let fake = fake();
    fake.set(|switches| {
        let wrong = [frame(0x83, b"reserved"), frame(0x81, &[0xff, 0xfe])];
        let wrong = wrong.into_iter().map(SocketFault::Inject);
        switches.sockets.extend(wrong);
        switches
            .sockets
            .push_back(SocketFault::Flood(frame(0x82, b"\x09unknown")));
    });
    for _ in 0..2 {
        let mut peer = socket(&fake, &script(ECHO));
        peer.receive();
        let (count, error) = messages(&mut peer);
        assert_eq!(count, 0);
        assert_matches!(error, Error::Protocol(_) | Error::Utf8(_));
    }
    let mut peer = socket(&fake, &script(ECHO));
    peer.receive();
    for _ in 0..10_000 {
        assert_eq!(peer.socket.read().unwrap().into_data(), b"\x09unknown"[..]);
    }
    // The flood goes on, and ends with the fake.
    fake.finish();
}

#[test]
fn a_warm_sprite_stands_still_until_it_is_used() {
    let fake = fake();
    let mut peer = socket(&fake, &script(ECHO));
    peer.receive();
    let [pid] = fake.sessions("one").try_into().unwrap();
    fake.go_warm("one");
    messages(&mut peer);
    assert_eq!(fake.status("one"), Some(Status::Warm));
    wait_until("a stopped process", || state(pid) == Some('T'));
    // Looking at the sprite itself wakes nothing.
    assert!(
        call(&fake, "GET", "/v1/sprites/one", "")
            .body
            .contains("\"warm\"")
    );
    assert_eq!(listed(&fake), [pid.to_string()]);
    wait_until("a process that goes on", || state(pid) == Some('S'));
    let mut again = socket(&fake, &format!("/v1/sprites/one/exec/{pid}?stdin=true"));
    again.receive();
    say(&mut again, "one");
    heard(&mut again, "one");
    fake.finish();
}

#[test]
fn a_cold_sprite_has_its_files_and_nothing_else() {
    let fake = fake();
    let mut peer = socket(&fake, &script("echo >/home/sprite/kept; echo made; cat"));
    peer.receive();
    heard(&mut peer, "made");
    let [pid] = fake.sessions("one").try_into().unwrap();
    fake.go_cold("one");
    let (count, error) = messages(&mut peer);
    assert_eq!(count, 0, "an exit was told");
    assert_matches!(error, Error::Protocol(_) | Error::Io(_));
    assert_eq!((fake.status("one"), state(pid)), (Some(Status::Cold), None));
    assert_eq!(listed(&fake), Vec::<String>::new());
    let target = "/v1/sprites/one/fs/read?path=/home/sprite/kept";
    assert_eq!(call(&fake, "GET", target, "").body, "\n");
    fake.finish();
}

#[test]
fn the_end_of_the_fake_leaves_no_process_and_no_file() {
    let fake = fake();
    let mut peer = socket(&fake, &script("sleep 600 & echo $!; cat"));
    peer.receive();
    let message = peer.socket.read().unwrap().into_data();
    let child = std::str::from_utf8(&message[1..]).unwrap();
    let child: u32 = child.trim().parse().unwrap();
    let [pid] = fake.sessions("one").try_into().unwrap();
    let home = fake.path("one", "/home/sprite").unwrap();
    assert!(home.is_dir());
    fake.finish();
    assert_eq!(state(pid), None);
    // Whoever inherits it reaps it.
    wait_until("the child's end", || {
        matches!(state(child), None | Some('Z'))
    });
    assert!(!home.exists());
}
