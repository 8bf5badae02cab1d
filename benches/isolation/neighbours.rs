//! Ten plugins that are sick, those who call them all the same, and the process in which they are
//! somebody else's neighbours.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use plugin_runner::{Host, ReportedState, Session};
use serde_json::json;

use super::support::LONG;
use super::support::plugins::{Folder, fixture, install};

/// What ails them, and over which transport they are connected.
const SICK: [(&str, &[&str], &str); 10] = [
    ("hangs-1", &["hang-at", "active"], "websocket"),
    ("hangs-2", &["hang-at", "active"], "stdio"),
    ("hangs-3", &["hang-at", "active"], "websocket"),
    ("calls-1", &["flood-socket"], "websocket"),
    ("calls-2", &["flood-socket"], "stdio"),
    ("prints-1", &["flood-output"], "websocket"),
    ("prints-2", &["flood-output"], "stdio"),
    ("deaf-1", &["never-read"], "websocket"),
    ("deaf-2", &["never-read"], "stdio"),
    ("deaf-3", &["never-read"], "websocket"),
];

pub(crate) struct Neighbours {
    sessions: Vec<Session>,
    calling: Mutex<Option<Calling>>,
}

/// Threads that call those who do not answer.
struct Calling {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Neighbours {
    /// Loads them, inactive.
    pub(crate) fn new(host: &Host) -> Self {
        let load = |(name, arguments, transport): (&str, &[&str], &str)| {
            let id = install(host, name, &fixture(), arguments, transport);
            host.load(id).unwrap()
        };
        Self {
            sessions: SICK.map(load).into(),
            calling: Mutex::new(None),
        }
    }

    /// Starts them, and has them called.
    pub(crate) fn start(&self) {
        for session in &self.sessions {
            session.supervised().unwrap().start().unwrap();
        }
        for session in &self.sessions {
            session.wait_for(ReportedState::Active, LONG).unwrap();
        }
        let over = Arc::new(AtomicBool::new(false));
        let threads = self.sessions.iter().map(|session| {
            let (session, over) = (session.clone(), over.clone());
            std::thread::spawn(move || call(&session, &over))
        });
        let threads = threads.collect();
        *self.calling.lock() = Some(Calling { over, threads });
    }

    /// Stops them, each of which must have been at it.
    pub(crate) fn stop(&self) {
        for (session, (name, ..)) in self.sessions.iter().zip(SICK) {
            if name.starts_with("calls") {
                // When it reads its answers too slowly it loses its connection, and comes back.
                assert!(session.counters().inbound_calls > 0, "{name}");
            } else {
                let state = session.reported_state();
                assert_eq!(state, ReportedState::Active, "{name}");
            }
        }
        let calling = self.calling.lock().take().unwrap();
        calling.over.store(true, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for session in &self.sessions {
                scope.spawn(|| session.supervised().unwrap().stop(LONG).unwrap());
            }
        });
        for thread in calling.threads {
            thread.join().unwrap();
        }
    }
}

/// Calls with a payload that fills the buffers of one who does not read, as its callers would.
fn call(session: &Session, over: &AtomicBool) {
    let payload = json!({"text": "x".repeat(16 * 1024)});
    while !over.load(Ordering::Relaxed) {
        let result = session.call_raw("echo", &payload, Duration::from_millis(20));
        // Whoever answers is not called without a pause: calls are not what ails them.
        if !result.is_err_and(|error| error.is_timeout()) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// First argument of the process.
pub(crate) const ROLE: &str = "neighbours";

/// A process with a host and sick plugins of its own.
pub(crate) struct Elsewhere {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Elsewhere {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(ROLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut elsewhere = Self { child, answers };
        elsewhere.hear();
        elsewhere
    }

    /// Says a word, and waits until it is done.
    pub(crate) fn tell(&mut self, word: &str) {
        let mut input = self.child.stdin.as_ref().unwrap();
        writeln!(input, "{word}").unwrap();
        self.hear();
    }

    /// What it and its plugins have used.
    pub(crate) fn processor_time(&self) -> Duration {
        processor_time(&self.child.id().to_string())
    }

    /// Ends it.
    pub(crate) fn finish(&mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }

    fn hear(&mut self) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }
}

/// The body of that process.
pub(crate) fn serve() {
    let folder = Folder::new("isolation-elsewhere");
    let host = super::host(&folder);
    let _listener = host.listen("127.0.0.1:0").unwrap();
    let neighbours = Neighbours::new(&host);
    println!("done");
    for word in std::io::stdin().lines() {
        match word.unwrap().as_str() {
            "start" => neighbours.start(),
            "stop" => neighbours.stop(),
            other => panic!("{other}"),
        }
        println!("done");
    }
    assert!(host.shutdown(LONG).is_complete());
}

/// What a process has used so far, and those of its children that have ended. Zero where the system
/// does not say.
pub(crate) fn processor_time(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The program's name before may have anything in it.
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return Duration::ZERO;
    };
    let ticks: u64 = rest
        .split_ascii_whitespace()
        .skip(11)
        .take(4)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
}
