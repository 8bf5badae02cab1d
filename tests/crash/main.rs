//! The manager under SIGKILL. A driver process does random operations on installations, on a real
//! database, with real plugins; it is killed at random moments and at every named point in the code.
//! After each kill the folder is opened again, by the test, and looked at: every operation that was
//! acknowledged has happened, the one that was not has happened wholly or not at all, no file is there
//! that should not be, the database is sound, and every plugin that is wanted active comes up.
//!
//! `PLUGIN_RUNNER_CRASH_TRIALS` says how many kills, `PLUGIN_RUNNER_CRASH_SEED` replays the choice of
//! operations and of moments; how exactly they meet is the system's.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod driver;
mod folder;
mod model;
mod operation;
#[allow(dead_code, reason = "shared with the fuzz tests, which use all of it")]
#[path = "../support/random.rs"]
mod random;
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use plugin_runner::fault;

use driver::Driver;
use model::Model;
use random::Random;
use support::{TestDir, number};

/// Where the driver is killed by itself.
const POINTS: [&str; 10] = [
    fault::RECEIVED,
    fault::UNPACKED,
    fault::ARCHIVED,
    fault::RECORDED,
    fault::MIGRATED,
    fault::TRIED,
    fault::UNLOADED,
    fault::UNRECORDED,
    fault::PROPOSED,
    fault::AGREED,
];

#[test]
fn nothing_acknowledged_is_lost_and_nothing_half_is_left() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("PLUGIN_RUNNER_CRASH_SEED").unwrap_or(now.as_secs());
    // Enough for each point once, and as many random moments.
    let trials = number("PLUGIN_RUNNER_CRASH_TRIALS").unwrap_or(20);
    println!("seed {seed}, {trials} trials");
    let began = Instant::now();
    let folder = TestDir::new("crash");
    let mut model = Model::default();
    let mut operations = BTreeMap::<&str, u64>::new();
    let mut cut_short = BTreeMap::<&str, u64>::new();
    let mut at_points = BTreeMap::<&str, u64>::new();
    for trial in 0..trials {
        let mut random = Random::new(seed, trial);
        // Every second one at a point, all of them by turns.
        let point =
            (trial % 2 == 1).then(|| POINTS[usize::try_from(trial / 2).unwrap() % POINTS.len()]);
        let settings = driver::Settings {
            seed: random.next(),
            boots: random.one_in(2),
            point: point.map(str::to_owned),
            spared: u32::try_from(random.below(3)).unwrap(),
        };
        let mut driver = Driver::start(folder.path(), &settings);
        // At a point it kills itself, unless its operations do not lead there soon enough.
        let begun = if point.is_some() {
            60
        } else {
            random.below(30)
        };
        let linger = Duration::from_micros(random.next() % 20_000);
        let killed_itself = driver.run_until(begun, linger);
        if let (true, Some(point)) = (killed_itself, point) {
            *at_points.entry(point).or_default() += 1;
        }
        for entry in driver.entries() {
            if model.note(entry) {
                *operations.entry(entry.name()).or_default() += 1;
            }
        }
        for under_way in model.under_way() {
            *cut_short.entry(under_way.name()).or_default() += 1;
        }
        let what = format!("seed {seed}, trial {trial} ({settings:?})");
        folder::check(folder.path(), &mut model, &what);
    }
    println!(
        "{trials} kills in {:?}: {} operations acknowledged {operations:?}, cut short {cut_short:?}, killed at points {at_points:?}",
        began.elapsed(),
        operations.values().sum::<u64>(),
    );
}

#[test]
#[ignore = "is killed; run by the other test, in a process of its own"]
fn driver() {
    driver::drive();
}
