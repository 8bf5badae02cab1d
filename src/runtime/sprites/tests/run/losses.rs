//! Runs whose connection is lost.

use super::*;
use crate::runtime::sprites::tests::fake::{Exit, frame};

const SHORT: Duration = Duration::from_millis(500);

#[test]
fn a_cut_at_any_message_loses_no_program() {
    // The session, four lines, the exit: with more messages than there are, nothing is cut.
    for count in 0..=7 {
        for within in [false, true] {
            if within && count == 0 {
                continue;
            }
            let setup = Setup::new();
            setup.socket(if within {
                SocketFault::CutWithin(count)
            } else {
                SocketFault::CutAfterSent(count)
            });
            let step = "sleep 0.02; echo";
            let script =
                format!("echo 1; {step} 2 >&2; {step} 3; {step} 4 >&2; sleep 0.02; exit 9");
            let (exit, stdout, stderr) = setup.start(&script).end();
            let what = format!("{count} {within} {exit:?} {stdout:?} {stderr:?}");
            let is_right = match exit.end {
                SpriteEnd::Exited(ExitReason::Code(9)) | SpriteEnd::Lost(Loss::EndedMeanwhile) => {
                    true
                }
                // Its environment was on the connection, so it was not started at all.
                SpriteEnd::Lost(Loss::NotStarted(None)) => stdout.is_empty(),
                _ => false,
            };
            assert!(is_right, "{what}");
            assert_eq!(setup.fake.calls().count("POST */kill"), 0, "{what}");
            let most = setup.fake.most_sessions("one");
            assert_eq!(most, 1, "{what}");
            setup.finish();
        }
    }
}

#[test]
fn a_cut_before_the_environment_was_there_starts_nothing_twice() {
    for received in 0..=2 {
        let setup = Setup::new();
        setup.socket(SocketFault::CutAfterReceived(received));
        let run = setup.start("while [ ! -e go ]; do sleep 0.01; done; exit 3");
        if received > 0 {
            wait_until("the note", || !setup.notes().is_empty());
            std::fs::write(setup.fake.path("one", RELEASE).unwrap().join("go"), "").unwrap();
        }
        run.ends(match received {
            0 => SpriteEnd::Lost(Loss::NotStarted(None)),
            _ => code(3),
        });
        setup.finish();
    }
}

#[test]
fn a_program_is_attached_to_again_and_the_gap_is_noted() {
    let setup = Setup::new();
    let mut run = setup.start("echo up; while [ ! -e go ]; do sleep 0.01; done; echo down; exit 2");
    run.read_to("up\n");
    for times in 1..=3 {
        setup.fake.cut("one");
        wait_until("the note", || setup.notes().len() == times);
    }
    for note in setup.notes() {
        assert!(
            note.starts_with("the connection to the sprite was lost ("),
            "{note}"
        );
        assert!(note.contains("may be missing"), "{note}");
    }
    std::fs::write(setup.fake.path("one", RELEASE).unwrap().join("go"), "").unwrap();
    let (exit, stdout, _) = run.end();
    assert_eq!((exit.end, stdout.as_str()), (code(2), "down\n"));
    setup.finish();
}

#[test]
fn a_socket_that_is_closed_with_whatever_code_is_lost_and_opened_again() {
    for code_of_close in [1000, 1011] {
        let setup = Setup::new();
        setup.socket(SocketFault::CloseAfterSent(2, code_of_close));
        let mut run =
            setup.start("echo up; while [ ! -e go ]; do sleep 0.01; done; echo down; exit 2");
        run.read_to("up\n");
        wait_until("the note", || !setup.notes().is_empty());
        let expected = format!("closed with code {code_of_close}");
        assert!(setup.notes()[0].contains(&expected), "{:?}", setup.notes());
        std::fs::write(setup.fake.path("one", RELEASE).unwrap().join("go"), "").unwrap();
        run.read_to("down\n");
        run.ends(code(2));
        setup.finish();
    }
}

#[test]
fn frames_that_are_wrong_end_the_socket_and_not_the_run() {
    for bytes in [
        // Reserved bits; a text that is none; a message that is announced to be vast.
        frame(0xf2, b"x"),
        frame(0x81, b"\xff\xff"),
        vec![0x82, 127, 0x7f, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let setup = Setup::new();
        setup.socket(SocketFault::Inject(bytes));
        let run = setup.start("while [ ! -e go ]; do sleep 0.01; done; exit 2");
        setup.wait_for_calls(1, "GET */exec/*");
        std::fs::write(setup.fake.path("one", RELEASE).unwrap().join("go"), "").unwrap();
        let exit = run.wait();
        // The environment may have been under way.
        let is_right = exit.end == code(2) || exit.end == SpriteEnd::Lost(Loss::NotStarted(None));
        assert!(is_right, "{exit:?}");
        assert_eq!(setup.fake.most_sessions("one"), 1);
        drop(run);
        setup.finish();
    }
}

#[test]
fn a_program_that_ends_while_the_connection_is_lost_is_not_known_to_have_failed() {
    for exit in [Exit::Close, Exit::Drop] {
        let mut setup = Setup::new();
        setup.limits.early = LONG;
        setup.fake.set(|switches| switches.exit = exit);
        let run = setup.start("echo up; exit 1");
        run.ends(SpriteEnd::Lost(Loss::EndedMeanwhile));
        // Of one that has printed nothing, even less is known.
        let run = setup.start("exit 1");
        run.ends(SpriteEnd::Lost(Loss::NotStarted(None)));
        setup.finish();
    }
}

#[test]
fn silence_is_a_loss() {
    let mut setup = Setup::new();
    setup.limits.silence = Some((Duration::from_millis(50), Duration::from_millis(300)));
    let mut run = setup.start("echo up; while [ ! -e go ]; do sleep 0.01; done; echo down");
    run.read_to("up\n");
    setup.fake.set(|switches| switches.silence = true);
    setup.wait_for_calls(1, "GET */exec/*");
    setup.fake.set(|switches| switches.silence = false);
    wait_until("the note", || !setup.notes().is_empty());
    std::fs::write(setup.fake.path("one", RELEASE).unwrap().join("go"), "").unwrap();
    run.read_to("down\n");
    assert!(
        setup.notes()[0].contains("no sign of life"),
        "{:?}",
        setup.notes()
    );
    run.ends(code(0));
    setup.finish();
}

#[test]
fn a_sprite_that_pauses_is_woken_and_the_program_goes_on() {
    let setup = Setup::new();
    let mut run = setup.start("echo up; while [ ! -e go ]; do sleep 0.01; done; echo down");
    run.read_to("up\n");
    setup.fake.go_warm("one");
    wait_until("the note", || !setup.notes().is_empty());
    std::fs::write(setup.fake.path("one", RELEASE).unwrap().join("go"), "").unwrap();
    run.read_to("down\n");
    run.ends(code(0));
    setup.finish();
}

#[test]
fn a_sprite_that_loses_its_processes_ends_the_run() {
    for has_stdin in [false, true] {
        let setup = Setup::new();
        let program = Setup::script("echo up; exec sleep 60", has_stdin);
        let mut run = setup.try_start(&program).unwrap();
        run.read_to("up\n");
        setup.fake.go_cold("one");
        run.ends(SpriteEnd::Lost(if has_stdin {
            Loss::Stream
        } else {
            Loss::EndedMeanwhile
        }));
        setup.finish();
    }
}

#[test]
fn a_service_that_stays_away_ends_the_run_when_its_time_is_over() {
    for has_stdin in [false, true] {
        let mut setup = Setup::new();
        setup.limits.attach = SHORT;
        setup.limits.detached = Duration::from_secs(1);
        let program = Setup::script("echo up; exec sleep 60", has_stdin);
        let mut run = setup.try_start(&program).unwrap();
        run.read_to("up\n");
        setup.fake.set(|switches| switches.away = true);
        run.ends(SpriteEnd::Lost(Loss::Unknown));
        setup.fake.set(|switches| switches.away = false);
        setup.finish();
    }
}

#[test]
fn a_stop_while_the_service_is_away_is_bounded() {
    let mut setup = Setup::new();
    setup.limits.attach = SHORT;
    setup.limits.detached = Duration::from_secs(1);
    let mut run = setup.start("echo up; exec sleep 60");
    run.read_to("up\n");
    setup.fake.set(|switches| switches.away = true);
    run.signal(StopSignal::Terminate);
    run.ends(SpriteEnd::Lost(Loss::Unknown));
    setup.fake.set(|switches| switches.away = false);
    setup.finish();
}

#[test]
fn a_program_that_cannot_be_attached_to_is_killed_when_the_time_is_over() {
    let mut setup = Setup::new();
    setup.limits.attach = SHORT;
    let mut run = setup.start("echo up; exec sleep 60");
    run.read_to("up\n");
    setup.next(1_000, "GET */exec/*", Fault::Drop);
    setup.fake.cut("one");
    run.ends(SpriteEnd::Lost(Loss::TooLong(SHORT)));
    let calls = setup.fake.calls();
    let kill = calls.of("POST */kill").next().unwrap();
    assert_eq!(kill.query[0].1, "KILL");
    setup.finish();
}

#[test]
fn a_program_with_input_is_killed_and_never_attached_to() {
    for fault in [Fault::Drop, Fault::DoneDrop] {
        let setup = Setup::new();
        let mut run = setup.start_with_stdin("trap '' INT TERM; echo up; exec cat");
        run.read_to("up\n");
        setup.next(1, "POST */kill", fault);
        setup.fake.cut("one");
        let exit = run.wait();
        assert_eq!(
            (exit.end, exit.was_forced),
            (SpriteEnd::Lost(Loss::Stream), false)
        );
        assert_eq!(setup.fake.sessions("one"), Vec::<u32>::new());
        assert_eq!(setup.fake.calls().count("GET */exec/*"), 0);
        drop(run);
        setup.finish();
    }
}

#[test]
fn the_output_of_a_program_with_input_ends_with_its_socket_and_not_with_its_kill() {
    let setup = Setup::new();
    let mut run = setup.start_with_stdin("echo up; exec cat");
    run.read_to("up\n");
    setup.fake.set(|switches| switches.away = true);
    // Nothing can be learned of it, and nobody who waits for an answer has to wait for that.
    let readable = poll::readable(run.stdout.as_fd(), Deadline::after(LONG)).unwrap();
    assert!(readable, "the output goes on");
    assert_eq!(run.stdout.read(&mut [0]).unwrap(), 0);
    assert_eq!(run.handle.exit(), None);
    setup.fake.set(|switches| switches.away = false);
    run.ends(SpriteEnd::Lost(Loss::Stream));
    setup.finish();
}

#[test]
fn sockets_that_are_cut_at_once_are_not_opened_without_a_pause() {
    let mut setup = Setup::new();
    setup.limits.attach = Duration::from_secs(2);
    let mut run = setup.start("echo up; exec sleep 60");
    run.read_to("up\n");
    for _ in 0..1_000 {
        setup.socket(SocketFault::CutAfterSent(1));
    }
    setup.fake.cut("one");
    run.ends(SpriteEnd::Lost(Loss::TooLong(setup.limits.attach)));
    // At 0, 250, 750 and 1,750 ms.
    let attached = setup.fake.calls().count("GET */exec/*");
    assert!((2..=5).contains(&attached), "{attached}");
    setup.finish();
}
