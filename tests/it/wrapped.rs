//! The example of a runtime of one's own, with the checks that are meant for it.

use plugin_runner::runtime::conformance;

#[path = "../examples/wrapped.rs"]
#[allow(dead_code, reason = "its `main` is not called")]
mod example;

use example::Wrapped;

#[track_caller]
fn check(command: &'static [&'static str]) {
    let checked = conformance::check(&mut |builder, _| builder.runtime(Wrapped::new(command)));
    checked.unwrap_or_else(|violation| panic!("through {command:?}: {violation}"));
}

#[test]
fn the_runtime_of_the_example_keeps_a_runtimes_promises_with_nice() {
    check(&["nice", "-n", "1"]);
}

#[test]
fn the_runtime_of_the_example_keeps_a_runtimes_promises_with_a_shell() {
    check(&["sh", "-c", r#"umask 077; exec "$0" "$@""#]);
}

#[test]
fn the_runtime_of_the_example_keeps_a_runtimes_promises_without_a_command() {
    check(&[]);
}
