//! The program, with its output read line by line, in a directory of its own with plugins to run.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use crate::support::alone::Watched;
use crate::support::{LONG, TestDir, names};

/// A plugin over stdio that says who it is and answers every call. With `stubborn` among its
/// arguments it ignores being asked to end.
pub(crate) const ANSWERING: &str = r#"#!/usr/bin/env python3
import json, os, signal, sys
stubborn = "stubborn" in sys.argv
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN if stubborn else lambda *_: os._exit(0))
print("pid", os.getpid(), flush=True)
for line in sys.stdin:
    call = json.loads(line)
    answer = {"jsonrpc": "2.0", "id": call["id"], "result": {"method": call["method"]}}
    print(json.dumps(answer), flush=True)
while stubborn:
    signal.pause()
"#;

/// A plugin that prints and fails.
pub(crate) const FAILING: &str = "#!/bin/sh\necho tried\necho and failed >&2\nexit 42\n";

/// A folder for one test, removed at its end.
pub(crate) struct Scratch(TestDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        let folder = TestDir::new("cli");
        fs::create_dir(folder.path().join("tmp")).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where programs that the test runs put their temporary folders.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.path("tmp")
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A plugin's folder with this program as `./main`.
    pub(crate) fn plugin(&self, folder: &str, manifest: &Value, program: &str) -> PathBuf {
        self.write(&format!("{folder}/manifest.json"), manifest.to_string());
        let main = self.write(&format!("{folder}/main"), program);
        fs::set_permissions(main, fs::Permissions::from_mode(0o755)).unwrap();
        self.path(folder)
    }

    /// A zip archive of these files, each with its Unix mode, not compressed.
    pub(crate) fn zip(&self, name: &str, files: &[(&str, &str, u32)]) -> PathBuf {
        let mut zip = zip::ZipWriter::new(fs::File::create(self.path(name)).unwrap());
        for (path, content, mode) in files {
            let options = zip::write::SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Stored)
                .unix_permissions(*mode);
            zip.start_file(*path, options).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        self.path(name)
    }

    /// A zip archive of a manifest and of the program `main`, which may be executed.
    pub(crate) fn zipped(&self, name: &str, manifest: &Value, program: &str) -> PathBuf {
        let manifest = manifest.to_string();
        let files = [
            ("manifest.json", &*manifest, 0o644),
            ("main", program, 0o755),
        ];
        self.zip(name, &files)
    }

    /// The program with these arguments, which stand between spaces, and with its temporary folders in
    /// this one.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plugin-runner"));
        command
            .args(arguments.split_whitespace())
            .env("TMPDIR", self.temporary())
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    /// Starts the program.
    pub(crate) fn start(&self, arguments: &str) -> Program {
        Program::start(self.command(arguments))
    }

    /// Runs the program to its end.
    pub(crate) fn output(&self, arguments: &str) -> Output {
        self.start(arguments).end()
    }

    /// Asserts that no run left its temporary folder.
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(names(&self.temporary()), [""; 0], "left behind");
    }
}

/// The program, run by this shell script in namespaces of its own. `None`, and said, where the system
/// gives none; where all tests are required to run, that is a failure.
pub(crate) fn apart(
    test: &str,
    scratch: &Scratch,
    flags: &str,
    script: &str,
    rest: &[&str],
) -> Option<Command> {
    let command = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args(flags.split_whitespace())
            .args(["sh", "-c", script, "sh"])
            .env("TMPDIR", scratch.temporary())
            .env("HOME", scratch.path("home"))
            .env_remove("XDG_CACHE_HOME")
            .current_dir(scratch.path(""))
            .stdin(Stdio::null());
        command
    };
    let mut probe = command(&script.replace("cp -r plugin", "test -n"));
    let works = probe.arg("true").stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        let text = format!("skipped: {test}: `unshare {flags}` does not work here");
        let is_set = |name| std::env::var_os(name).is_some();
        let required =
            is_set("PLUGIN_RUNNER_REQUIRE_ALL") && !is_set("PLUGIN_RUNNER_NO_NAMESPACES");
        assert!(!required, "{text}");
        println!("{text}");
        return None;
    }
    let mut command = command(script);
    command.arg(env!("CARGO_BIN_EXE_plugin-runner")).args(rest);
    Some(command)
}

/// A manifest of a stdio plugin with `./main`.
pub(crate) fn manifest(id: &str) -> Value {
    json!({
        "id": id, "author": "tests", "name": id, "description": "for tests", "version": "1.0.0",
        "command": "./main", "transport": "stdio",
    })
}

/// The program, running.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    error_lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
    /// All lines so far, to show when something fails.
    seen: Vec<String>,
}

impl Program {
    /// Starts it, and reads its output.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = unbounded();
        let output = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                if sender.send(line.unwrap()).is_err() {
                    // Nobody wants to hear more: the pipe closes.
                    return;
                }
            }
        });
        let errors = child.stderr.take().unwrap();
        let (sender, error_lines) = unbounded();
        let errors = thread::spawn(move || {
            let (mut text, mut errors) = (String::new(), BufReader::new(errors));
            loop {
                let before = text.len();
                if errors.read_line(&mut text).unwrap() == 0 {
                    return text;
                }
                let _ = sender.send(text[before..].to_owned());
            }
        });
        Self {
            child,
            lines,
            error_lines,
            errors: Some(errors),
            seen: Vec::new(),
        }
    }

    pub(crate) fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).unwrap();
    }

    /// The next line of its standard output; `None` when it ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(LONG) {
            Ok(line) => {
                self.seen.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line in time after {:#?}", self.seen),
        }
    }

    /// The first line from here on that is wanted.
    pub(crate) fn line_with(&mut self, part: &str) -> String {
        let deadline = Instant::now() + LONG;
        while let Some(line) = self.line() {
            if line.contains(part) {
                return line;
            }
            assert!(Instant::now() < deadline, "no {part:?} in {:#?}", self.seen);
        }
        panic!("ended without {part:?} after {:#?}", self.seen);
    }

    /// The first line of its standard error from here on that is wanted.
    pub(crate) fn error_with(&self, part: &str) -> String {
        let deadline = Instant::now() + LONG;
        while let Ok(line) = self.error_lines.recv_deadline(deadline) {
            if line.contains(part) {
                return line;
            }
        }
        panic!("no {part:?} on standard error; {:#?}", self.seen);
    }

    /// Sends the signal again and again until a line has this in it, and gives that line.
    pub(crate) fn signal_until(&mut self, signal: Signal, part: &str) -> String {
        const BETWEEN: Duration = Duration::from_millis(50);
        let deadline = Instant::now() + LONG;
        loop {
            match self.lines.recv_timeout(BETWEEN) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => self.signal(signal),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended without {part:?} after {:#?}", self.seen)
                }
            }
            assert!(Instant::now() < deadline, "no {part:?} in {:#?}", self.seen);
        }
    }

    /// The next object; for a program with `--json`.
    pub(crate) fn object(&mut self) -> Option<Value> {
        let line = self.line()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// The first object from here on that is wanted.
    pub(crate) fn object_with(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + LONG;
        while let Some(object) = self.object() {
            if wanted(&object) {
                return object;
            }
            assert!(Instant::now() < deadline, "no {what} in {:#?}", self.seen);
        }
        panic!("ended without {what} after {:#?}", self.seen);
    }

    /// Waits until a plugin is in a state, and gives that state change.
    pub(crate) fn state(&mut self, plugin: &str, to: &str) -> Value {
        self.object_with(&format!("{plugin} {to}"), |object| {
            object["type"] == "state" && object["plugin"] == plugin && object["to"] == to
        })
    }

    /// Waits until a plugin is active and has said which process it is, in either order: what it prints
    /// and how it is come from different threads. Gives that process and the state change.
    pub(crate) fn active(&mut self, plugin: &str) -> (Pid, Value) {
        let (mut active, mut process) = (None, None);
        self.object_with(&format!("{plugin} active, with a pid"), |object| {
            let line = object["line"].as_str().unwrap_or_default();
            if object["plugin"] == plugin && line.starts_with("pid ") {
                process = Some(pid(line));
            }
            if object["plugin"] == plugin && object["to"] == "active" {
                active = Some(object.clone());
            }
            active.is_some() && process.is_some()
        });
        (process.unwrap(), active.unwrap())
    }

    /// All objects until the end.
    pub(crate) fn objects(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.object()).collect()
    }

    /// No more reading: whatever it writes from now on fails.
    pub(crate) fn stop_reading(&mut self) {
        self.lines = unbounded().1;
    }

    /// Asks it to end, which must go well; returns what it wrote to standard error.
    #[track_caller]
    pub(crate) fn stop(self) -> String {
        self.signal(Signal::TERM);
        let output = self.end();
        let said = text(&output.stderr).to_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        said
    }

    /// Waits for its end; returns its exit status and the rest of its output.
    pub(crate) fn end(mut self) -> Output {
        let mut stdout = String::new();
        while let Some(line) = self.line() {
            stdout += &line;
            stdout.push('\n');
        }
        let status = wait_for_end(&mut self.child);
        Output {
            status,
            stdout: stdout.into_bytes(),
            stderr: self.errors.take().unwrap().join().unwrap().into_bytes(),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process that a line `pid 123` names.
#[track_caller]
pub(crate) fn pid(line: &str) -> Pid {
    let number = line
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok());
    Pid::from_raw(number.expect(line)).unwrap()
}

pub(crate) fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Waits for the end of the program.
#[track_caller]
pub(crate) fn wait_for_end(child: &mut Child) -> ExitStatus {
    Watched::new(Pid::from_child(child)).expect_end("the program");
    child.wait().unwrap()
}

/// Makes a named pipe.
pub(crate) fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// Waits for somebody to write to a named pipe; gives what was written.
#[track_caller]
pub(crate) fn read_pipe(what: &str, path: &Path) -> String {
    let (sender, receiver) = unbounded();
    let path = path.to_owned();
    thread::spawn(move || sender.send(fs::read_to_string(path).unwrap()));
    let text = receiver.recv_timeout(LONG);
    text.unwrap_or_else(|_| panic!("waited too long for {what}"))
}
