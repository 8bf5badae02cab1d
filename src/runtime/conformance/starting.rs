//! What a runtime promises of its starts, and of calls to a plugin.

use super::bench::{ARGUMENT, Bench, VARIABLE, wait_for};
use super::probe::Plan;
use super::{Check, Outcome};
use crate::protocol::environment::TRANSPORT_VARIABLE;
use crate::state::ReportedState;

pub(super) const CHECKS: &[Check] = &[
    ("its_name_is_in_lower_case", its_name_is_in_lower_case),
    (
        "a_plugin_is_accepted_and_becomes_active",
        a_plugin_is_accepted_and_becomes_active,
    ),
    (
        "a_plugin_is_called_and_answers",
        a_plugin_is_called_and_answers,
    ),
    (
        "the_environment_is_that_of_the_record",
        the_environment_is_that_of_the_record,
    ),
    (
        "the_arguments_are_those_of_the_manifest",
        the_arguments_are_those_of_the_manifest,
    ),
    (
        "what_it_prints_reaches_the_log",
        what_it_prints_reaches_the_log,
    ),
    (
        "a_cancelled_start_returns_soon_and_leaves_nothing",
        a_cancelled_start_returns_soon_and_leaves_nothing,
    ),
    (
        "a_stop_at_any_moment_of_a_start_leaves_nothing",
        a_stop_at_any_moment_of_a_start_leaves_nothing,
    ),
    (
        "what_earlier_hosts_left_can_be_cleared",
        what_earlier_hosts_left_can_be_cleared,
    ),
];

fn its_name_is_in_lower_case(bench: &mut Bench) -> Outcome {
    let name = bench.host.runtime_name();
    if name.is_empty() || name.to_lowercase() != name || name != name.trim() {
        return Err(format!("it is called {name:?}").into());
    }
    Ok(())
}

fn a_plugin_is_accepted_and_becomes_active(bench: &mut Bench) -> Outcome {
    bench.start()?;
    bench.stop()?;
    if bench.session()?.reported_state() != ReportedState::Inactive {
        return Err("it is not inactive after a stop".into());
    }
    Ok(())
}

fn a_plugin_is_called_and_answers(bench: &mut Bench) -> Outcome {
    bench.start()?;
    for number in 0..20 {
        let expected = number.to_string();
        bench.expect(&format!("echo {number}"), &expected, "an answer")?;
    }
    let long = "0123456789abcdef".repeat(4096);
    let said = bench.ask(&format!("echo {long}"))?;
    if said != long {
        let (sent, came) = (long.len(), said.len());
        return Err(format!("of a message of {sent} bytes, {came} come back, or others").into());
    }
    Ok(())
}

fn the_environment_is_that_of_the_record(bench: &mut Bench) -> Outcome {
    bench.start()?;
    let (name, value) = VARIABLE;
    let print = |name: &str| format!("printf %s \u{27}\u{27}; printenv {name}");
    bench.expect(&print(name), value, "a variable of the record's")?;
    let over = "the variable that says how to talk to the host";
    bench.expect(&print(TRANSPORT_VARIABLE), "stdio", over)?;
    let writable = "cd $data && echo text >file && cat file";
    bench.expect(writable, "text", "a file written to PLUGIN_DATA_DIR")
}

fn the_arguments_are_those_of_the_manifest(bench: &mut Bench) -> Outcome {
    bench.start()?;
    bench.act("argument=$1")?;
    bench.expect("echo $#", "1", "the number of arguments")?;
    let print = "IFS=; printf %s $argument";
    // Nothing may expand once more.
    bench.act("set -f")?;
    bench.expect(print, ARGUMENT, "an argument of the manifest's")
}

fn what_it_prints_reaches_the_log(bench: &mut Bench) -> Outcome {
    bench.start()?;
    bench.act("echo to its output; echo to its errors >&2")?;
    bench.expect_line("to its output")?;
    bench.expect_line("to its errors")?;
    // What it prints last, too.
    bench.end_by(
        "n=0; while [ $n -lt 200 ]; do n=$((n + 1)); echo last words $n >&2; done; exit 3",
    )?;
    bench.expect_line("last words 1")?;
    bench.expect_line("last words 200")
}

fn a_cancelled_start_returns_soon_and_leaves_nothing(bench: &mut Bench) -> Outcome {
    bench.start_as(Plan::Cancelled)?;
    bench.start()?;
    bench.expect_alone()
}

fn a_stop_at_any_moment_of_a_start_leaves_nothing(bench: &mut Bench) -> Outcome {
    use ReportedState::{Active, Connecting, Starting};

    for _ in 0..3 {
        for moment in [None, Some(Starting), Some(Connecting), Some(Active)] {
            let changes = bench.changes();
            bench.supervised()?.start()?;
            if let Some(state) = moment {
                let awaited = format!("a start that gets to `{state}`");
                wait_for(&changes, &[state], bench.limits.step, &awaited)?;
            }
            let took = bench.stop()?.took;
            let allowed = bench.limits.grace + bench.limits.soon;
            if took > allowed {
                let when = moment.map_or("at once", ReportedState::as_str);
                return Err(format!(
                    "a stop right after a start ({when}) takes {took:?}; allowed are {allowed:?}"
                )
                .into());
            }
        }
    }
    bench.start()?;
    bench.expect_alone()
}

fn what_earlier_hosts_left_can_be_cleared(bench: &mut Bench) -> Outcome {
    // Nothing is left, before the first start and after one.
    bench.start_as(Plan::Cleared)?;
    bench.start()?;
    bench.stop()?;
    bench.start_as(Plan::Cleared)?;
    bench.start()?;
    bench.expect_alone()
}
