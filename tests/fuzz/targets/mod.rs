//! What is fuzzed: for each reader of foreign input a generator and a check. The seeded runner beside
//! this folder and the coverage-guided one in `guided` share them.
//!
//! A check is more than the absence of panics: it compares with a second opinion that shares no code
//! with the crate, or with the same input taken another way.

#![allow(
    dead_code,
    reason = "the guided runner and the seeded one each use a part"
)]

pub(crate) mod archive;
pub(crate) mod configuration;
pub(crate) mod envelope;
pub(crate) mod head;
mod json;
pub(crate) mod manifest;
mod mutation;
mod packets;
pub(crate) mod request;
pub(crate) mod stdio;
pub(crate) mod token;
pub(crate) mod url;
pub(crate) mod websocket;

use crate::random::Random;

/// One reader of foreign input.
pub(crate) struct Target {
    /// Its name, which is also that of its test.
    pub(crate) name: &'static str,
    /// Makes an input that is good, or nearly.
    pub(crate) generate: fn(&mut Random) -> Vec<u8>,
    /// Pieces that mean something to this target, for mutations.
    pub(crate) words: &'static [&'static [u8]],
    /// The longest input, in bytes.
    pub(crate) longest: usize,
    /// Panics when what must hold does not; gives whether the reader took the input.
    pub(crate) check: fn(&[u8]) -> bool,
    /// Runs in an ordinary test.
    pub(crate) runs: u64,
}

pub(crate) const ALL: [&Target; 10] = [
    &envelope::TARGET,
    &manifest::TARGET,
    &configuration::TARGET,
    &archive::TARGET,
    &url::TARGET,
    &token::TARGET,
    &head::TARGET,
    &request::TARGET,
    &stdio::TARGET,
    &websocket::TARGET,
];

impl Target {
    /// An input: half of them as the generator makes them, half damaged.
    pub(crate) fn input(&self, random: &mut Random) -> Vec<u8> {
        let mut input = (self.generate)(random);
        if random.one_in(2) {
            self.damage(random, &mut input);
        }
        input.truncate(self.longest);
        input
    }

    /// Damages an input.
    pub(crate) fn damage(&self, random: &mut Random, input: &mut Vec<u8>) {
        let other = (self.generate)(random);
        mutation::mutate(random, input, self.words, &other, self.longest);
    }
}
