//! Runs that are ended from here.

use super::*;
use crate::runtime::sprites::tests::fake::{Answer, Info};

const RESISTS: &str = "trap '' INT TERM; echo up; exec sleep 60";

/// The signals and times of all kills that were asked for.
fn kills(setup: &Setup) -> Vec<(String, String)> {
    let calls = setup.fake.calls();
    let kills = calls.of("POST */kill");
    kills
        .map(|call| (call.query[0].1.clone(), call.query[1].1.clone()))
        .collect()
}

fn up(setup: &Setup, script: &str) -> Run {
    let mut run = setup.start(script);
    run.read_to("up\n");
    run
}

#[test]
fn a_program_that_obeys_is_not_forced_and_its_last_words_are_there() {
    let setup = Setup::new();
    let script = "trap 'echo bye; exit 7' INT; echo up; while :; do sleep 0.01; done";
    for signal in [
        StopSignal::Interrupt,
        StopSignal::Terminate,
        StopSignal::Terminate,
    ] {
        // Only the first counts.
        let run = up(&setup, script);
        run.signal(StopSignal::Interrupt);
        run.signal(signal);
        let (exit, stdout, _) = run.end();
        assert_eq!((exit.end, exit.was_forced), (code(7), false));
        assert_eq!(stdout, "bye\n");
    }
    let once = ("INT".to_owned(), "30s".to_owned());
    assert_eq!(kills(&setup), [once.clone(), once.clone(), once]);
    setup.finish();
}

#[test]
fn a_program_that_resists_is_forced() {
    let setup = Setup::new();
    let run = up(&setup, RESISTS);
    run.handle
        .signal(StopSignal::Terminate, Duration::from_millis(1));
    let exit = run.wait();
    assert_eq!((exit.end, exit.was_forced), (signal(9), true));
    assert_eq!(kills(&setup), [("TERM".to_owned(), "1s".to_owned())]);
    drop(run);
    setup.finish();
}

#[test]
fn a_kill_does_not_wait_for_the_grace_of_the_signal_before_it() {
    let setup = Setup::new();
    let run = up(&setup, RESISTS);
    run.handle
        .signal(StopSignal::Interrupt, Duration::from_secs(3_600));
    setup.wait_for_calls(1, "POST */kill");
    run.signal(StopSignal::Kill);
    run.signal(StopSignal::Kill);
    let exit = run.wait();
    assert_eq!((exit.end, exit.was_forced), (signal(9), true));
    let signals: Vec<_> = kills(&setup).into_iter().map(|kill| kill.0).collect();
    assert_eq!(signals, ["INT", "KILL"]);
    drop(run);
    setup.finish();
}

#[test]
fn a_kill_needs_no_id_and_no_socket() {
    for (info, is_cut) in [
        (Info::Missing, false),
        (Info::Missing, true),
        (Info::Text, true),
    ] {
        let setup = Setup::new();
        setup.fake.set(|switches| switches.info = info);
        // Attaching fails for as long as it lasts.
        let mut run = up(
            &setup,
            "trap 'exit 8' TERM; echo up; while :; do sleep 0.01; done",
        );
        if is_cut {
            setup.next(1_000, "GET */exec/*", Fault::Drop);
            setup.fake.cut("one");
            setup.wait_for_calls(1, "GET */exec/*");
        }
        run.signal(StopSignal::Terminate);
        let exit = run.wait();
        assert_eq!(
            (exit.end, exit.was_forced),
            (code(8), false),
            "{info:?} {is_cut}"
        );
        run.stdin = None;
        drop(run);
        setup.finish();
    }
}

#[test]
fn a_program_that_has_ended_already_is_a_success() {
    let mut setup = Setup::new();
    setup.limits.exit = Duration::from_millis(200);
    // Both as if it were gone while the socket has yet to say so.
    for status in [404, 410] {
        let run = up(&setup, "echo up; exec sleep 60");
        setup.next(
            1,
            "POST */kill",
            Fault::Done(Answer::error(status, "gone", "gone")),
        );
        run.signal(StopSignal::Terminate);
        run.ends(signal(15));
        let run = up(&setup, "echo up; exec sleep 60");
        setup.next(
            1,
            "POST */kill",
            Fault::Answer(Answer::error(status, "gone", "gone")),
        );
        run.signal(StopSignal::Terminate);
        // The socket says nothing, so it is given up in the end; the fake's sleep is ended by hand.
        let exit = run.wait();
        assert_eq!(exit.end, SpriteEnd::Lost(Loss::EndedMeanwhile));
        setup.fake.go_cold("one");
    }
    setup.finish();
}

#[test]
fn the_kills_own_answer_says_how_a_program_ended_when_the_socket_does_not() {
    let mut setup = Setup::new();
    setup.limits.exit = Duration::from_millis(200);
    let run = up(&setup, RESISTS);
    setup.fake.set(|switches| switches.silence = true);
    run.handle
        .signal(StopSignal::Terminate, Duration::from_millis(1));
    let exit = run.wait();
    assert_eq!((exit.end, exit.was_forced), (signal(9), true));
    drop(run);
    setup.fake.set(|switches| switches.silence = false);
    setup.finish();
}

#[test]
fn a_kill_is_asked_for_until_it_is_certain() {
    let setup = Setup::new();
    let run = up(&setup, "echo up; exec sleep 60");
    let failed = Answer::error(500, "internal", "not now");
    setup.next(2, "POST */kill", Fault::Answer(failed));
    setup.next(1, "POST */kill", Fault::Drop);
    run.signal(StopSignal::Terminate);
    run.ends(signal(15));
    assert_eq!(kills(&setup).len(), 4);
    setup.finish();
}

#[test]
fn a_kill_outlasts_refusals_and_says_so_once() {
    let setup = Setup::new();
    let run = up(&setup, "echo up; exec sleep 60");
    let failed = Answer::error(403, "forbidden", "not now");
    setup.next(2, "POST */kill", Fault::Answer(failed));
    run.signal(StopSignal::Terminate);
    run.ends(signal(15));
    assert_eq!(kills(&setup).len(), 3);
    let notes = setup.notes();
    assert!(notes.len() == 1 && notes[0].contains("403"), "{notes:?}");
    setup.finish();
}

#[test]
fn a_kill_for_which_there_is_no_thread_is_made_all_the_same() {
    let mut setup = Setup::new();
    setup.threads = Threads::with_limit(1);
    let run = up(&setup, "echo up; exec sleep 60");
    run.signal(StopSignal::Terminate);
    run.ends(signal(15));
    setup.finish();
}

#[test]
fn a_run_that_is_dropped_leaves_no_program() {
    for has_stdin in [false, true] {
        for info in [Info::Text, Info::Missing] {
            let setup = Setup::new();
            setup.fake.set(|switches| switches.info = info);
            let program = Setup::script(RESISTS, has_stdin);
            let mut run = setup.try_start(&program).unwrap();
            run.read_to("up\n");
            if has_stdin {
                run.signal(StopSignal::Interrupt);
                setup.wait_for_calls(1, "POST */kill");
            }
            drop(run);
            setup.finish();
        }
    }
}

#[test]
fn a_run_that_is_dropped_while_the_service_is_away_is_over_soon() {
    let mut setup = Setup::new();
    setup.limits.detached = Duration::from_secs(1);
    setup.limits.exit = Duration::from_millis(300);
    let run = up(&setup, RESISTS);
    setup.fake.set(|switches| switches.away = true);
    drop(run);
    let left = setup.threads.join_all(Deadline::after(LONG));
    assert_eq!(left, 0, "{:?}", setup.threads.names());
    setup.fake.set(|switches| switches.away = false);
    // The service ends it by itself.
    setup.finish();
}
