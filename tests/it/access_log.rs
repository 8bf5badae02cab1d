//! The line of the log for each attempt to connect: who, what the answer was, why; at most so many a second, and
//! never a token.

use std::time::Duration;

use log::{Level, LevelFilter};
use parking_lot::Mutex;
use plugin_runner::listener::RequestHead;

use crate::support::alone::run_alone;
use crate::support::host::{TestHost, active};
use crate::support::http::{FORGED, Request, assert_ends_unanswered, connect};
use crate::support::peer::Peer;
use crate::support::wait_until;

#[test]
fn each_attempt_is_one_line_without_its_token() {
    run_alone("access_log::alone::each_attempt_is_one_line");
}

#[test]
fn a_flood_of_attempts_is_counted_and_not_written() {
    run_alone("access_log::alone::a_flood_is_counted");
}

#[test]
fn a_flood_for_which_there_is_no_thread_is_counted_and_not_written() {
    run_alone("access_log::alone::a_flood_without_threads_is_counted");
}

/// A logger that keeps everything.
struct Lines(Mutex<Vec<(Level, String, String)>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl Lines {
    fn install(level: LevelFilter) {
        log::set_logger(&LINES).unwrap();
        log::set_max_level(level);
    }

    /// The lines of this level in the access log.
    fn access(&self, wanted: Level) -> Vec<String> {
        let lines = self.0.lock();
        let lines = lines
            .iter()
            .filter(|(level, target, _)| *level == wanted && target == "plugin_runner::access");
        lines.map(|(_, _, line)| line.clone()).collect()
    }
}

impl log::Log for Lines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let (level, target) = (record.level(), record.target().to_owned());
            self.0
                .lock()
                .push((level, target, record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// Takes out the port, which is different each time.
fn without_port(line: &str) -> String {
    let (before, after) = line.split_once("127.0.0.1:").expect("an address");
    let rest = after.trim_start_matches(|character: char| character.is_ascii_digit());
    format!("{before}127.0.0.1{rest}")
}

/// Tests that take the process's logger, so that they need a process of their own.
mod alone {
    use super::*;

    #[test]
    #[ignore = "takes the process's logger; run by another test, in a process of its own"]
    fn each_attempt_is_one_line() {
        Lines::install(LevelFilter::Trace);
        let host = TestHost::with("access-log", |setup| {
            setup.timeouts(|timeouts| timeouts.handshake(Duration::from_secs(2)));
        });
        let (session, good) = crate::support::plugin::external(&host, "outside");
        let id = session.id();
        let token = good.split_once('=').unwrap().1.to_owned();

        let peer = Peer::connect(host.address(), &good);
        active(&session);
        let send = |request: Request| request.send(host.address()).status;
        assert_eq!(send(Request::upgrade(&good)), 503);
        let forged = format!("/rpc?plugin_id={id}&token={FORGED}");
        let request = Request::upgrade(&forged).without("User-Agent");
        let hostile = "Mozilla\u{202e}\", plugin outside: 101";
        assert_eq!(send(request.with("User-Agent", hostile)), 401);
        assert_eq!(send(Request::get("/?token=secret")), 404);
        assert_eq!(send(Request::upgrade("/rpc").without("User-Agent")), 400);
        // What the embedder's own server has read, behind a proxy.
        let text = Request::upgrade(&forged).to_text();
        let (head, _) = RequestHead::parse(text.as_bytes()).unwrap();
        drop(host.admit(head.address("203.0.113.9:1")).unwrap_err());
        assert_ends_unanswered(connect(host.address()));
        drop(peer);
        // Threads write their lines after the answer.
        drop(host);

        let mut lines = LINES.access(Level::Info);
        let proxied = lines
            .iter()
            .position(|line| line.starts_with("/rpc from 203.0.113.9:1, "))
            .expect("a line for what the embedder's server read");
        lines.remove(proxied);
        let mut lines: Vec<_> = lines.iter().map(|line| without_port(line)).collect();
        lines.sort();
        let agent = r#", user agent "Go-http-client/1.1""#;
        let plugin = format!(", plugin outside ({id})");
        let mut expected = [
            format!("/rpc from 127.0.0.1{agent}{plugin}: 101"),
            format!("/rpc from 127.0.0.1{agent}{plugin}: 503 the plugin is already connected"),
            format!(
                r#"/rpc from 127.0.0.1, user agent "Mozilla\u{{202e}}\", plugin outside: 101"{plugin}: 401 its token is wrong, or another plugin's"#
            ),
            "/rpc from 127.0.0.1: 400 invalid connection parameters".to_owned(),
            "/rpc from 127.0.0.1: no answer, the request was not whole after 2s".to_owned(),
        ];
        expected.sort();
        assert_eq!(lines, expected);
        let probes = LINES.access(Level::Debug);
        assert_eq!(probes.len(), 1, "{probes:#?}");
        assert!(
            probes[0].ends_with(": 404 plugins connect to /rpc"),
            "{probes:?}"
        );

        for (level, target, line) in &*LINES.0.lock() {
            for secret in [&*token, FORGED, "token="] {
                assert!(!line.contains(secret), "{level} {target}: {line}");
            }
            // What became of it is said once.
            let is_access = target == "plugin_runner::access";
            assert!(is_access || !line.contains("refused with status"), "{line}");
        }
    }

    #[test]
    #[ignore = "takes the process's logger; run by another test, in a process of its own"]
    fn a_flood_is_counted() {
        const EACH: usize = 150;
        const CALLERS: usize = 4;
        Lines::install(LevelFilter::Warn);
        let host = TestHost::new("access-flood");
        let ask = || Request::get("/rpc").send(host.address());
        ask();
        // Its thread is done only some time after the answer.
        let in_progress = || host.handshake_counters().in_progress;
        wait_until("the end of the handshake", || in_progress() == 0);
        log::set_max_level(LevelFilter::Info);
        std::thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| (0..EACH).for_each(|_| drop(ask())));
            }
        });
        drop(host);
        let lines = LINES.access(Level::Info);
        let (mut written, mut left_out) = (0, 0);
        for line in &lines {
            match line.strip_suffix(" more lines were left out: at most 50 are written in a second")
            {
                Some(count) => left_out += count.parse::<usize>().unwrap(),
                None => written += 1,
            }
        }
        assert_eq!(written + left_out, CALLERS * EACH, "{lines:#?}");
        // It would take a flood of twelve seconds not to leave any out.
        assert!(left_out > 0 && written >= 50, "{written} written");
    }

    #[test]
    #[ignore = "takes the process's logger; run by another test, in a process of its own"]
    fn a_flood_without_threads_is_counted() {
        const ALL: usize = 500;
        Lines::install(LevelFilter::Warn);
        // One for the reaper, one for the listener.
        let host = TestHost::with("access-threads", |setup| {
            setup.configure(|builder| builder.thread_limit(2));
        });
        for _ in 0..ALL {
            assert_ends_unanswered(connect(host.address()));
        }
        let dropped = || host.handshake_counters().no_thread;
        wait_until("all to be dropped", || dropped() == ALL as u64);
        drop(host);
        let lines = LINES.access(Level::Warn);
        let is_dropped = |line: &&String| line.contains(" dropped: ");
        let written = lines.iter().filter(is_dropped).count();
        assert!((1..ALL).contains(&written), "{written} written");
    }
}
