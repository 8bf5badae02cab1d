//! The server under systemd, or under a test that plays it, and as the first process of a container.

use std::io::{BufRead as _, BufReader, ErrorKind};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::{FREE, Server, command, install};
use crate::program::{ANSWERING, Program, Scratch, apart, text};
use crate::support::alone::children;
use crate::support::{LONG, wait_until};

const UNIT: &str = include_str!("../../../src/cli/serve/systemd/plugin-runner.service");

/// The socket of a service manager that the test plays.
struct Notified(UnixDatagram);

impl Notified {
    fn bind(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Self(socket)
    }

    /// At a path in the test's folder, which is given as well.
    fn in_folder(scratch: &Scratch) -> (Self, std::path::PathBuf) {
        let path = scratch.path("notify");
        let address = SocketAddr::from_pathname(&path).unwrap();
        (Self::bind(&address), path)
    }

    fn next(&self) -> String {
        let mut message = [0; 1024];
        let length = self.0.recv(&mut message).expect("a message in time");
        text(&message[..length]).to_owned()
    }

    /// The first message that begins so; whatever comes before is given too.
    #[track_caller]
    fn until(&self, beginning: &str) -> (String, Vec<String>) {
        let deadline = Instant::now() + LONG;
        let mut before = Vec::new();
        while Instant::now() < deadline {
            let message = self.next();
            if message.starts_with(beginning) {
                return (message, before);
            }
            before.push(message);
        }
        panic!("no {beginning:?} in {before:?}");
    }
}

/// Checks that a message asks for some time, of which there is enough.
#[track_caller]
fn expect_time(message: &str, before: &str, after: &str) {
    let rest = message.strip_prefix(before).expect(message);
    let rest = rest.strip_prefix("EXTEND_TIMEOUT_USEC=").expect(message);
    let (micros, rest) = rest.split_once('\n').expect(message);
    let time = Duration::from_micros(micros.parse().unwrap());
    assert!(time > Duration::from_secs(10), "{message}");
    assert_eq!(rest, after);
}

/// Says what is in its environment, in its log.
const TELLING: &str = r#"#!/usr/bin/env python3
import json, os, sys
print("variables", *sorted(os.environ), flush=True)
print("pid", os.getpid(), flush=True)
for line in sys.stdin:
    call = json.loads(line)
    answer = {"jsonrpc": "2.0", "id": call["id"], "result": {"method": call["method"]}}
    print(json.dumps(answer), flush=True)
"#;

#[test]
fn a_service_manager_is_told_of_the_start_a_reload_and_the_end() {
    let scratch = Scratch::new();
    let id = install(&scratch, "data", "telling", TELLING);
    let (notified, path) = Notified::in_folder(&scratch);
    let mut command = command(&scratch, &format!("--data data {FREE}"));
    command
        .env("NOTIFY_SOCKET", path)
        // For another process: this one has no watchdog.
        .env("WATCHDOG_USEC", "1000")
        .env("WATCHDOG_PID", "1");
    let server = Server::of(&scratch, command);
    expect_time(&notified.next(), "", "STATUS=starting\n");
    assert_eq!(notified.next(), "READY=1\nSTATUS=plugins: 1 running\n");
    // It is: without waiting for anything.
    let plugins = server.plugins();
    assert_eq!(plugins[0]["status"]["active_state"], "active", "{plugins}");
    server.program.signal(Signal::HUP);
    let reloading = notified.next();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(notified.next(), "READY=1\nSTATUS=plugins: 1 running\n");
    server.active(id);
    let log = server.log(id);
    let variables = log.iter().find(|line| line.contains("variables ")).unwrap();
    assert!(variables.contains("PLUGIN_DATA_DIR"), "{variables}");
    for private in ["NOTIFY_SOCKET", "WATCHDOG"] {
        assert!(!variables.contains(private), "{variables}");
    }
    server.program.signal(Signal::TERM);
    expect_time(&notified.next(), "STOPPING=1\n", "STATUS=stopping\n");
    assert_eq!(server.program.end().status.code(), Some(0));
}

#[test]
fn a_service_manager_may_have_an_abstract_address() {
    let scratch = Scratch::new();
    let name = format!("plugin-runner-notify-{}", std::process::id());
    let notified = Notified::bind(&SocketAddr::from_abstract_name(&name).unwrap());
    let mut command = command(&scratch, &format!("--data data {FREE}"));
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let server = Server::of(&scratch, command);
    let (ready, _) = notified.until("READY=1");
    assert_eq!(ready, "READY=1\nSTATUS=no plugin is wanted active\n");
    server.program.stop();
}

#[test]
fn one_that_cannot_be_reached_is_said_and_stops_nothing() {
    let scratch = Scratch::new();
    let mut command = command(&scratch, &format!("--data data {FREE}"));
    command.env("NOTIFY_SOCKET", "vsock:2:1234");
    let server = Server::of(&scratch, command);
    server
        .program
        .error_with("cannot notify NOTIFY_SOCKET=vsock:2:1234: ");
    server.program.stop();
}

/// Locks a database until its input ends.
const LOCKING: &str = r#"
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("begin immediate")
print("locked", flush=True)
sys.stdin.read()
"#;

#[test]
fn the_watchdog_is_fed_only_while_the_store_can_be_written() {
    let scratch = Scratch::new();
    let (notified, path) = Notified::in_folder(&scratch);
    let mut command = command(&scratch, &format!("--data data {FREE}"));
    command
        .env("NOTIFY_SOCKET", path)
        .env("WATCHDOG_USEC", "1000000");
    let server = Server::of(&scratch, command);
    notified.until("READY=1");
    for _ in 0..3 {
        assert_eq!(notified.next(), "WATCHDOG=1\n");
    }
    let mut locking = Command::new("python3")
        .args(["-c", LOCKING])
        .arg(server.data.join("plugins.sqlite"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = locking.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    server
        .program
        .error_with("the watchdog is not fed: writing to the store timed out");
    // Supervisors are told each time, and the log once: they need no token.
    for _ in 0..3 {
        assert_eq!(server.get("/readyz", &[]), (503, "failing\n".to_owned()));
    }
    // What was sent before that.
    server.program.signal(Signal::HUP);
    notified.until("READY=1");
    // For longer than it was fed three times in.
    let silent = Duration::from_secs(2);
    notified.0.set_read_timeout(Some(silent)).unwrap();
    let error = notified.0.recv(&mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    notified.0.set_read_timeout(Some(LONG)).unwrap();
    drop(locking.stdin.take());
    assert!(locking.wait().unwrap().success());
    server.program.error_with("the watchdog is fed again");
    assert_eq!(notified.next(), "WATCHDOG=1\n");
    wait_until("the server to be ready", || {
        server.get("/readyz", &[]) == (200, "ready\n".to_owned())
    });
    let said = server.program.stop();
    assert_eq!(said.matches("not ready: ").count(), 1, "{said}");
    assert_eq!(said.matches("ready again").count(), 1, "{said}");
}

#[test]
fn as_the_first_process_it_serves_in_a_child() {
    const TEST: &str = "as_the_first_process_it_serves_in_a_child";
    let scratch = Scratch::new();
    install(&scratch, "data", "hello", ANSWERING);
    let (notified, path) = Notified::in_folder(&scratch);
    let mut rest = vec!["serve", "--data", "data"];
    rest.extend(FREE.split(' '));
    let flags = "-rpf --mount-proc --kill-child";
    let Some(mut command) = apart(TEST, &scratch, flags, r#"exec "$@""#, &rest) else {
        return;
    };
    command
        .env("NOTIFY_SOCKET", path)
        .env("WATCHDOG_USEC", "1000000")
        .env("WATCHDOG_PID", "1");
    let program = Program::start(command);
    let (ready, _) = notified.until("READY=1");
    assert_eq!(ready, "READY=1\nSTATUS=plugins: 1 running\n");
    // The watchdog that was meant for the first process is its child's.
    assert_eq!(notified.next(), "WATCHDOG=1\n");
    let first = children(program.id())[0];
    kill_process(first, Signal::TERM).unwrap();
    notified.until("STOPPING=1");
    assert_eq!(program.end().status.code(), Some(0));
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit_file() {
    let scratch = Scratch::new();
    let program = env!("CARGO_BIN_EXE_plugin-runner");
    let unit = UNIT.replace("/usr/local/bin/plugin-runner", program);
    assert!(unit.contains(&format!("\nExecStart={program} serve ")));
    let file = scratch.write("plugin-runner.service", unit);
    let verify = |file| {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]).arg(file).output()
    };
    let output = match verify(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text =
                "skipped: systemd_finds_nothing_wrong_with_the_unit_file: no systemd-analyze";
            let required = std::env::var_os("PLUGIN_RUNNER_REQUIRE_ALL").is_some();
            assert!(!required, "{text}");
            println!("{text}");
            return;
        }
        output => output.unwrap(),
    };
    let said = text(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    // It would be said: only what it does not know it would not mind.
    let wrong = scratch.write("wrong.service", format!("{UNIT}\nExecStart=/missing\n"));
    assert_ne!(text(&verify(&wrong).unwrap().stderr), "");
}

#[test]
fn the_unit_file_starts_the_server_with_arguments_that_it_takes() {
    let scratch = Scratch::new();
    let begin = "\nExecStart=/usr/local/bin/plugin-runner serve ";
    let (_, arguments) = UNIT.split_once(begin).expect("the command");
    let arguments = arguments.lines().next().unwrap();
    let arguments = arguments.replace("${STATE_DIRECTORY}", "state");
    let output = Program::start(command(&scratch, &format!("--check {arguments}"))).end();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        text(&output.stdout).contains("data = \"state\""),
        "{}",
        text(&output.stdout)
    );
}
