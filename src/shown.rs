//! How times, paths and errors are serialised where an admin API shows them.

#![allow(clippy::ref_option, reason = "serde passes references to fields")]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::error::Error;
use crate::id::InstallationId;

/// Returns the seconds since 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> f64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

pub(crate) fn seconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

pub(crate) fn optional_seconds<S: Serializer>(
    time: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(to)
}

/// What is no UTF-8 is replaced: a plugin may name its files as it likes, and that must not fail.
pub(crate) fn optional_path<S: Serializer>(
    path: &Option<PathBuf>,
    to: S,
) -> Result<S::Ok, S::Error> {
    path.as_deref().map(Path::to_string_lossy).serialize(to)
}

pub(crate) fn text<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

/// Seconds since 1970.
pub(crate) fn time<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(unix_seconds(*time))
}

/// Seconds since 1970.
pub(crate) fn optional_time<S: Serializer>(
    time: &Option<SystemTime>,
    to: S,
) -> Result<S::Ok, S::Error> {
    time.map(unix_seconds).serialize(to)
}

/// Files that were left behind, and why.
pub(crate) fn left<S: Serializer>(left: &[(PathBuf, String)], to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Left<'a> {
        path: std::borrow::Cow<'a, str>,
        reason: &'a str,
    }
    to.collect_seq(left.iter().map(|(path, reason)| Left {
        path: path.to_string_lossy(),
        reason,
    }))
}

/// Plugins that failed, and why.
pub(crate) fn failed<S: Serializer>(
    failed: &[(InstallationId, Error)],
    to: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Failed<'a> {
        id: InstallationId,
        #[serde(flatten)]
        error: &'a Error,
    }
    to.collect_seq(failed.iter().map(|(id, error)| Failed { id: *id, error }))
}

/// Plugins of which processes are left, and how many, in words.
pub(crate) fn descendants<S: Serializer>(
    left: &[(InstallationId, String)],
    to: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Left<'a> {
        id: InstallationId,
        descendants: &'a str,
    }
    to.collect_seq(left.iter().map(|(id, descendants)| Left {
        id: *id,
        descendants,
    }))
}
