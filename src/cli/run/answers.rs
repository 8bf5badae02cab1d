//! What the host answers when a plugin calls it: what the arguments say, and what the library says otherwise. Each call
//! is shown.

use std::collections::HashMap;
use std::time::SystemTime;

use crossbeam_channel::Sender;
use plugin_runner::Services;
use plugin_runner::call::{InboundCall, Params};
use plugin_runner::error::RpcError;
use plugin_runner::protocol::AccessGrant;
use plugin_runner::protocol::ResultObject;
use plugin_runner::protocol::method::{RobotRun, RobotRunReply};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cli::client::input;
use crate::cli::error::CliError;
use crate::cli::output::Notice;
use crate::cli::printer::notify;

const ACCESS_GET: &str = "access_get";
const ROBOT_RUN: &str = "robot_run";

/// A method, and what is answered to it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    method: String,
    answer: Given,
}

#[derive(Clone, Debug)]
enum Given {
    Object(input::Object),
    Error(String),
}

/// Reads `METHOD=JSON`, `METHOD=@FILE` or `METHOD=!TEXT`.
///
/// # Errors
/// A text that says what is wrong.
pub(super) fn answer(text: &str) -> Result<Answer, String> {
    let (method, answer) = text
        .split_once('=')
        .filter(|(method, _)| !method.is_empty())
        .ok_or("write METHOD=JSON")?;
    let answer = match answer.strip_prefix('!') {
        Some(error) => Given::Error(error.to_owned()),
        None => Given::Object(input::object(answer)?),
    };
    Ok(Answer {
        method: method.to_owned(),
        answer,
    })
}

/// The answers of a host.
pub(super) struct Answers {
    answers: HashMap<String, Result<Map<String, Value>, RpcError>>,
    notices: Sender<Notice>,
}

/// What `access_get` is answered with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Access {
    access_key: String,
    api_base_url: String,
}

impl Answers {
    /// Reads the answers that are in files.
    ///
    /// # Errors
    /// [`CliError`] when one cannot be read, or its method wants another.
    pub(super) fn new(answers: &[Answer], notices: Sender<Notice>) -> Result<Self, CliError> {
        let mut read = HashMap::new();
        for Answer { method, answer } in answers {
            let about = |error: CliError| error.about(format!("--answer {method}"));
            let answer = match answer {
                Given::Object(object) => Ok(input::read_object(Some(object)).map_err(about)?),
                Given::Error(text) => Err(RpcError::new(RpcError::HANDLER_FAILED, text.clone())),
            };
            if let Ok(object) = &answer {
                check(method, object).map_err(|problem| about(CliError::usage(problem)))?;
            }
            read.insert(method.clone(), answer);
        }
        Ok(Self {
            answers: read,
            notices,
        })
    }

    fn given<T: for<'de> Deserialize<'de>>(&self, method: &str) -> Option<Result<T, RpcError>> {
        let answer = self.answers.get(method)?.clone();
        Some(answer.and_then(|object| {
            serde_json::from_value(object.into())
                .map_err(|error| RpcError::new(RpcError::INTERNAL, error.to_string()))
        }))
    }

    fn show(&self, call: &InboundCall, params: Value, answer: Result<Value, &RpcError>) {
        let notice = Notice::Call {
            plugin: call.session().id(),
            at: SystemTime::now(),
            method: call.method().to_owned(),
            params,
            answer: answer.map_err(ToString::to_string),
        };
        notify(&self.notices, notice);
    }
}

/// # Errors
/// A text that says what the method wants.
fn check(method: &str, object: &Map<String, Value>) -> Result<(), String> {
    let object = Value::from(object.clone());
    match method {
        "get_config" => Err("the configuration comes from --config".to_owned()),
        ACCESS_GET => {
            let access: Access = serde_json::from_value(object).map_err(|error| {
                format!("{error}; write {{\"access_key\": \"…\", \"api_base_url\": \"https://…\"}}")
            })?;
            let grant = AccessGrant::new(access.access_key, access.api_base_url);
            grant.map(drop).map_err(|error| error.to_string())
        }
        ROBOT_RUN => serde_json::from_value::<RobotRunReply>(object)
            .map(drop)
            .map_err(|error| error.to_string()),
        _ => Ok(()),
    }
}

impl Services for Answers {
    fn get_config(
        &self,
        call: &InboundCall,
        keys: &[String],
    ) -> Result<Map<String, Value>, RpcError> {
        let answer = ().get_config(call, keys);
        let shown = answer.as_ref().map(|config| json!(config));
        self.show(call, json!({ "keys": keys }), shown);
        answer
    }

    fn access_get(&self, call: &InboundCall) -> Result<AccessGrant, RpcError> {
        let answer = match self.given::<Access>(ACCESS_GET) {
            None => ().access_get(call),
            Some(access) => access.and_then(|access| {
                AccessGrant::new(access.access_key, access.api_base_url)
                    .map_err(|error| RpcError::new(RpcError::INTERNAL, error.to_string()))
            }),
        };
        // The key is the user's own, and no less a secret.
        let shown = answer.as_ref().map(|_| json!("the access key"));
        self.show(call, json!({}), shown);
        answer
    }

    fn robot_run(&self, call: &InboundCall, params: RobotRun) -> Result<RobotRunReply, RpcError> {
        let asked = json!(params);
        let answer = match self.given(ROBOT_RUN) {
            None => ().robot_run(call, params),
            Some(answer) => answer,
        };
        self.show(call, asked, answer.as_ref().map(|reply| json!(reply)));
        answer
    }

    fn call(&self, call: &InboundCall, params: &Params) -> Option<Result<ResultObject, RpcError>> {
        let asked = serde_json::from_str(params.as_json()).unwrap_or_default();
        let Some(answer) = self.answers.get(call.method()) else {
            let method = call.method();
            let unknown = RpcError::new(
                RpcError::METHOD_NOT_FOUND,
                format!("there is no such method; --answer '{method}={{}}' would answer it"),
            );
            self.show(call, asked, Err(&unknown));
            return None;
        };
        self.show(call, asked, answer.as_ref().map(|object| json!(object)));
        Some(answer.clone().map(ResultObject::from))
    }
}
