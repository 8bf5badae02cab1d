//! What all benches share: how they are asked, how they measure and how they show it.
//!
//! A bench sets up [`Case`]s, each beside its limit: code that does only what cannot be avoided, with
//! the same payload in the same run. [`Bench::group`] runs their rounds in turns, so that what else
//! the machine does falls on all of them, and compares round with round.

#![allow(dead_code, unused_imports, reason = "each bench uses its part")]

mod arguments;
mod case;
mod measure;
pub(crate) mod plugins;
mod report;
mod sample;

pub(crate) use arguments::Effort;
pub(crate) use case::{By, Case, Target};
pub(crate) use measure::{cpu_time, latencies, pinned};
pub(crate) use report::Bench;
pub(crate) use sample::{Sample, Unit};

use std::time::Duration;

/// Longer than anything in a bench takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);
