//! What a runtime promises of a plugin's files.

use super::bench::Bench;
use super::{Check, Outcome};

pub(super) const CHECKS: &[Check] = &[
    ("it_runs_where_its_files_are", it_runs_where_its_files_are),
    ("its_data_is_kept_over_runs", its_data_is_kept_over_runs),
    (
        "its_own_files_are_kept_over_a_restart_and_an_update",
        its_own_files_are_kept_over_a_restart_and_an_update,
    ),
    ("a_plugin_can_be_removed", a_plugin_can_be_removed),
];

fn it_runs_where_its_files_are(bench: &mut Bench) -> Outcome {
    bench.start()?;
    bench.expect("cat version", "1", "a file of the package's")?;
    let executable = "[ -x plugin.sh ] && echo yes";
    bench.expect(executable, "yes", "whether its program may be executed")
}

fn its_data_is_kept_over_runs(bench: &mut Bench) -> Outcome {
    for number in 1..4 {
        bench.start()?;
        let expected = number.to_string();
        let count = "echo run >>$data/runs; wc -l <$data/runs | tr -d ' '";
        bench.expect(
            count,
            &expected,
            "the lines that runs have written to PLUGIN_DATA_DIR",
        )?;
        if number == 2 {
            // Also where it ends at once.
            bench.end_by("kill -KILL $main")?;
        } else {
            bench.stop()?;
        }
    }
    Ok(())
}

fn its_own_files_are_kept_over_a_restart_and_an_update(bench: &mut Bench) -> Outcome {
    bench.manager.activate(bench.id, bench.limits.step)?;
    bench.ask("mkdir own && echo mine >own/file")?;
    bench.ask("echo data >$data/file")?;
    bench.manager.restart(bench.id, bench.limits.step)?;
    bench.expect("cat own/file", "mine", "a file of its own after a restart")?;
    bench.update()?;
    bench.expect("cat version", "2", "the version after an update")?;
    bench.expect("cat own/file", "mine", "a file of its own after an update")?;
    bench.expect("cat $data/file", "data", "its data after an update")?;
    bench.expect_alone()
}

fn a_plugin_can_be_removed(bench: &mut Bench) -> Outcome {
    bench.start()?;
    let report = bench.manager.remove(bench.id)?;
    match report.left.or(report.descendants) {
        Some(left) => Err(format!("a removal leaves something: {left}").into()),
        None => Ok(()),
    }
}
