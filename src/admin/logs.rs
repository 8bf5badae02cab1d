//! Following what a plugin prints, as server-sent events.
//!
//! | event | when | data |
//! | --- | --- | --- |
//! | without a name | a line | the line |
//! | `gap` | lines were deleted before they could be sent | `{"files": …, "bytes": …}`: how much is missing, or `null` |
//! | `end` | nothing more comes | why |
//!
//! Every line and every gap has an id, and the stream begins with one. It goes on behind the id that the header
//! `Last-Event-ID` has, which browsers send when they connect again, or else behind that of the query `after`. If
//! there is none, it begins with the last lines that the query `tail` asks for, or with the oldest one that is
//! kept; the query `since` begins with what was printed from a time on. With the query `times=true` the data of a line
//! is `{"at": …, "line": …}`, where `at` is when it was printed, or `null`. A comment comes when nothing else has for [`HEARTBEAT`]. With the query `follow=false` the stream ends where
//! the log does at that moment.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use super::call::{Call, LOOK};
use super::installation::rfc3339;
use super::problem::Problem;
use crate::error::Error;
use crate::http::{Event, EventStream, Response};
use crate::plugin_log::{Followed, Follower};

/// How long nothing is sent at most, so that proxies keep the connection and a client that is gone is noticed.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn follow(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let id = call.id()?;
    let tail = call.query("tail").map(|tail| {
        tail.parse()
            .map_err(|_| Problem::bad_request("`tail` must be a number of lines"))
    });
    let tail = tail.transpose()?;
    let since = call.query("since").map(|since| {
        humantime::parse_rfc3339(&since).map_err(|_| {
            Problem::bad_request("`since` must be a time in UTC, such as 2026-02-21T11:50:22Z")
        })
    });
    let since = since.transpose()?;
    if since.is_some() && tail.is_some() {
        return Err(Problem::bad_request(
            "`since` and `tail` exclude each other",
        ));
    }
    let times = call.flag("times", false)?;
    let follows = call.flag("follow", true)?;
    let resumed = call.request.header("Last-Event-ID").map(Cow::Borrowed);
    let place = resumed.or_else(|| call.query("after"));
    let follower = call.manager().follow_log(id)?;
    let mut follower = match (place, since, tail) {
        // A browser that connects again still has the others in its URL.
        (Some(place), _, _) => follower.after(&place)?,
        (None, Some(time), _) => follower.since(time)?,
        (None, None, Some(lines)) => follower.last(lines)?,
        (None, None, None) => follower,
    };
    Ok(Response::events(move |stream| {
        if stream.send_id(&follower.place()).is_ok() {
            send(&mut follower, follows, times, stream);
        }
    }))
}

/// Sends what is printed, until the plugin is removed, the client goes away or the server stops; or, if the log is
/// not followed, until its end.
fn send(follower: &mut Follower, follows: bool, times: bool, stream: &mut EventStream<'_>) {
    let mut sent = Instant::now();
    let wait = if follows { LOOK } else { Duration::ZERO };
    while stream.is_open() {
        let next = follower.next(wait);
        let event = match next {
            Ok(Followed::Line(mut line)) => {
                if times {
                    let at = follower.printed_at().map(rfc3339);
                    line = serde_json::json!({ "at": at, "line": line }).to_string();
                }
                stream.send(&Event {
                    id: Some(&follower.place()),
                    name: None,
                    data: &line,
                })
            }
            Ok(Followed::Gap { files, bytes }) => stream.send(&Event {
                id: Some(&follower.place()),
                name: Some("gap"),
                data: &serde_json::json!({ "files": files, "bytes": bytes }).to_string(),
            }),
            Err(error) if error.is_timeout() && !follows => {
                return end("that is all so far", stream);
            }
            Err(error) if error.is_timeout() && sent.elapsed() < HEARTBEAT => continue,
            Err(error) if error.is_timeout() => stream.comment(""),
            Err(error) => return end(&reason(&error), stream),
        };
        if event.is_err() {
            return;
        }
        sent = Instant::now();
    }
}

fn reason(error: &Error) -> String {
    match error {
        Error::NotInstalled(_) => "the plugin was removed".to_owned(),
        error => {
            log::warn!("the log of a plugin cannot be followed: {error}");
            error.to_string()
        }
    }
}

fn end(reason: &str, stream: &mut EventStream<'_>) {
    // A client that is gone needs no reason.
    let _ = stream.send(&Event {
        name: Some("end"),
        data: reason,
        ..Event::default()
    });
}
