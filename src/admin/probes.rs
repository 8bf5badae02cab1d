//! Whether the server lives, and whether it is ready: for supervisors, which have no token and are told one word.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::call::Call;
use crate::error::Error;
use crate::http::Response;

/// How long the host's parts have to answer. Probes of supervisors often wait for a few seconds.
const LIMIT: Duration = Duration::from_secs(2);

const MEDIA_TYPE: &str = "text/plain; charset=utf-8";

/// Answers as long as there is a thread to do so.
pub(super) fn health(_: &mut Call<'_, '_>) -> Response {
    Response::bytes(200, MEDIA_TYPE, "ok\n")
}

/// Answers whether what is installed has been started, the host's threads answer and the store can be written.
pub(super) fn readiness(call: &mut Call<'_, '_>) -> Response {
    let manager = call.manager();
    let (status, word) = match manager.check(LIMIT) {
        Err(Error::ShutDown) => (503, "stopping\n"),
        Err(error) => {
            // Once, since those who ask need no token, and may ask at any rate.
            if !call.api.is_failing.swap(true, Ordering::Relaxed) {
                log::warn!("not ready: {error}");
            }
            (503, "failing\n")
        }
        Ok(()) => {
            if call.api.is_failing.swap(false, Ordering::Relaxed) {
                log::info!("ready again");
            }
            if manager.is_booted() {
                (200, "ready\n")
            } else {
                (503, "starting\n")
            }
        }
    };
    Response::bytes(status, MEDIA_TYPE, word).header("Cache-Control", "no-store")
}
