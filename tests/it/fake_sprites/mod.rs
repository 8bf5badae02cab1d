//! The fake of the Sprites service does what the service's documents say, and what its switches say.

mod faults;
mod sockets;
#[cfg(feature = "fetch")]
mod tls;
mod walk;

use serde_json::{Value, json};

use crate::sprites::Fake;
use crate::support::http::{Answer, Request, connect, exchange};
use crate::support::peer::Peer;

/// One request, over a connection of its own.
#[track_caller]
pub(crate) fn call(fake: &Fake, method: &str, target: &str, body: &str) -> Answer {
    exchange(
        connect(fake.address()),
        request(fake, method, target, body).as_bytes(),
    )
}

fn request(fake: &Fake, method: &str, target: &str, body: &str) -> String {
    let request = Request::get(target)
        .method(method)
        .with("Authorization", &format!("Bearer {}", fake.token()))
        .with("Connection", "close")
        .with("Content-Length", &body.len().to_string());
    request.to_text() + body
}

/// Makes a sprite.
#[track_caller]
pub(crate) fn create(fake: &Fake, name: &str) -> Answer {
    call(
        fake,
        "POST",
        "/v1/sprites",
        &json!({"name": name}).to_string(),
    )
}

/// A socket of a session, started or attached to.
#[track_caller]
fn socket(fake: &Fake, target: &str) -> Peer {
    Peer::upgraded(upgrade(fake, target))
}

#[track_caller]
fn upgrade(fake: &Fake, target: &str) -> Answer {
    Request::upgrade(target)
        .with("Authorization", &format!("Bearer {}", fake.token()))
        .send(fake.address())
}

/// Starts a shell script on the sprite `one`, with input.
fn script(text: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for word in ["sh", "-c", text] {
        query.append_pair("cmd", word);
    }
    query.append_pair("stdin", "true");
    query.append_pair("max_run_after_disconnect", "60s");
    format!("/v1/sprites/one/exec?{}", query.finish())
}

/// The ids of the sessions that are listed for the sprite `one`.
#[track_caller]
fn listed(fake: &Fake) -> Vec<String> {
    let answer = call(fake, "GET", "/v1/sprites/one/exec", "");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let sessions = body["sessions"].as_array().unwrap().iter();
    let ids = sessions.map(|session| session["id"].as_str().unwrap().to_owned());
    ids.collect()
}
