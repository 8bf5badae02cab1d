//! What plugins say of themselves reaches the host's log and its errors on one line, escaped and cut.

use crate::support::alone::run_alone;

#[test]
fn no_log_line_is_forged_steered_or_flooded_by_a_plugin() {
    run_alone("foreign_text::alone::hostile_plugins_are_shown_harmlessly");
}

mod alone {
    use plugin_runner::error::RpcError;
    use plugin_runner::protocol::Manifest;
    use plugin_runner::store::Record;
    use plugin_runner::text::needs_escape;
    use plugin_runner::{ReportedState, Session};
    use serde_json::{Value, json};

    use crate::support::frames::{CLOSE, FINAL, RawPeer, frame, text};
    use crate::support::host::{TestHost, active};
    use crate::support::http::Request;
    use crate::support::log_lines::LogLines;
    use crate::support::plugin::{command, connectable, external, manifest, over_stdio, shell};
    use crate::support::{LONG, wait_until};

    /// A forged line, an escape, and what turns the rest of a line around; and a lot of it.
    const HOSTILE: &str =
        "evil\n2026-01-01 [INFO] forged\r\u{1b}[2J\u{9b}31m\u{202e}\u{2028}\u{7f}";

    fn hostile(times: usize) -> String {
        HOSTILE.repeat(times)
    }

    /// Fits into nothing that is meant to be read.
    fn long() -> String {
        hostile(1_000_000 / HOSTILE.len())
    }

    static LINES: LogLines = LogLines::new();

    #[test]
    #[ignore = "takes the process's logger; run by another test, in a process of its own"]
    fn hostile_plugins_are_shown_harmlessly() {
        log::set_logger(&LINES).unwrap();
        log::set_max_level(log::LevelFilter::Debug);
        let host = TestHost::with("foreign-text", |setup| {
            setup.policy(|policy| policy.max_restart_attempts(0));
            setup.configure(|builder| {
                builder.method_raw("fail", |_, _| Err(RpcError::new(7, long())))
            });
        });
        outside(&host);
        a_command_that_is_not_there(&host);
        a_panicking_handler();

        let lines = LINES.0.lock();
        for line in lines.iter() {
            assert_harmless(line);
        }
        for part in [
            "(code 4000, evil",
            "without an id: evil",
            "/rpc from 127",
            "evil",
            "giving up",
            "handler of panic panicked: evil",
        ] {
            assert!(
                lines.iter().any(|line| line.contains(part)),
                "no {part:?} in {lines:#?}"
            );
        }
    }

    #[track_caller]
    fn assert_harmless(text: &str) {
        assert!(!text.contains(needs_escape), "{text:?}");
        assert!(text.len() < 5000, "{} bytes: {}", text.len(), &text[..200]);
    }

    /// A plugin that is hostile in all it says over its connection.
    fn outside(host: &TestHost) {
        let record = Record::external(Manifest {
            events_consumed: vec!["happened".to_owned()],
            id: HOSTILE.to_owned(),
            name: HOSTILE.to_owned(),
            version: HOSTILE.to_owned(),
            ..manifest("x")
        })
        .unwrap();
        let (session, target) = connectable(host, record);
        let answer = Request::upgrade(&target)
            .without("User-Agent")
            .with("User-Agent", "evil \u{9b}31m\u{202e}\u{2028}")
            .send(host.address());
        assert_eq!(answer.status, 101, "{}", answer.body);
        let mut peer = RawPeer(answer.stream);
        active(&session);

        let name = serde_json::to_string(&hostile(10_000)).unwrap();
        peer.send(&text(&format!(r#"{{"method":{name}}}"#)));
        peer.send(&text(&format!(r#"{{"id":1,"method":{name},"params":[]}}"#)));
        peer.send(&text(r#"{"id":2,"method":"fail"}"#));
        for _ in 0..2 {
            let answer = next(&mut peer);
            assert!(answer["error"]["message"].as_str().unwrap().len() < 5000);
        }

        let refused = said_no(&session, &mut peer, &long());
        assert_harmless(&refused);
        assert!(refused.contains("evil"), "{refused}");
        host.publish("happened", &json!({})).unwrap();
        let event = next(&mut peer);
        refuse(&mut peer, &event, &long());

        let mut reason = 4000_u16.to_be_bytes().to_vec();
        reason.extend(HOSTILE.as_bytes());
        peer.send(&frame(FINAL | CLOSE, &reason));
        session.wait_for(ReportedState::Connecting, LONG).unwrap();
        let message = session.error_message().unwrap();
        assert_harmless(&message);
        assert!(message.contains("evil"), "{message}");
        assert_harmless(
            &session
                .call_raw("x", &json!({}), LONG)
                .unwrap_err()
                .to_string(),
        );
        // Its log line comes after the state.
        host.unload(session.id()).unwrap();
        wait_for("event not delivered");
        wait_for("(code 4000");
    }

    fn said_no(session: &Session, peer: &mut RawPeer, text: &str) -> String {
        let pending = session.start_call_raw("x", &json!({}), LONG).unwrap();
        let call = next(peer);
        refuse(peer, &call, text);
        pending.wait().unwrap_err().to_string()
    }

    #[track_caller]
    fn next(peer: &mut RawPeer) -> Value {
        let (_, payload) = peer.next().expect("a message");
        serde_json::from_slice(&payload).unwrap()
    }

    fn refuse(peer: &mut RawPeer, call: &Value, message: &str) {
        let error = json!({"code": 1, "message": message});
        let answer = json!({"jsonrpc": "2.0", "id": call["id"], "error": error});
        peer.send(&text(&answer.to_string()));
    }

    fn a_command_that_is_not_there(host: &TestHost) {
        let no_such = command(host, "gone", &format!("./{HOSTILE}"), &[]);
        // What it prints is its own affair, and stays as it is.
        let failing = over_stdio(shell(host, "failing", r"printf 'evil\033[2J\n'; exit 3"));
        for record in [no_such, failing] {
            let session = host.start(record);
            session.wait_for(ReportedState::Errored, LONG).unwrap();
            assert_harmless(&session.error_message().unwrap());
        }
        host.output.wait_for("of the failing", |line| {
            (line.text == "evil\u{1b}[2J").then_some(())
        });
    }

    /// A panic that quotes what a plugin said.
    fn a_panicking_handler() {
        let host = TestHost::with("foreign-panic", |setup| {
            setup.configure(|builder| builder.method_raw("panic", |_, _| panic!("{}", long())));
        });
        let (session, target) = external(&host, "panicker");
        let mut peer = RawPeer::connect(host.address(), &target);
        active(&session);
        peer.send(&text(r#"{"id":3,"method":"panic"}"#));
        assert_eq!(next(&mut peer)["id"], 3);
    }

    #[track_caller]
    fn wait_for(part: &str) {
        wait_until(part, || {
            LINES.0.lock().iter().any(|line| line.contains(part))
        });
    }
}
