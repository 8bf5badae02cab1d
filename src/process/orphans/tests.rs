//! Real processes, found and killed.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::proc::ProcessStatus;
use super::*;
use crate::testing::LONG;

fn kill(matching: &CookieMatch) -> ScanResult {
    let scanner = OrphanScanner::new(Cookie::generate().unwrap());
    let progress = scanner.begin(&Arc::default(), false).unwrap();
    matching.kill(Deadline::after(LONG), Duration::ZERO, &progress)
}

/// A shell that runs this with the cookie of a run, once it has said that it does.
fn start(cookie: &Cookie, run: u64, script: &str) -> Child {
    start_in("/bin/sh", cookie, run, script)
}

fn start_in(interpreter: &str, cookie: &Cookie, run: u64, script: &str) -> Child {
    let mut child = Command::new(interpreter)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .env(VARIABLE, cookie.of_run(run))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut byte = [0];
    let output = child.stdout.as_mut().unwrap();
    output.read_exact(&mut byte).unwrap();
    child
}

/// Waits until nothing holds the child's output any more, so nothing of it lives.
#[track_caller]
fn expect_end(child: &mut Child) {
    let mut rest = Vec::new();
    let output = child.stdout.as_mut().unwrap();
    output.read_to_end(&mut rest).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_cookie_is_read_back_and_nothing_else_is_one() {
    let cookie = Cookie::generate().unwrap();
    let read = Cookie::from_text(cookie.as_str()).unwrap();
    assert_eq!(read.as_str(), cookie.as_str());
    for text in ["", "00", "zz", &"0".repeat(31), &"A".repeat(32)] {
        assert_eq!(Cookie::from_text(text), None, "{text}");
    }
}

#[test]
fn a_process_without_any_variable_is_seen_through_at_once() {
    let mut child = Command::new("cat")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its answer shows that it is in place.
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    let mut answer = [0];
    let output = child.stdout.as_mut().unwrap();
    output.read_exact(&mut answer).unwrap();
    let status = std::fs::read(format!("/proc/{}/stat", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        ProcessStatus::parse(&status),
        Some(ProcessStatus::NoEnvironment)
    );
}

#[test]
fn they_are_killed_with_all_that_they_start_and_others_are_not() {
    let cookie = Cookie::generate().unwrap();
    // Each shell starts another in a session of its own; all hold the pipe open.
    let script = "for i in 1 2 3; do setsid sh -c 'setsid sleep 1000 & sleep 1000' & done; \
                  echo; exec sleep 1000";
    let mut one = start(&cookie, 1, script);
    let mut other = start(&cookie, 2, script);
    let result = kill(&cookie.match_runs(&[1]));
    assert!(result.killed >= 4 && result.found.is_clear(), "{result:?}");
    expect_end(&mut one);
    assert!(other.try_wait().unwrap().is_none(), "the other run was hit");
    kill(&cookie.match_all());
    expect_end(&mut other);
}

#[test]
fn hundreds_in_sessions_of_their_own_are_all_found() {
    let cookie = Cookie::generate().unwrap();
    let script = "i=0; while [ $i -lt 300 ]; do setsid sleep 1000 & i=$((i+1)); done; echo; \
                  exec sleep 1000";
    let mut child = start(&cookie, 1, script);
    let result = kill(&cookie.match_runs(&[1]));
    assert!(result.killed > 300 && result.found.is_clear(), "{result:?}");
    expect_end(&mut child);
}

#[test]
fn a_chain_of_forks_is_caught() {
    let cookie = Cookie::generate().unwrap();
    // Each forks the next, in a session of its own, and ends; until its input does.
    let chain = "import os\n\
        os.set_blocking(0, False)\n\
        os.write(1, b'\\n')\n\
        while True:\n \
            try:\n  \
                if not os.read(0, 1): break\n \
            except BlockingIOError: pass\n \
            if os.fork(): os._exit(0)\n \
            os.setsid()\n";
    let mut child = start_in("python3", &cookie, 1, chain);
    let began = Instant::now();
    let result = kill(&cookie.match_runs(&[1]));
    assert!(result.killed >= 1 && result.found.is_clear(), "{result:?}");
    expect_end(&mut child);
    assert!(began.elapsed() < LONG, "it ended by itself");
}

#[test]
fn what_cannot_be_killed_is_counted_and_a_look_ends_in_time() {
    let cookie = Cookie::generate().unwrap();
    let mut child = start(
        &cookie,
        1,
        "for i in 1 2 3; do setsid sleep 1000 & done; echo; wait",
    );
    let scanner = OrphanScanner::new(cookie.clone());
    let tally = Arc::<Tally>::default();
    let harmless = scanner.begin(&tally, true).unwrap();
    let deadline = Deadline::after(Duration::from_millis(300));
    let result = cookie.match_all().kill(deadline, Duration::ZERO, &harmless);
    // The shell and what it started; each `setsid` may still be on its way to its program.
    assert_eq!(
        (result.found.left, result.found.finished),
        (4, true),
        "{result:?}"
    );
    assert_eq!(tally.descendants().left, 4);
    assert!(!result.found.is_clear());
    assert!(kill(&cookie.match_all()).found.is_clear());
    expect_end(&mut child);
}

#[test]
fn a_process_that_a_read_does_not_come_back_from_is_passed_over() {
    let scanner = OrphanScanner::new(Cookie::generate().unwrap());
    let tally = Arc::<Tally>::default();
    let progress = scanner.begin(&tally, false).unwrap();
    assert!(!progress.give_up(Duration::ZERO), "it reads nothing");
    progress.begin_reading(7);
    assert!(!progress.give_up(LONG), "it has its time");
    assert!(progress.give_up(Duration::ZERO));
    let next = scanner.begin(&tally, false).unwrap();
    assert!(next.is_stuck(7) && !next.is_abandoned());
    // It does come back.
    progress.end_reading(7);
    assert!(!next.is_stuck(7) && progress.is_abandoned());
    let stuck: Vec<_> = (0..STUCK_LIMIT)
        .map(|number| {
            let progress = scanner.begin(&tally, false).unwrap();
            progress.begin_reading(i32::try_from(number).unwrap());
            assert!(progress.give_up(Duration::ZERO));
            progress
        })
        .collect();
    assert!(
        scanner.begin(&tally, false).is_none(),
        "no more threads for that"
    );
    stuck[0].end_reading(0);
    assert!(scanner.begin(&tally, false).is_some());
}
