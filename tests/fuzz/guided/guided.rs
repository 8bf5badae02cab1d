//! The targets of the seeded fuzz tests under libFuzzer, which keeps what reaches new code and changes
//! that further. `PLUGIN_RUNNER_FUZZ_TARGET` says which target; how to run it is in Cargo.toml.

#![no_main]

#[path = "../../support/random.rs"]
mod random;
#[path = "../targets/mod.rs"]
mod targets;

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use random::Random;
use targets::{ALL, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("PLUGIN_RUNNER_FUZZ_TARGET").unwrap_or_default();
    let known = || ALL.map(|target| target.name).join(", ");
    ALL.into_iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("PLUGIN_RUNNER_FUZZ_TARGET must be one of {}", known()))
});

fuzz_target!(|input: &[u8]| {
    (TARGET.check)(input);
});

// libFuzzer's own changes, those of the seeded tests, and now and then an input from the grammar.
fuzz_mutator!(|buffer: &mut [u8], size: usize, most: usize, seed: u32| {
    let mut random = Random::new(u64::from(seed), 0);
    let input = match random.below(8) {
        0 => TARGET.input(&mut random),
        1 | 2 => {
            let mut input = buffer[..size].to_vec();
            TARGET.damage(&mut random, &mut input);
            input
        }
        _ => return fuzzer_mutate(buffer, size, most),
    };
    let length = input.len().min(most);
    buffer[..length].copy_from_slice(&input[..length]);
    length
});
