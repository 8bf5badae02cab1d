//! What plugins print beside their messages, and what they send in place of them: no call fails for what
//! is printed, and who waits in vain learns what came instead.

use std::time::{Duration, Instant};

use plugin_runner::ReportedState::{Active, Connecting, Restarting, Starting};
use plugin_runner::plugin_log::LogStream;
use plugin_runner::report::{EndCause, ExitReason};
use plugin_runner::store::Record;
use plugin_runner::{Error, Session};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::host::{Setup, TestHost, active};
use crate::support::peer::Peer;
use crate::support::plugin::{call, command, external, over_stdio, shell, url_printer};
use crate::support::{LONG, assert_matches, skipped};

const ANSWER: &str = r#"{"jsonrpc":"2.0","id":"ID","result":{}}"#;

fn script(host: &TestHost, program: &str, name: &str, args: &[&str]) -> Record {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let args: Vec<&str> = std::iter::once(&*path)
        .chain(args.iter().copied())
        .collect();
    over_stdio(command(host, "odd", program, &args))
}

/// A plugin that answers with the lines that it is told, and its first ping with these, if any.
fn odd(host: &TestHost, first: &[&str]) -> Session {
    host.run(script(host, "python3", "odd_plugin.py", first))
}

fn say(session: &Session, lines: &Value, limit: Duration) -> Result<(), Error> {
    let params = json!({ "lines": lines });
    session.call_raw("say", &params, limit).map(drop)
}

#[test]
fn plugins_that_print_what_they_read_and_what_they_send_fail_no_call() {
    let host = TestHost::new("odd-printing");
    let sh = r#"while read -r line; do
        case $line in *'"method"'*) ;; *) continue ;; esac
        id=${line#*'"id":"'}; id=${id%%'"'*}; echo "got $line"; echo "$line"
        echo "{\"level\":\"error\",\"id\":\"$id\",\"error\":\"none\"}"
        echo "sending {\"id\":\"$id\",\"result\":{\"echo\":{}}}"
        echo "{\"id\":\"$id\",\"result\":{\"echo\":${line##*'"params":'}}"; done"#;
    let mut records = vec![
        script(&host, "python3", "printing_plugin.py", &[]),
        over_stdio(shell(&host, "printing-sh", sh)),
    ];
    if std::process::Command::new("node")
        .arg("--version")
        .output()
        .is_ok()
    {
        records.push(script(&host, "node", "printing_plugin.js", &[]));
    } else {
        skipped(
            "plugins_that_print_what_they_read",
            "in Node, which is not there",
        );
    }
    for record in records {
        let name = record.manifest.command.clone();
        let session = host.run(record);
        for number in 0..50 {
            let answer = call(&session, "echo", &json!({ "number": number }));
            let answer = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(answer["echo"]["number"], number, "{name}");
        }
        assert_eq!(
            session.counters().inbound_calls,
            0,
            "{name}: an echo is no call"
        );
        assert_eq!(session.reported_state(), Active);
    }
}

#[test]
fn an_answer_within_a_line_of_output_fails_its_call_after_a_second() {
    let host = TestHost::new("odd-within");
    let session = odd(&host, &[]);
    for line in [
        format!("sending {ANSWER}"),
        r#"{"level":"debug","id":"ID","error":"no"}"#.to_owned(),
        r#"{"reply":{"id":"ID","result":{}}}"#.to_owned(),
        r#"{"id":"ID","error":{"message":"no"}}"#.to_owned(),
    ] {
        let began = Instant::now();
        let error = say(&session, &json!([line]), LONG).unwrap_err();
        assert_matches!(error, Error::InvalidReply { .. }, "{line}");
        assert!(
            began.elapsed() >= Duration::from_secs(1),
            "{line}: too soon"
        );
        assert!(began.elapsed() < LONG / 2, "{line}: not before its time");
        let beginning = line.split("ID").next().unwrap();
        assert!(error.to_string().contains(beginning), "{error}");
        // An answer in time counts, whatever was printed before.
        say(&session, &json!([line, 0.3, ANSWER]), LONG).unwrap();
    }
}

#[test]
fn who_waits_in_vain_is_told_what_came_instead() {
    let host = TestHost::new("odd-instead");
    let session = odd(&host, &[]);
    for (line, shown) in [
        (
            r#"{"jsonrpc":"2.0","id":"ID","result":{"value":NaN}}"#,
            "NaN",
        ),
        (r#"{"jsonrpc":"2.0","id":"ID","#, r#"{"jsonrpc""#),
        (r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, r#""id":7"#),
        (
            r#"{"jsonrpc":"2.0","id":"d5k2m2c5o2dtjn9ct6bg","result":{}}"#,
            "d5k2m2",
        ),
        (
            r"{'jsonrpc': '2.0', 'id': 'ID', 'result': {}}",
            "{'jsonrpc'",
        ),
    ] {
        let error = say(&session, &json!([line]), Duration::from_secs(2)).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("is no answer to it") && text.contains(shown),
            "{text}"
        );
    }
    // It has nothing to do with the next.
    let error = say(&session, &json!(["listening"]), Duration::from_millis(200)).unwrap_err();
    assert!(!error.to_string().contains("no answer to it"), "{error}");
}

#[test]
fn log_lines_in_json_are_output_whatever_members_they_have() {
    let host = TestHost::new("odd-json-logs");
    let session = odd(&host, &[]);
    let lines = [
        r#"{"level":"error","ts":1.5,"msg":"failed","error":"no route"}"#,
        r#"{"level":"info","id":7,"method":"GET","msg":"served"}"#,
        r#"{"id":7,"method":"plugin.get_config"}"#,
        r#"{"level":"info","result":"ok"}"#,
    ];
    let mut said: Vec<&str> = lines.to_vec();
    said.push(ANSWER);
    say(&session, &json!(said), LONG).unwrap();
    host.output.wait_for("the last of them", |line| {
        (line.plugin == session.id() && line.text == lines[3]).then_some(())
    });
    let printed = host.output.texts(session.id());
    assert_eq!(printed, lines, "each once, and nothing is answered");
    assert_eq!(session.counters().inbound_calls, 0);
    assert_eq!(session.counters().unreadable, 0);
}

#[test]
fn output_of_any_length_is_no_end_of_a_connection() {
    let host = TestHost::new("odd-long");
    let session = odd(&host, &[]);
    // What the script makes of it is longer than it may be sent.
    let long = "ID".repeat(300_000);
    for line in [
        long.clone(),
        format!(r#"{{"level":"info","text":"{long}"}}"#),
    ] {
        say(&session, &json!([line, ANSWER]), LONG).unwrap();
    }
    assert_eq!(session.counters().connections, 1);
    assert_eq!(session.reported_state(), Active);
}

#[test]
fn any_answer_to_the_first_ping_is_a_sign_of_life() {
    let host = TestHost::new("odd-first");
    for answer in [
        r#"{"jsonrpc":"2.0","id":"ID","error":{"code":-32602,"message":"not initialized"}}"#,
        r#"{"jsonrpc":"2.0","id":"ID","error":"what"}"#,
        r#"{"id":"ID","result":null}"#,
        "\u{feff}{\"jsonrpc\":2.0,\"id\":\"ID\",\"result\":{}}",
    ] {
        let session = odd(&host, &[answer]);
        active(&session);
        host.unload(session.id()).unwrap();
    }
}

#[test]
fn no_plugin_becomes_active_by_dying() {
    // The next run may not begin before this one was looked at.
    let host = TestHost::with("odd-dying", |setup| {
        setup.policy(|policy| policy.max_backoff(LONG));
    });
    let dies = r#"read -r line; id=${line#*'"id":"'}; id=${id%%'"'*}
        printf '{"jsonrpc":"2.0","id":"%s","result":{}}' "$id""#;
    for _ in 0..20 {
        let mut events = host.events();
        let session = host.start(over_stdio(shell(&host, "dying", dies)));
        let change = events.expect(session.id(), &[Starting, Connecting, Restarting]);
        let message = change.message().unwrap_or_default();
        assert!(message.contains("without a line end"), "{message}");
        assert_eq!(session.counters().connections, 1);
        host.unload(session.id()).unwrap();
    }
}

#[test]
fn a_call_with_the_id_of_the_call_that_is_handled_is_no_echo() {
    let host = TestHost::new("odd-same-id");
    let session = odd(&host, &[]);
    let asks = r#"{"jsonrpc":"2.0","id":"ID","method":"get_config","params":{}}"#;
    say(&session, &json!([asks, ANSWER]), LONG).unwrap();
    assert_eq!(
        session.counters().inbound_calls,
        1,
        "{:?}",
        host.output.texts(session.id())
    );
    host.output.wait_for("the answer to its call", |line| {
        line.text.starts_with("answered:").then_some(())
    });
}

#[test]
fn what_an_active_plugin_says_last_does_not_hide_how_it_ended() {
    let host = TestHost::with("odd-last-words", Setup::stay_down_after_a_crash);
    let ends = r#"while read -r line; do id=${line#*'"id":"'}; id=${id%%'"'*}
        case $line in
        *'"leave"'*) printf '{"jsonrpc":"2.0","method":"bye"}'; exit STATUS ;;
        *) echo "{\"id\":\"$id\",\"result\":{}}" ;;
        esac; done"#;
    for status in [0, 3] {
        let script = ends.replace("STATUS", &status.to_string());
        let session = host.run(over_stdio(shell(&host, "leaving", &script)));
        let mut events = host.events();
        let error = call(&session, "leave", &json!({})).unwrap_err();
        assert!(error.to_string().contains("without a line end"), "{error}");
        events.until(session.id(), Restarting);
        let end = session.restart_history().pop().unwrap();
        assert_eq!(end.problem.exit(), Some(ExitReason::Code(status)));
        assert_eq!(
            end.problem.cause(),
            Some(EndCause::Exited),
            "{}",
            end.problem
        );
        host.unload(session.id()).unwrap();
    }
}

#[test]
fn on_a_websocket_an_answer_that_cannot_be_read_fails_its_call_at_once() {
    let host = TestHost::new("odd-websocket");
    let (session, target) = external(&host, "odd-websocket");
    let mut peer = Peer::connect(host.address(), &target);
    active(&session);
    for text in [
        r#"{"jsonrpc":"2.0","id":"ID","result":{"value":NaN}}"#,
        "{\"jsonrpc\":\"2.0\",\"id\":\"ID\",\"result\":{\"value\":\"\u{1}\"}}",
        r#"[{"jsonrpc":"2.0","id":"ID","result":{}}]"#,
    ] {
        for is_text in [true, false] {
            let began = Instant::now();
            let waiting = session.start_call_raw("echo", &json!({}), LONG).unwrap();
            let id = peer.receive()["id"].as_str().unwrap().to_owned();
            let said = text.replace("ID", &id);
            let message = if is_text {
                Message::text(said)
            } else {
                Message::binary(said.into_bytes())
            };
            peer.socket.send(message).unwrap();
            let error = waiting.wait().unwrap_err();
            assert_matches!(error, Error::InvalidReply { .. }, "{text}");
            assert!(began.elapsed() < LONG / 2, "{text}");
        }
    }
    let waiting = session.start_call_raw("echo", &json!({}), LONG).unwrap();
    let id = peer.receive()["id"].as_str().unwrap().to_owned();
    peer.send(format!("\u{feff}{}", ANSWER.replace("ID", &id)));
    waiting.wait().unwrap();
}

#[test]
fn who_wonders_why_a_plugin_is_not_active_is_told_after_a_while() {
    let host = TestHost::new("odd-hint");
    let hint_of = |record: Record| {
        let session = host.start(record);
        host.output.wait_for("a line of the host's", |line| {
            let is_it = line.plugin == session.id() && line.stream == LogStream::Host;
            is_it.then(|| line.text.clone())
        })
    };
    let answer = r"{'jsonrpc': '2.0', 'id': 'ID', 'result': {}}";
    let python = script(&host, "python3", "odd_plugin.py", &[answer]);
    let hint = hint_of(python);
    assert!(
        hint.contains("no answer to the first ping after 5s"),
        "{hint}"
    );
    assert!(hint.contains("be flushed; this came"), "{hint}");
    assert!(hint.contains("{'jsonrpc'"), "{hint}");
    let hint = hint_of(url_printer(&host, "odd-unconnected"));
    assert!(hint.contains("not connected after 5s"), "{hint}");
    assert!(hint.contains("STORYDEN_RPC_URL"), "{hint}");
}
