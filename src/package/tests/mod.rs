//! Tests of the module as a whole: hostile archives, and what a plugin may do to its directories.

mod corpus;
mod traps;
