//! The end while much is under way.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::Server;
use crate::program::{Scratch, is_alive, text};
use crate::support::http::{Request, connect};
use crate::support::{names, wait_until};

/// What a stop may take: 20 s, as its help says, and some more on a busy machine.
const STOP: Duration = Duration::from_secs(25);

#[test]
fn streams_uploads_calls_and_half_requests_do_not_hold_up_the_end() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "");
    let plugins = server.plugin_address();
    let id = server.obedient(&scratch);
    let plugin = server.active(id);
    let mut log = server.follow(id, None);
    let mut upload = connect(server.admin_address());
    let head = format!(
        "POST /api/plugins HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\
         Content-Type: application/zip\r\nContent-Length: 1000000\r\n\r\nPK\u{3}\u{4}",
        server.bearer()
    );
    upload.write_all(head.as_bytes()).unwrap();
    let incoming = server.data.join("incoming");
    wait_until("an upload in progress", || !names(&incoming).is_empty());
    let (agent, bearer) = (server.agent.clone(), server.bearer());
    let url = format!("{}/api/plugins/{id}/rpc", server.url);
    let call = thread::spawn(move || {
        let request = agent.post(url).header("Authorization", bearer);
        let request = request.header("Content-Type", "application/json");
        request.send(&*json!({"method": "wait", "timeout": 600}).to_string())
    });
    while log.data() != "waiting" {}
    let half = Request::get("/rpc").to_text();
    let half = &half.as_bytes()[..20];
    let hanging = [plugins, server.admin_address()].map(|address| {
        let mut stream = connect(address);
        stream.write_all(half).unwrap();
        stream
    });

    let asked = Instant::now();
    server.program.signal(Signal::TERM);
    let output = server.program.end();
    let (said, took) = (text(&output.stderr), asked.elapsed());
    assert!(took < STOP, "the stop took {took:?}: {said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("stopping; once more to kill"), "{said}");
    assert!(
        said.contains("is answered with 503: the server stops"),
        "{said}"
    );
    assert!(said.lines().last().unwrap().ends_with("stopped"), "{said}");
    assert!(!is_alive(plugin));
    while log.next().is_some() {}
    let answer = call.join().unwrap().expect("an answer to the call");
    assert_eq!(answer.status(), 503);
    drop((upload, hanging));
    // What was being received goes with the next start at the latest.
    let again = Server::start(&scratch, "");
    assert_eq!(names(&incoming), [""; 0]);
    assert_eq!(again.plugins().as_array().unwrap().len(), 1);
    again.active_after(id, 1);
    again.program.stop();
    scratch.assert_nothing_left();
}
