//! Following what a plugin prints, as server-sent events.
//!
//! | event | when | data |
//! | --- | --- | --- |
//! | without a name | a line | the line |
//! | `gap` | lines were deleted before they could be sent | `{"files": …, "bytes": …}`: how much is missing, or `null` |
//! | `end` | nothing more comes | why |
//!
//! It begins with the oldest line that is kept, or with the last ones that the query `tail` asks for. A comment
//! comes when nothing else has for [`HEARTBEAT`].

use std::time::{Duration, Instant};

use super::call::{Call, LOOK};
use super::problem::Problem;
use crate::error::Error;
use crate::http::{Event, EventStream, Response};
use crate::plugin_log::{Followed, Follower};

/// How long nothing is sent at most, so that proxies keep the connection and a client that is gone is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn follow(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let id = call.id()?;
    let tail = call.query("tail").map(|tail| {
        tail.parse()
            .map_err(|_| Problem::bad_request("`tail` must be a number of lines"))
    });
    let mut follower = call.manager().follow_log(id)?;
    if let Some(lines) = tail.transpose()? {
        follower = follower.last(lines)?;
    }
    Ok(Response::events(move |stream| send(&mut follower, stream)))
}

/// Sends what is printed, until the plugin is removed, the client goes away or the server stops.
fn send(follower: &mut Follower, stream: &mut EventStream<'_>) {
    let mut sent = Instant::now();
    while stream.is_open() {
        let event = match follower.next(LOOK) {
            Ok(Followed::Line(line)) => stream.send(&Event {
                data: &line,
                ..Event::default()
            }),
            Ok(Followed::Gap { files, bytes }) => stream.send(&Event {
                name: Some("gap"),
                data: &serde_json::json!({ "files": files, "bytes": bytes }).to_string(),
                ..Event::default()
            }),
            Err(error) if error.is_timeout() && sent.elapsed() < HEARTBEAT => continue,
            Err(error) if error.is_timeout() => stream.comment(""),
            Err(error) => return end(&error, stream),
        };
        if event.is_err() {
            return;
        }
        sent = Instant::now();
    }
}

fn end(error: &Error, stream: &mut EventStream<'_>) {
    let reason = match error {
        Error::NotInstalled(_) => "the plugin was removed".to_owned(),
        error => {
            log::warn!("the log of a plugin cannot be followed: {error}");
            error.to_string()
        }
    };
    // A client that is gone needs no reason.
    let _ = stream.send(&Event {
        name: Some("end"),
        data: &reason,
        ..Event::default()
    });
}
