//! The protocol's own calls from plugins (PROTOCOL.md, "Plugin to host"), with and without a service
//! behind them.

use plugin_runner::call::InboundCall;
use plugin_runner::error::RpcError;
use plugin_runner::protocol::method::{RobotRun, RobotRunOutput, RobotRunReply, RobotRunStatus};
use plugin_runner::protocol::{AccessGrant, AccessShape, Manifest};
use plugin_runner::store::Record;
use plugin_runner::{Services, Xid};
use serde_json::{Value, json};

use crate::support::object;
use crate::support::plugin::With as _;
use crate::support::session::{Bench, GO, PYTHON};

const KEY: &str = "sdbak_3vK0exampleonly";
const ID: &str = r#""0o6a205tdo4tj2nt466b""#;

/// A host that gives access and runs Robots.
struct Generous;

impl Services for Generous {
    fn access_get(&self, call: &InboundCall) -> Result<AccessGrant, RpcError> {
        assert_eq!(call.manifest().access.as_ref().unwrap().handle, "helper");
        AccessGrant::new(KEY, "https://forum.example/en")
            .map_err(|error| RpcError::new(RpcError::INTERNAL, error.to_string()))
    }

    fn robot_run(&self, _call: &InboundCall, params: RobotRun) -> Result<RobotRunReply, RpcError> {
        Ok(RobotRunReply {
            session_id: "d5k2m9s5o2dtjn9ct6f0".parse().ok(),
            output: Some(RobotRunOutput {
                status: RobotRunStatus::Completed,
                summary: format!("{} did: {}", params.robot_id, params.message),
                attention: None,
            }),
            error: None,
        })
    }
}

fn asks_for_access(mut record: Record) -> Record {
    let manifest = json!({
        "id": "tested", "author": "tests", "name": "Tested",
        "access": {"handle": "helper", "name": "Helper", "permissions": ["CREATE_POST"]},
    });
    record.manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
    record
}

fn access_get(user_agent: &str, record: impl FnOnce(Record) -> Record) -> Value {
    let bench = Bench::with(
        |builder| builder.services(Generous),
        |plain| record(asks_for_access(plain)),
    );
    let plugin = bench.connect_as(user_agent);
    plugin.call(ID, "access_get", "{}")
}

#[test]
fn a_go_plugin_gets_its_api_address_as_an_object() {
    assert_eq!(
        access_get(GO, |record| record),
        json!({"jsonrpc": "2.0", "id": "0o6a205tdo4tj2nt466b", "result": {
            "method": "access_get", "id": "0o6a205tdo4tj2nt466b", "jsonrpc": "2.0",
            "result": {"access_key": KEY, "api_base_url": {
                "Scheme": "https", "Host": "forum.example", "Path": "/en",
            }},
        }})
    );
}

#[test]
fn a_python_plugin_gets_its_api_address_under_its_own_name() {
    assert_eq!(
        access_get(PYTHON, |record| record),
        json!({"jsonrpc": "2.0", "id": "0o6a205tdo4tj2nt466b", "result": {
            "method": "access_get",
            "result": {"access_key": KEY, "apibase_url": "https://forum.example/en"},
        }})
    );
}

#[test]
fn other_plugins_get_their_api_address_as_the_schema_says() {
    let inner = access_get("my-own-plugin/1", |record| record)["result"]["result"].clone();
    assert_eq!(
        inner,
        json!({"access_key": KEY, "api_base_url": "https://forum.example/en"})
    );
}

#[test]
fn a_record_overrides_the_shape_that_the_user_agent_suggests() {
    let answer = access_get(GO, |record| {
        record.overrides(|own| own.access_shape(AccessShape::Python))
    });
    assert_eq!(
        answer["result"]["result"],
        json!({"access_key": KEY, "apibase_url": "https://forum.example/en"})
    );
}

#[test]
fn access_that_the_manifest_does_not_ask_for_is_refused_with_32601() {
    let bench = Bench::with_host(|builder| builder.services(Generous));
    let plugin = bench.connect();
    assert_eq!(
        plugin.call(ID, "access_get", "{}")["error"],
        json!({"code": -32601, "message": "this plugin's manifest asks for no access"})
    );
}

#[test]
fn access_that_the_host_cannot_give_is_refused_with_32603() {
    let bench = Bench::with_record(asks_for_access);
    let plugin = bench.connect();
    assert_eq!(
        plugin.call(ID, "access_get", "{}")["error"],
        json!({"code": -32603, "message": "this host gives no API access"})
    );
}

#[test]
fn get_config_gives_all_or_the_keys_that_exist() {
    let stored = json!({"channel": "general", "limit": 25, "loud": false});
    let configuration = object(stored.clone());
    let bench =
        Bench::with_record(|record| record.with(|record| record.configuration = configuration));
    let plugin = bench.connect_as(GO);
    let config = |params: &str| plugin.call("1", "get_config", params)["result"]["config"].clone();
    assert_eq!(config("{}"), stored);
    assert_eq!(config(r#"{"keys":[]}"#), stored);
    assert_eq!(
        config(r#"{"keys":["channel","limit"]}"#),
        json!({"channel": "general", "limit": 25})
    );
    assert_eq!(
        config(r#"{"keys":["loud","volume"]}"#),
        json!({"loud": false})
    );
    assert_eq!(config(r#"{"keys":["volume"]}"#), json!({}));
}

#[test]
fn get_config_of_a_plugin_never_configured_is_empty() {
    let bench = Bench::new();
    let plugin = bench.connect();
    assert_eq!(
        plugin.call("1", "get_config", "{}")["result"],
        json!({"method": "get_config", "config": {}})
    );
}

#[test]
fn get_config_gives_what_is_stored_now() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let mut record = bench.host.store().get(bench.session.id()).unwrap().unwrap();
    record.configuration = object(json!({"limit": 3}));
    bench.host.store().put(record).unwrap();
    let answer = plugin.call("1", "get_config", "{}");
    assert_eq!(answer["result"]["config"], json!({"limit": 3}));
}

#[test]
fn a_host_without_robots_answers_a_run_with_a_result_that_says_so() {
    let bench = Bench::with_record(asks_for_access);
    let plugin = bench.connect();
    let params = r#"{"message":"Summarise.","robot_id":"d5k1vg45o2dtjn9ct4a0"}"#;
    let answer = plugin.call("1", "robot_run", params);
    let result = object(answer["result"].clone());
    assert_eq!(result["method"], "robot_run");
    assert_eq!(result["error"], "this host runs no Robots");
    assert!(!result.contains_key("output"));
    assert!(
        result["session_id"]
            .as_str()
            .unwrap()
            .parse::<Xid>()
            .is_ok()
    );
}

#[test]
fn a_robot_run_without_access_or_message_is_refused_with_a_result() {
    let refused = |record: fn(Record) -> Record, message: &str| {
        let bench = Bench::with(|builder| builder.services(Generous), record);
        let plugin = bench.connect();
        let params = json!({"message": message, "robot_id": "d5k1vg45o2dtjn9ct4a0"});
        let answer = plugin.call("1", "robot_run", &params.to_string());
        assert!(answer["result"].get("output").is_none(), "{answer}");
        answer["result"]["error"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        refused(|record| record, "Summarise."),
        "this plugin's manifest asks for no access"
    );
    assert_eq!(
        refused(asks_for_access, " "),
        "the message of a Robot run cannot be blank"
    );
}

#[test]
fn a_robot_run_is_answered_by_the_service() {
    let bench = Bench::with(|builder| builder.services(Generous), asks_for_access);
    let plugin = bench.connect();
    let params = r#"{"message":"Summarise.","robot_id":"d5k1vg45o2dtjn9ct4a0"}"#;
    assert_eq!(
        plugin.call("1", "robot_run", params)["result"],
        json!({
            "method": "robot_run", "session_id": "d5k2m9s5o2dtjn9ct6f0",
            "output": {"status": "completed", "summary": "d5k1vg45o2dtjn9ct4a0 did: Summarise."},
        })
    );
}

#[test]
fn a_refused_robot_run_names_the_session_that_was_asked_for() {
    /// Refuses every run, and says nothing of a session.
    struct Refusing;

    impl Services for Refusing {
        fn robot_run(
            &self,
            _call: &InboundCall,
            _params: RobotRun,
        ) -> Result<RobotRunReply, RpcError> {
            let error = Some("not now".to_owned());
            Ok(RobotRunReply {
                error,
                ..RobotRunReply::default()
            })
        }
    }

    let asked = "d5k2m9s5o2dtjn9ct6f0";
    let refused = |bench: &Bench, message: &str| {
        let params = json!({
            "message": message, "robot_id": "d5k1vg45o2dtjn9ct4a0", "session_id": asked,
        });
        let plugin = bench.connect();
        let answer = plugin.call("1", "robot_run", &params.to_string());
        let result = answer["result"].clone();
        assert!(result["error"].is_string(), "{answer}");
        result["session_id"].clone()
    };
    assert_eq!(refused(&Bench::new(), "Summarise."), asked, "no access");
    let bench = Bench::with_record(asks_for_access);
    assert_eq!(refused(&bench, " "), asked, "a blank message");
    let bench = Bench::with_record(asks_for_access);
    assert_eq!(refused(&bench, "Summarise."), asked, "no Robots");
    let bench = Bench::with(|builder| builder.services(Refusing), asks_for_access);
    assert_eq!(refused(&bench, "Summarise."), asked, "the service");
}

#[test]
fn a_robot_run_with_both_workspace_ids_reaches_the_service() {
    /// Says where it was to work.
    struct Where;

    impl Services for Where {
        fn robot_run(
            &self,
            _call: &InboundCall,
            params: RobotRun,
        ) -> Result<RobotRunReply, RpcError> {
            let summary = serde_json::to_string(&params.workspace).unwrap();
            Ok(RobotRunReply {
                output: Some(RobotRunOutput {
                    status: RobotRunStatus::Completed,
                    summary,
                    attention: None,
                }),
                ..RobotRunReply::default()
            })
        }
    }

    let bench = Bench::with(|builder| builder.services(Where), asks_for_access);
    let plugin = bench.connect();
    let workspace = json!({
        "workspace_id": "d5k1vg45o2dtjn9ct4a0", "workspace_instance_id": "d5k2m9s5o2dtjn9ct6f0",
    });
    let params = json!({
        "message": "Summarise.", "robot_id": "d5k1vg45o2dtjn9ct4a0", "workspace": workspace,
    });
    let answer = plugin.call("1", "robot_run", &params.to_string());
    assert_eq!(
        answer["result"]["output"]["summary"],
        workspace.to_string(),
        "{answer}"
    );
}
