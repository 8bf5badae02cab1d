//! The other process: this program again, told so by its arguments. It knows tungstenite, serde_json
//! and lines, and nothing of this crate.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::support::latencies;

const ROLE: &str = "--peer";

/// How the peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// As a plugin does: it reads the JSON, and answers with its pong.
    Json,
    /// With its params as they came, which it does not look at.
    Raw,
}

impl Answers {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Raw => "raw",
        }
    }

    fn answer(self, request: &str) -> String {
        if self == Self::Json {
            let request: Value = serde_json::from_str(request).unwrap();
            let result = json!({"method": "ping", "pong": true, "status": "healthy"});
            return json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string();
        }
        let (_, from_id) = request.split_once(r#""id":"#).unwrap();
        let (id, _) = from_id.split_once(',').unwrap();
        let (_, params) = request.split_once(r#""params":"#).unwrap();
        // Which end with the brace of the message.
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{params}"#)
    }
}

/// The arguments for a peer that connects to `url`, or is spoken to over its pipes.
pub(crate) fn arguments(answers: Answers, url: Option<&str>) -> Vec<String> {
    let role = if url.is_some() { "connect" } else { "stdio" };
    let mut arguments = vec![ROLE.to_owned(), role.to_owned(), answers.name().to_owned()];
    arguments.extend(url.map(str::to_owned));
    arguments
}

/// The arguments for a peer that connects to `url` and calls; how often, its stdin tells.
pub(crate) fn caller_arguments(url: &str) -> [String; 4] {
    [ROLE, "call", "json", url].map(str::to_owned)
}

/// Plays the peer, if that is what the arguments say.
pub(crate) fn run() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (role, answers, url) = match arguments[..] {
        [ROLE, role, answers] => (role, answers, ""),
        [ROLE, role, answers, url] => (role, answers, url),
        _ => return false,
    };
    let answers = match answers {
        "raw" => Answers::Raw,
        _ => Answers::Json,
    };
    match role {
        "stdio" => over_pipes(answers),
        "connect" => over_web_socket(answers, url),
        _ => call(url),
    }
    true
}

fn over_pipes(answers: Answers) {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut line = String::new();
    while input.read_line(&mut line).unwrap() > 0 {
        let mut answer = answers.answer(line.trim_end());
        answer.push('\n');
        output.write_all(answer.as_bytes()).unwrap();
        output.flush().unwrap();
        line.clear();
    }
}

fn connect(url: &str) -> WebSocket<TcpStream> {
    let (_, rest) = url.split_once("://").unwrap();
    let (address, _) = rest.split_once('/').unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    tungstenite::client(url, stream).unwrap().0
}

fn over_web_socket(answers: Answers, url: &str) {
    let mut socket = connect(url);
    while let Ok(message) = socket.read() {
        if let Message::Text(text) = message {
            socket.send(answers.answer(&text).into()).unwrap();
        }
    }
}

/// Calls as often as each line of its stdin says, and prints what it took.
fn call(url: &str) {
    let mut socket = connect(url);
    for line in BufReader::new(std::io::stdin()).lines() {
        let calls: usize = line.unwrap().parse().unwrap();
        let mut number = 0_u64;
        let sample = latencies(calls, || {
            number += 1;
            let request = json!({"jsonrpc": "2.0", "id": number, "method": "bench", "params": {}});
            socket.send(request.to_string().into()).unwrap();
            let answer = socket.read().unwrap();
            let answer: Value = serde_json::from_str(answer.to_text().unwrap()).unwrap();
            assert_eq!(answer["id"], number);
            assert_eq!(answer["result"]["done"], true);
        });
        let figures = [sample.p50, sample.p90, sample.p99, sample.min, sample.max];
        println!("{}", json!(figures));
    }
}
