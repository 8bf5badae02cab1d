//! Round trips to a plugin in another process, over each transport, beside what the transports
//! cost by themselves: a line through two pipes to `cat`, and a blocking tungstenite ping-pong.
//!
//! `cargo bench` measures; run by `cargo test` each case does a few rounds, as a smoke test. Figures
//! are medians of rounds in one run: quote the ratios, machines differ.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plugin_runner::protocol::Manifest;
use plugin_runner::protocol::method::{Empty, Ping};
use plugin_runner::sdk::Plugin;
use plugin_runner::store::{Record, Source};
use plugin_runner::{ActiveState, Host, Peer, ReportedState, Session};
use serde_json::json;

const LONG: Duration = Duration::from_secs(30);

struct Plan {
    rounds: usize,
    calls: usize,
}

fn main() {
    if let Ok(address) = std::env::var(ECHO) {
        return echo(&address);
    }
    let full = std::env::args().any(|argument| argument == "--bench");
    let plan = if full {
        Plan {
            rounds: 7,
            calls: 5_000,
        }
    } else {
        Plan {
            rounds: 1,
            calls: 20,
        }
    };
    println!(
        "rpc: {} rounds of {} calls, one in flight; median of rounds",
        plan.rounds, plan.calls
    );
    let pipes = two_pipes(&plan);
    let tungstenite = tungstenite_ping_pong(&plan);
    let (stdio, websocket) = host(&plan);
    let memory = memory(&plan);
    let rows = [
        ("two pipes to cat", pipes, None),
        ("blocking tungstenite + serde_json", tungstenite, None),
        ("ping over stdio", stdio, Some(("two pipes", pipes))),
        (
            "ping over websocket",
            websocket,
            Some(("tungstenite", tungstenite)),
        ),
        ("ping over memory, same process", memory, None),
    ];
    println!("{:<36}{:>10}{:>10}  ratio", "", "p50", "p99");
    for (name, figure, baseline) in rows {
        let ratio = baseline.map_or(String::new(), |(name, baseline)| {
            format!(
                "{:.2} of {name}",
                figure.p50.as_secs_f64() / baseline.p50.as_secs_f64()
            )
        });
        println!(
            "{name:<36}{:>8.1}µs{:>8.1}µs  {ratio}",
            micros(figure.p50),
            micros(figure.p99)
        );
    }
}

#[derive(Clone, Copy)]
struct Figure {
    p50: Duration,
    p99: Duration,
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Times every call of every round; the figure is that of the median round.
fn measure(plan: &Plan, mut call: impl FnMut()) -> Figure {
    for _ in 0..plan.calls.div_ceil(10) {
        call();
    }
    let mut rounds: Vec<Figure> = (0..plan.rounds)
        .map(|_| {
            let mut times: Vec<Duration> = (0..plan.calls)
                .map(|_| {
                    let began = Instant::now();
                    call();
                    began.elapsed()
                })
                .collect();
            times.sort_unstable();
            Figure {
                p50: times[times.len() / 2],
                p99: times[times.len() * 99 / 100],
            }
        })
        .collect();
    rounds.sort_unstable_by_key(|figure| figure.p50);
    rounds[rounds.len() / 2]
}

const REQUEST: &str =
    r#"{"jsonrpc":"2.0","id":"9m4e2mr0ui3e8a215n4g","method":"ping","params":{}}"#;

fn two_pipes(plan: &Plan) -> Figure {
    let mut child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let figure = measure(plan, || {
        stdin.write_all(format!("{REQUEST}\n").as_bytes()).unwrap();
        line.clear();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), REQUEST);
    });
    drop(stdin);
    assert!(child.wait().unwrap().success());
    figure
}

/// Makes this program the other process of the ping-pong: the address to connect to.
const ECHO: &str = "RPC_BENCH_ECHO";

fn tungstenite_ping_pong(plan: &Plan) -> Figure {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new(program).env(ECHO, address).spawn().unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nodelay(true).unwrap();
    let mut socket = tungstenite::accept(stream).unwrap();
    let figure = measure(plan, || {
        socket.send(REQUEST.into()).unwrap();
        let answer = socket.read().unwrap();
        let answer: serde_json::Value = serde_json::from_str(answer.to_text().unwrap()).unwrap();
        assert_eq!(answer["result"]["pong"], true);
    });
    drop(socket);
    assert!(child.wait().unwrap().success());
    figure
}

fn echo(address: &str) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut socket, _) = tungstenite::client(format!("ws://{address}/"), stream).unwrap();
    while let Ok(message) = socket.read() {
        if let tungstenite::Message::Text(text) = message {
            let request: serde_json::Value = serde_json::from_str(&text).unwrap();
            let result = json!({"method": "ping", "pong": true});
            let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
            socket.send(answer.to_string().into()).unwrap();
        }
    }
}

fn host(plan: &Plan) -> (Figure, Figure) {
    let data = std::env::temp_dir().join(format!("plugin-runner-bench-{}", std::process::id()));
    let host = Host::builder().data_folder(&data).build().unwrap();
    let _listener = host.listen("127.0.0.1:0").unwrap();
    let figures = ["stdio", "websocket"].map(|transport| {
        let session = load(&host, transport);
        let figure = measure(plan, || {
            let reply = session.call::<Ping>(&Empty {}, LONG).unwrap();
            assert!(reply.pong);
        });
        session.set_active_state(ActiveState::Inactive).unwrap();
        figure
    });
    assert!(host.shutdown(LONG).is_complete());
    std::fs::remove_dir_all(data).unwrap();
    figures.into()
}

fn memory(plan: &Plan) -> Figure {
    let host = Host::builder().build().unwrap();
    let manifest = Manifest::parse(br#"{"id":"bench","author":"bench","name":"bench"}"#).unwrap();
    let record = Record::external(manifest).unwrap();
    let id = record.id;
    host.store().put(record).unwrap();
    let session = host.load(id).unwrap();
    let (ours, theirs) = plugin_runner::duplex::memory::pair(64);
    let plugin = std::thread::spawn(|| Plugin::over(theirs).run().unwrap());
    session.connect(ours, &Peer::default()).unwrap();
    let figure = measure(plan, || {
        let reply = session.call::<Ping>(&Empty {}, LONG).unwrap();
        assert!(reply.pong);
    });
    assert!(host.shutdown(LONG).is_complete());
    plugin.join().unwrap();
    figure
}

fn load(host: &Host, transport: &str) -> Session {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_plugin-runner-fixture"));
    let manifest = json!({
        "id": format!("bench-{transport}"), "author": "bench", "name": "bench",
        "command": program, "args": ["behave"], "transport": transport,
    });
    let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
    let folder = program.parent().unwrap().to_owned();
    let record =
        Record::supervised(manifest, Source::Folder(folder)).with_active_state(ActiveState::Active);
    let id = record.id;
    host.store().put(record).unwrap();
    let session = host.load(id).unwrap();
    session.wait_for(ReportedState::Active, LONG).unwrap();
    session
}
