//! Inner parts that fuzzing has to reach, behind the private feature `_fuzzing`. No logic, and not
//! part of the API: everything else that is fuzzed is public anyway.

pub use crate::listener::fuzzing::{HeadVerdict, judge_head};
