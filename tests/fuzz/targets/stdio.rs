//! Lines from a plugin's standard output: messages and other output told apart, the same whatever
//! pieces they come in, the limit held; and messages to it as one line each.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use plugin_runner::duplex::stdio::Stdio;
use plugin_runner::duplex::{Duplex as _, DuplexSettings};
use plugin_runner::error::Disconnect;
use plugin_runner::fuzzing::{Incoming, live_threads};

use super::Target;
use super::json::Json;
use super::packets::{Cut, arrived};
use crate::random::Random;

pub(crate) const TARGET: Target = Target {
    name: "stdio",
    generate,
    words: &[
        b"\n",
        b"\r\n",
        b"\n\n",
        b"{}\n",
        b"{\"id\":1,\"method\":\"x\"}\n",
        b" \t{",
        b"}{",
        b"\0",
        b"\xff",
        b"\x0c",
        b"\xc2\xa0",
        b"\xef\xbb\xbf",
        b"\"jsonrpc\":\"2.0\",",
        b"{\"id\":",
    ],
    longest: 16 * 1024,
    check,
    runs: 2_000,
};

/// A byte for the limit, one for how it is cut, then the stream.
fn generate(random: &mut Random) -> Vec<u8> {
    let mut input = vec![random.byte(), random.byte()];
    for _ in 0..random.length(8) {
        match random.below(6) {
            0 => {
                let length = random.length(80);
                input.extend(random.bytes(length));
            }
            1 => input.extend(b"listening on :8080"),
            2 => {
                let most = random.pick(&[300, 300, 300, 300, 9_000]);
                let length = random.length(most);
                input.extend(b"{\"");
                input.resize(input.len() + length, b'x');
            }
            _ => {
                let mut json = Json::new(random);
                json.some_of(
                    &[
                        ("jsonrpc", |json| json.text.push_str("\"2.0\"")),
                        ("id", Json::number),
                        ("method", Json::string),
                    ],
                    &[("params", Json::value), ("result", Json::value)],
                );
                let text = json.text.replace('\n', " ");
                input.extend(text.bytes());
            }
        }
        if !random.one_in(10) {
            input.extend(random.pick(&["\n", "\n", "\r\n", "\n\n", "\n  \n"]).bytes());
        }
    }
    input
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Message(String),
    Output(Vec<u8>),
}

/// How the stream ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Ended,
    Unfinished,
    TooLarge,
}

fn check(input: &[u8]) -> bool {
    let [limit, cut, bytes @ ..] = input else {
        return false;
    };
    let limit = 16 << (limit % 10);
    let cut = Cut::from(*cut);
    let expected = expected(bytes, limit);
    assert_eq!(read(bytes, cut, limit), expected, "cut {cut:?}");
    expected
        .0
        .iter()
        .any(|line| matches!(line, Line::Message(_)))
}

fn expected(bytes: &[u8], limit: usize) -> (Vec<Line>, End) {
    let mut lines = Vec::new();
    let mut rest = bytes.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = rest.next() {
        let is_last = rest.peek().is_none();
        let text = std::str::from_utf8(line);
        let is_message = text.is_ok_and(|text| Incoming::parse_line(text).is_ok());
        if line.len() > limit {
            if begins_as_message(&line[..limit]) {
                return (lines, End::TooLarge);
            }
            // None of these lines is longer than a piece of output.
            lines.push(Line::Output(line.to_vec()));
        } else if line.trim_ascii().is_empty() {
        } else if is_last {
            lines.push(Line::Output(line.to_vec()));
            if is_message {
                return (lines, End::Unfinished);
            }
        } else if is_message {
            lines.push(Line::Message(text.expect("a message").to_owned()));
        } else {
            lines.push(Line::Output(line.to_vec()));
        }
    }
    (lines, End::Ended)
}

fn begins_as_message(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    let ascii = |character: char| character.is_ascii_whitespace();
    let text = text.trim_start_matches(ascii);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Some(text) = text.trim_start_matches(ascii).strip_prefix('{') else {
        return false;
    };
    let text = text.trim_start_matches(ascii);
    ["jsonrpc", "id", "method", "params", "result", "error"]
        .iter()
        .any(|member| text.starts_with(&format!("\"{member}\"")))
}

fn read(bytes: &[u8], cut: Cut, limit: usize) -> (Vec<Line>, End) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let output = lines.clone();
    let (stdout, _child) = arrived(bytes, cut);
    let (mut stdin, to_stdin) = std::io::pipe().expect("pipe");
    let stdio = Stdio::new(stdout, OwnedFd::from(to_stdin)).on_output(move |line| {
        output.lock().push(Line::Output(line.to_vec()));
    });
    let mut settings = DuplexSettings::new("fuzz");
    settings.inbound_message = limit;
    let (mut reader, writer) = Box::new(stdio).split(&settings).expect("split");
    let mut sent = Vec::new();
    let end = loop {
        match reader.receive() {
            Ok(Some(message)) => {
                let text = message.to_string();
                // What the pipe takes at once needs no other thread.
                if sent.len() + text.len() < 4_000 && writer.try_send(&text).is_ok_and(|sent| sent)
                {
                    sent.extend(text.bytes().map(|byte| match byte {
                        b'\r' | b'\n' => b' ',
                        byte => byte,
                    }));
                    sent.push(b'\n');
                }
                lines.lock().push(Line::Message(text));
            }
            Ok(None) => {}
            Err(Disconnect::Lost) => break End::Ended,
            Err(Disconnect::NoLineEnd) => break End::Unfinished,
            Err(Disconnect::TooLarge { limit: told }) => {
                assert_eq!(told, limit);
                break End::TooLarge;
            }
            Err(other) => panic!("{other:?}"),
        }
    };
    assert!(reader.receive().is_err(), "it has ended");
    drop((reader, writer));
    let mut received = Vec::new();
    stdin.read_to_end(&mut received).expect("read");
    assert_eq!(received, sent);
    assert_eq!(live_threads(&settings), 0, "what fits needs no thread");
    let lines = std::mem::take(&mut *lines.lock());
    (lines, end)
}
