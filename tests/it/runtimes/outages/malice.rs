//! A server that answers without end, with what is no answer, or leads elsewhere: whatever it is asked, it can keep
//! a plugin from starting, and no more. Nothing grows without bound, nothing waits for ever, nobody else is told
//! the key, and once it answers rightly, the plugin is started.

use std::time::{Duration, Instant};

use plugin_runner::ReportedState::{Active, Connecting, Errored};
use plugin_runner::protocol::Transport;

use super::Stage;
use crate::runtimes::place::Place;
use crate::sprites::{Answer, Fake, Fault, SocketFault, frame};
use crate::support::LONG;
use crate::support::events::Details as _;

/// The requests of a stop and of a start on a sprite that has everything; and how many of the same come before.
const REQUESTS: [(&str, usize); 4] = [
    ("POST */kill", 0),
    // The list of programs, and the socket of one's own.
    ("GET */exec", 0),
    ("GET */exec", 1),
    ("GET */fs/read", 0),
];

#[test]
fn malicious_answers_keep_a_plugin_down_for_no_longer_than_they_come() {
    let place = Place::sprites("malice");
    let elsewhere = Fake::start();
    let to = elsewhere.url();
    let mut stage = Stage::new(&place, Transport::WebSocket);
    let faults = [
        Fault::EndlessHead,
        Fault::EndlessBody,
        Fault::VastBody,
        Fault::Garbage,
        Fault::Pad(64 * 1024 * 1024),
        Fault::Cut(20),
        Fault::Answer(Answer::redirect(302, &to)),
        Fault::Answer(Answer::redirect(307, &to)),
        Fault::WrongAccept,
        Fault::DoneDrop,
        Fault::Done(Answer::html(500)),
        Fault::Answer(Answer::html(200)),
    ];
    // Whoever asks which files are there, and hears something else, does not believe in them any more.
    let is_another_answer = |fault: &Fault| match fault {
        Fault::EndlessBody | Fault::VastBody | Fault::Pad(_) => true,
        Fault::Answer(answer) => answer.status == 200,
        _ => false,
    };
    for (request, before) in REQUESTS {
        for fault in &faults {
            println!("{request} after {before}: {:.60}", format!("{fault:?}"));
            let uploads = stage.uploads();
            stage.fault(before, request, Fault::Delay(Duration::ZERO));
            stage.fault(1, request, fault.clone());
            stage.stop();
            let mut events = stage.host.events();
            stage.start();
            let change = loop {
                let change = events.next(stage.session.id());
                if matches!(change.to, Active | Errored) {
                    break change;
                }
            };
            if change.to == Errored {
                // It says what is wrong, and that it is the service.
                let message = change.message().unwrap();
                assert!(message.contains("service"), "{message}");
                assert_eq!(change.details()["stage"], "start");
                stage.start();
            }
            stage.settle();
            if !(request.ends_with("/fs/read") && is_another_answer(fault)) {
                assert_eq!(stage.uploads(), uploads, "something was uploaded again");
            }
        }
    }
    assert_eq!(elsewhere.calls().count("*"), 0, "it was followed");
    drop(stage);
    place.finish();
    elsewhere.finish();
}

#[test]
fn wrong_frames_cost_a_connection_and_no_restart() {
    let place = Place::sprites("wrong-frames");
    let frames = [
        // Reserved opcodes and bits, a text that is none, a fragment of nothing.
        frame(0x83, b"reserved"),
        frame(0xf2, b"\x01bits"),
        frame(0x81, &[0xff, 0xfe]),
        frame(0x80, b"goes on"),
        // Of streams that there are not, and no stream.
        frame(0x82, b"\x09unknown"),
        frame(0x82, b""),
        frame(0x81, b"[[[[{"),
        frame(0x81, br#"{"type":"session_info","session_id":{"a":1}}"#),
        // Longer than any frame is taken.
        [&[0x82, 127][..], &u64::to_be_bytes(1 << 40)].concat(),
        // Masked, as a client's.
        vec![0x82, 0x81, 1, 2, 3, 4, 5],
    ];
    super::with_each(&place, |stage| {
        for bytes in &frames {
            println!("{:.60}", format!("{bytes:02x?}"));
            stage.stop();
            place.fake().set(|switches| {
                switches.sockets.clear();
                switches
                    .sockets
                    .push_back(SocketFault::Inject(bytes.clone()));
            });
            stage.start();
            stage.settle();
        }
    });
    place.finish();
}

#[test]
fn a_flood_of_frames_that_mean_nothing_keeps_nothing_from_ending() {
    let place = Place::sprites("frame-flood");
    let mut stage = Stage::new(&place, Transport::WebSocket);
    let floods = [
        frame(0x82, b"\x09unknown"),
        frame(0x89, b"ping"),
        frame(0x81, b"{}"),
    ];
    let flood = |bytes: &[u8]| {
        place.fake().set(|switches| {
            switches
                .sockets
                .push_back(SocketFault::Flood(bytes.to_vec()));
        });
    };
    for bytes in &floods {
        // From the moment in which it is connected to again.
        flood(bytes);
        let attaches = stage.attaches();
        place.fake().cut(&stage.sprite());
        stage.expect_attached(attaches);
        stage.expect_well();
        stop_soon(&stage);
        // From the start on: nothing arrives at the program, which waits for what it needs.
        flood(bytes);
        stage.start();
        stage.session.wait_for(Connecting, LONG).unwrap();
        stop_soon(&stage);
        stage.start();
        stage.next();
    }
    drop(stage);
    place.finish();
}

#[track_caller]
fn stop_soon(stage: &Stage<'_>) {
    let began = Instant::now();
    stage.stop();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    let sessions = || stage.place.fake().sessions(&stage.sprite());
    assert_eq!(sessions(), Vec::<u32>::new());
}
