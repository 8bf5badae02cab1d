//! The built-in sample plugin, which is what runs when nothing is named.

use rustix::process::Signal;

use crate::program::{Scratch, text};

#[test]
fn without_a_path_the_sample_shows_a_whole_life() {
    let scratch = Scratch::new();
    let mut program = scratch.start("run --max-backoff 10ms");
    for part in [
        "* starting",
        "* connecting",
        "* active",
        "> ping answered in ",
        "* restarting in 10ms: ",
        "* starting",
        "* connecting",
        "* active",
        "> ping answered in ",
    ] {
        program.line_with(part);
    }
    program.signal(Signal::INT);
    program.line_with("* inactive");
    let output = program.end();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        text(&output.stderr),
        "plugin-runner: no plugin given, so this runs the built-in sample; Ctrl-C ends it\n\
         plugin-runner: stopping; once more to kill\n"
    );
    scratch.assert_nothing_left();
}

#[test]
fn with_a_data_directory_the_sample_crashes_in_the_first_run_only() {
    let scratch = Scratch::new();
    let mut program = scratch.start("run --data kept --max-backoff 10ms");
    program.line_with("I crash now, once");
    program.line_with("I crashed once already");
    program.stop();
    let mut program = scratch.start("run --data kept --max-backoff 10ms");
    let line = program.line_with("I crash");
    assert!(line.contains("I crashed once already"), "{line}");
    program.stop();
    scratch.assert_nothing_left();
}
