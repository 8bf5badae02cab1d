//! Checks that an implementation of [`Store`](super::Store) does what the host relies on.
