//! Stands in for the sample plugin until the one built on the SDK takes its place: answers every
//! call, and crashes once after the second.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use plugin_runner::Result;
use plugin_runner::protocol::Manifest;
use serde_json::{Value, json};
use tungstenite::Message;

/// Calls that are answered before the crash.
const CALLS: u32 = 2;

/// Lives until the connection ends.
#[expect(clippy::unnecessary_wraps, reason = "the real one fails")]
pub(crate) fn run() -> Result<()> {
    let crashed = PathBuf::from(std::env::var_os("PLUGIN_DATA_DIR").unwrap_or_default())
        .join("crashed-before");
    let url = std::env::var("STORYDEN_RPC_URL").unwrap_or_default();
    let address = url
        .strip_prefix("ws://")
        .and_then(|url| url.split('/').next());
    let stream = TcpStream::connect(address.unwrap_or_default());
    let Some((mut socket, _)) = stream
        .ok()
        .and_then(|stream| tungstenite::client(&url, stream).ok())
    else {
        std::process::exit(1);
    };
    say("connected");
    let mut answered = 0;
    while let Ok(message) = socket.read() {
        let Message::Text(text) = message else {
            continue;
        };
        let call: Value = serde_json::from_str(&text).unwrap_or_default();
        let result = json!({"method": call["method"], "pong": true});
        let answer = json!({"jsonrpc": "2.0", "id": call["id"], "result": result});
        if socket.send(Message::text(answer.to_string())).is_err() {
            break;
        }
        answered += 1;
        if answered == CALLS && !crashed.exists() {
            let _ = std::fs::write(&crashed, "");
            say("crashing on purpose");
            std::process::exit(3);
        }
    }
    Ok(())
}

/// The sample's manifest, with this program as its command.
pub(crate) fn manifest(program: &Path) -> Manifest {
    Manifest {
        id: "sample".to_owned(),
        author: "plugin-runner".to_owned(),
        name: "Sample".to_owned(),
        command: program.display().to_string(),
        args: vec!["sample-plugin".to_owned()],
        ..Manifest::default()
    }
}

fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
