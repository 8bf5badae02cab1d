//! Fuzzing of everything that reads what somebody else sends, with seeded generators on the stable
//! toolchain. What is fuzzed is in `targets`; the same targets with guidance by coverage are in
//! `guided`, which ordinary cargo commands do not see.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `PLUGIN_RUNNER_FUZZ_RUNS` | runs for each target, instead of a second's worth |
//! | `PLUGIN_RUNNER_FUZZ_SEED` | another seed than the one that every ordinary test has |
//! | `PLUGIN_RUNNER_FUZZ_RUN` | only the run of this number, which repeats a failure |
//!
//! For a long time: `PLUGIN_RUNNER_FUZZ_RUNS=10000000 cargo test --release --test fuzz archive --
//! --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/random.rs"]
mod random;
// What is fuzzed: a generator and a check for each reader.
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use random::Random;
use targets::Target;

const SEED: u64 = 0x0070_6c75_6769_6e73;
/// No input takes long: one that does would let a plugin hold up the thread that reads it.
const LONGEST_RUN: Duration = Duration::from_secs(20);

#[test]
fn made_up_messages_are_told_apart_as_a_whole_parse_tells_them() {
    fuzz(&targets::envelope::TARGET);
}

#[test]
fn made_up_manifests_keep_the_rules_or_are_refused() {
    fuzz(&targets::manifest::TARGET);
}

#[test]
fn made_up_configurations_are_checked_by_their_schema() {
    fuzz(&targets::configuration::TARGET);
}

#[test]
fn made_up_archives_unpack_inside_their_folder_or_are_refused() {
    fuzz(&targets::archive::TARGET);
}

#[test]
fn made_up_urls_are_read_as_they_were_built_and_never_shown() {
    fuzz(&targets::url::TARGET);
}

#[test]
fn made_up_tokens_do_not_open() {
    fuzz(&targets::token::TARGET);
}

#[test]
fn made_up_handshakes_are_judged_alike_in_whatever_pieces_they_come() {
    fuzz(&targets::head::TARGET);
}

#[test]
fn made_up_requests_are_served_or_refused_in_whatever_pieces_they_come() {
    fuzz(&targets::request::TARGET);
}

#[test]
fn made_up_output_is_sorted_alike_in_whatever_pieces_it_comes() {
    fuzz(&targets::stdio::TARGET);
}

#[test]
fn made_up_frames_are_read_alike_in_whatever_pieces_they_come() {
    fuzz(&targets::websocket::TARGET);
}

fn fuzz(target: &Target) {
    let seed = setting("SEED").unwrap_or(SEED);
    let only = setting("RUN");
    let runs = match (only, setting("RUNS").unwrap_or(target.runs)) {
        (Some(run), _) => run..run + 1,
        (None, runs) => 0..runs,
    };
    let began = Instant::now();
    let mut accepted = 0_u64;
    for run in runs.clone() {
        let input = target.input(&mut Random::new(seed, run));
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| (target.check)(&input)));
        let took = started.elapsed();
        match result {
            Ok(taken) if took < LONGEST_RUN => accepted += u64::from(taken),
            result => {
                let name = target.name;
                eprintln!(
                    "{name}: seed {seed}, run {run} of {}, after {took:?}: \"{}\"\nrepeat it with \
                     PLUGIN_RUNNER_FUZZ_SEED={seed} PLUGIN_RUNNER_FUZZ_RUN={run}",
                    runs.end,
                    input.escape_ascii()
                );
                if let Err(panic) = result {
                    resume_unwind(panic);
                }
                panic!("{name}: one run took {took:?}");
            }
        }
    }
    let (total, took) = (runs.end - runs.start, began.elapsed());
    println!(
        "{}: {total} runs with seed {seed} in {took:.1?}, {accepted} accepted",
        target.name
    );
    // A generator whose inputs are all refused, or all accepted, tests little.
    assert!(
        only.is_some() || accepted > total / 20 && accepted < total - total / 20,
        "{accepted} of {total} accepted"
    );
}

fn setting(name: &str) -> Option<u64> {
    let name = format!("PLUGIN_RUNNER_FUZZ_{name}");
    let value = std::env::var(&name).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}
