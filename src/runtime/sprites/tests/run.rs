//! Runs with the fake of the service: real programs, and every fault that a run is to survive or to name.

mod ends;
mod kills;
mod losses;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::fake::{Fake, Fault, SocketFault};
use crate::deadline::Deadline;
use crate::error::SpritesError;
use crate::poll;
use crate::process::ExitReason;
use crate::runtime::sprites::interrupt::Interrupt;
use crate::runtime::sprites::program::{Program, ProgramParts};
use crate::runtime::sprites::run::{
    Loss, RunLimits, RunSetup, SpriteEnd, SpriteExit, SpriteRun, begin,
};
use crate::runtime::sprites::{Client, ClientSettings, Within};
use crate::runtime::{RunHandle as _, RunPipes, StopSignal};
use crate::testing::{LONG, wait_until};
use crate::thread::Threads;

const BASE: &str = "/home/sprite/plugin-runner";
const RELEASE: &str = "/home/sprite/plugin-runner/releases/abc123";

/// In no log and no error.
const SECRET: &str = "secret-value";

/// A service with the sprite `one`, and everything that a run on it needs.
struct Setup {
    fake: Fake,
    client: Client,
    threads: Threads,
    interrupt: Interrupt,
    notes: Arc<Mutex<Vec<String>>>,
    limits: RunLimits,
}

/// A run that is followed by a test.
struct Run {
    handle: SpriteRun,
    stdin: Option<File>,
    stdout: File,
    stderr: File,
}

impl Setup {
    fn new() -> Self {
        let fake = Fake::start();
        let threads = Threads::with_limit(8);
        let settings = ClientSettings {
            base_url: fake.url(),
            token: fake.token().to_owned(),
            roots: Vec::new(),
        };
        let client = Client::new(settings, threads.clone()).unwrap();
        let interrupt = Interrupt::new().unwrap();
        let within = Within::new(LONG, &interrupt);
        client.create_sprite("one", within).unwrap();
        std::fs::create_dir_all(fake.path("one", RELEASE).unwrap()).unwrap();
        Self {
            fake,
            client,
            threads,
            interrupt,
            notes: Arc::default(),
            limits: RunLimits::default(),
        }
    }

    /// A shell script; with input, or as that of a WebSocket plugin without.
    fn script(script: &str, has_stdin: bool) -> Program {
        let variables: BTreeMap<OsString, OsString> = [
            ("GREETING".into(), "it's $(me)\n".into()),
            ("KEY".into(), SECRET.into()),
        ]
        .into();
        Program::new(ProgramParts {
            base: BASE,
            release: RELEASE,
            program: "sh",
            args: &["-c".to_owned(), script.to_owned()],
            variables: &variables,
            has_stdin,
        })
        .unwrap()
    }

    fn try_start(&self, program: &Program) -> Result<Run, SpritesError> {
        let notes = self.notes.clone();
        let setup = RunSetup {
            client: self.client.clone(),
            sprite: "one".to_owned(),
            threads: self.threads.clone(),
            note: Arc::new(move |note: &str| notes.lock().push(note.to_owned())),
            limits: self.limits,
        };
        let (handle, pipes) = begin(setup, program, Within::new(LONG, &self.interrupt))?;
        let RunPipes {
            stdin,
            stdout,
            stderr,
        } = pipes;
        Ok(Run {
            handle,
            stdin: stdin.map(File::from),
            stdout: stdout.unwrap().into(),
            stderr: stderr.unwrap().into(),
        })
    }

    fn start(&self, script: &str) -> Run {
        self.try_start(&Self::script(script, false)).unwrap()
    }

    fn start_with_stdin(&self, script: &str) -> Run {
        self.try_start(&Self::script(script, true)).unwrap()
    }

    fn socket(&self, fault: SocketFault) {
        self.fake.set(|switches| switches.sockets.push_back(fault));
    }

    fn next(&self, times: usize, pattern: &str, fault: Fault) {
        self.fake
            .set(|switches| switches.next(times, pattern, fault));
    }

    fn notes(&self) -> Vec<String> {
        self.notes.lock().clone()
    }

    #[track_caller]
    fn wait_for_calls(&self, count: usize, pattern: &str) {
        wait_until(pattern, || self.fake.calls().count(pattern) >= count);
    }

    /// Ends it all; asserts that no thread and no program is left, and that nothing has told a secret.
    #[track_caller]
    fn finish(self) {
        let left = self.threads.join_all(Deadline::after(LONG));
        assert_eq!(left, 0, "{:?}", self.threads.names());
        wait_until("the end of all sessions", || {
            self.fake.sessions("one").is_empty()
        });
        for note in self.notes() {
            let is_told = note.contains(SECRET) || note.contains(self.fake.token());
            assert!(!is_told && !note.contains("http"), "{note}");
        }
        for call in self.fake.calls().0 {
            let query = format!("{:?}", call.query);
            assert!(!query.contains(SECRET), "{query}");
        }
        self.fake.finish();
    }
}

impl Run {
    fn signal(&self, signal: StopSignal) {
        self.handle.signal(signal, LONG);
    }

    /// Reads from standard output until it ends with this.
    #[track_caller]
    fn read_to(&mut self, end: &str) -> String {
        let mut read = String::new();
        while !read.ends_with(end) {
            let mut byte = [0];
            let descriptor = self.stdout.as_fd();
            let is_there = poll::readable(descriptor, Deadline::after(LONG)).unwrap();
            assert!(is_there, "waited for {end:?} after {read:?}");
            let count = self.stdout.read(&mut byte).unwrap();
            assert_eq!(count, 1, "ended without {end:?} after {read:?}");
            read.push(byte[0].into());
        }
        read
    }

    #[track_caller]
    fn wait(&self) -> SpriteExit {
        let has_ended = poll::readable(self.handle.as_fd(), Deadline::after(LONG)).unwrap();
        assert!(has_ended, "waited for the end of the run");
        self.handle.exit().unwrap()
    }

    /// Reads all output; returns it with how the run ended. For output that finds room in the pipes.
    #[track_caller]
    fn end(mut self) -> (SpriteExit, String, String) {
        let exit = self.wait();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.stderr.read_to_string(&mut stderr).unwrap();
        (exit, stdout, stderr)
    }

    /// Waits for the end, which is this.
    #[track_caller]
    fn ends(self, end: SpriteEnd) {
        assert_eq!(self.wait().end, end);
    }
}

const fn code(code: i32) -> SpriteEnd {
    SpriteEnd::Exited(ExitReason::Code(code))
}

const fn signal(signal: i32) -> SpriteEnd {
    SpriteEnd::Exited(ExitReason::Signal(signal))
}
