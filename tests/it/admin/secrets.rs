//! Nobody sees the tokens, configurations or bodies: not in the log, and not in `Debug`.

use log::LevelFilter;
use serde_json::json;

use super::{Api, TOKEN};
use crate::manager::configuration::configurable;
use crate::support::LONG;
use crate::support::alone::run_alone;
use crate::support::log_lines::LogLines;
use crate::support::peer::Peer;

static LINES: LogLines = LogLines::new();

#[test]
fn each_request_has_a_line_in_the_log_without_anything_secret() {
    run_alone("admin::secrets::requests_that_are_logged");
}

#[test]
#[ignore = "takes the process's logger; run by another test, in a process of its own"]
fn requests_that_are_logged() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(LevelFilter::Debug);
    let api = Api::new("admin-log");
    let body = json!({"mode": "external", "manifest": configurable("outside")});
    let added = api.json("POST", "/api/plugins", &body).value(200);
    let id = added["id"].as_str().unwrap();
    let token = added["connection"]["token"].as_str().unwrap();
    let target = format!("/rpc?token={token}");
    let peer = Peer::connect(api.managed.host.address(), &target);
    let session = api.managed.session(id.parse().unwrap());
    session
        .wait_for(plugin_runner::ReportedState::Active, LONG)
        .unwrap();
    let path = format!("/api/plugins/{id}/configuration");
    let wrong = json!({"limit": "hush-configuration"});
    api.json("PATCH", &path, &wrong).problem(400);
    let answering = std::thread::spawn(move || {
        let mut peer = peer;
        let id = peer.receive()["id"].clone();
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"ok": true}});
        peer.send(answer.to_string());
        peer
    });
    let right = json!({"channel": "hush-configuration"});
    api.json("PATCH", &path, &right).value(200);
    let _peer = answering.join().unwrap();
    api.get("/api/plugins?key=hush-query").value(200);
    let stranger = [("Authorization", "Bearer hush-of-a-stranger")];
    api.send_without_token("GET", "/api/plugins", &stranger, b"")
        .problem(401);
    let hostile = "/api/%0Aforged%1B[2J";
    api.get(hostile).problem(404);
    let debug = format!("{:?}", api.server);
    let renewed = api
        .send("POST", &format!("/api/plugins/{id}/token"), &[], b"")
        .value(200);
    api.end();

    let lines = LINES.0.lock();
    for line in [
        "POST /api/plugins: 200 after ".to_owned(),
        format!("PATCH {path}: 400 after "),
        format!("PATCH {path}: 200 after "),
        "GET /api/plugins: 200 after ".to_owned(),
        "GET /api/plugins: 401 after ".to_owned(),
        format!("GET {hostile}: 404 after "),
    ] {
        assert!(
            lines.iter().any(|found| found.starts_with(&line)),
            "no {line:?}: {lines:#?}"
        );
    }
    let secrets = [TOKEN, token, renewed["token"].as_str().unwrap(), "hush"];
    for line in lines.iter().chain([&debug]) {
        let has_secret = secrets.iter().any(|secret| line.contains(secret));
        assert!(!has_secret, "{line}");
    }
}
