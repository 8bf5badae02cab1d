//! What a runtime promises of the ends of runs.

use super::bench::Bench;
use super::probe::Plan;
use super::{Check, Outcome};
use crate::process::ExitReason;

pub(super) const CHECKS: &[Check] = &[
    (
        "an_exit_status_is_reported_soon",
        an_exit_status_is_reported_soon,
    ),
    ("a_signal_is_reported_soon", a_signal_is_reported_soon),
    (
        "a_plugin_may_end_with_its_input",
        a_plugin_may_end_with_its_input,
    ),
    (
        "a_signal_asks_it_to_end_before_it_is_killed",
        a_signal_asks_it_to_end_before_it_is_killed,
    ),
    (
        "what_ignores_signals_is_killed_and_that_is_told",
        what_ignores_signals_is_killed_and_that_is_told,
    ),
    (
        "no_run_begins_before_the_last_has_ended",
        no_run_begins_before_the_last_has_ended,
    ),
    (
        "what_a_run_has_started_ends_with_it",
        what_a_run_has_started_ends_with_it,
    ),
    (
        "a_handle_that_is_dropped_ends_its_run",
        a_handle_that_is_dropped_ends_its_run,
    ),
    ("no_method_of_a_handle_blocks", no_method_of_a_handle_blocks),
];

/// Ignores the end of its input and the signals that ask it to end.
const STUBBORN: &str = "trap '' INT TERM; stay=yes";

fn an_exit_status_is_reported_soon(bench: &mut Bench) -> Outcome {
    for status in [3, 0, 77] {
        bench.start()?;
        let (exit, _) = bench.end_by(&format!("exit {status}"))?;
        if exit != ExitReason::Code(status) {
            return Err(
                format!("a plugin that exits with {status} is said to end with {exit:?}").into(),
            );
        }
    }
    bench.start()?;
    bench.expect_alone()
}

fn a_signal_is_reported_soon(bench: &mut Bench) -> Outcome {
    for (name, number) in [("KILL", 9), ("TERM", 15)] {
        bench.start()?;
        let (exit, problem) = bench.end_by(&format!("trap - TERM; kill -{name} $main"))?;
        // Shells and containers tell it as a status.
        let told = [ExitReason::Signal(number), ExitReason::Code(128 + number)];
        if !told.contains(&exit) {
            let problem = problem.message();
            return Err(
                format!("a plugin that SIG{name} ended is said to end so: {problem}").into(),
            );
        }
    }
    bench.start()?;
    bench.expect_alone()
}

fn a_plugin_may_end_with_its_input(bench: &mut Bench) -> Outcome {
    bench.start()?;
    let report = bench.stop()?;
    if report.killed || report.exit != Some(ExitReason::Code(0)) {
        let found = format!("a plugin that ends with its input was stopped so: {report:?}");
        return Err(found.into());
    }
    Ok(())
}

fn a_signal_asks_it_to_end_before_it_is_killed(bench: &mut Bench) -> Outcome {
    bench.start()?;
    bench.ask("echo $own >$data/asked")?;
    bench.act("stay=yes")?;
    let report = bench.stop()?;
    if report.killed {
        return Err("a plugin that ends with SIGINT is killed".into());
    }
    bench.start()?;
    let signals = bench.ask("cat $(cat $data/asked)/signals")?;
    // SIGTERM alone where the host was started with SIGINT ignored.
    if !signals.starts_with("INT") && signals != "TERM" {
        return Err(format!("the signals that the plugin got are {signals:?}").into());
    }
    bench.expect_alone()
}

fn what_ignores_signals_is_killed_and_that_is_told(bench: &mut Bench) -> Outcome {
    bench.start()?;
    bench.act(STUBBORN)?;
    let report = bench.stop()?;
    if !report.killed {
        return Err(format!("it is not said to have been killed: {report:?}").into());
    }
    let allowed = bench.limits.grace + bench.limits.soon;
    if report.took > allowed {
        return Err(format!("the stop takes {:?}; allowed are {allowed:?}", report.took).into());
    }
    bench.start()?;
    bench.expect_alone()
}

fn no_run_begins_before_the_last_has_ended(bench: &mut Bench) -> Outcome {
    // They end slowly, so that one that begins too early finds the last one.
    let slow = "trap 'pause; pause; pause; pause; exit 1' INT TERM; stay=yes";
    for round in 0..3 {
        bench.start()?;
        bench.act(slow)?;
        if round == 0 {
            bench.end_by("pause; exit 1")?;
        } else {
            bench.stop()?;
        }
    }
    bench.start()?;
    bench.end_by("kill -KILL $main")?;
    bench.start()?;
    bench.expect_alone()
}

fn what_a_run_has_started_ends_with_it(bench: &mut Bench) -> Outcome {
    let child = "(while :; do echo >>$own/children; pause; done) </dev/null >/dev/null 2>&1 &";
    for end in ["exit 1", "kill -KILL $main"] {
        bench.start()?;
        bench.act(child)?;
        bench.end_by(end)?;
    }
    bench.start()?;
    bench.act(child)?;
    bench.stop()?;
    bench.start()?;
    bench.expect_alone()
}

fn a_handle_that_is_dropped_ends_its_run(bench: &mut Bench) -> Outcome {
    bench.start_as(Plan::Dropped)?;
    bench.start()?;
    bench.expect_alone()
}

fn no_method_of_a_handle_blocks(bench: &mut Bench) -> Outcome {
    bench.start()?;
    bench.end_by("exit 1")?;
    bench.start()?;
    bench.act(STUBBORN)?;
    bench.stop()?;
    bench.start_as(Plan::Dropped)?;
    match bench.blocked() {
        Some(found) => Err(found.into()),
        None => Ok(()),
    }
}
