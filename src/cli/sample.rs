//! The built-in sample plugin, built on the SDK: it says hello, answers, and crashes once, so that a
//! first run of the program shows a plugin's whole life.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::thread;
use std::time::{Duration, Instant};

use plugin_runner::protocol::method::{Ping, PingReply};
use plugin_runner::protocol::{Manifest, Method, Transport};
use plugin_runner::sdk::{HandlerError, Plugin};
use plugin_runner::{Error, Result};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// Where a plugin keeps its own files.
const DATA_VARIABLE: &str = "PLUGIN_DATA_DIR";
/// The file that says that the crash has happened.
const CRASHED_ONCE: &str = "crashed-once";
/// The file of the sample as a script.
const SCRIPT: &str = "sample.sh";
/// The time from being connected to the crash.
const CRASH_AFTER: Duration = Duration::from_secs(2);
/// An event of Storyden's, for hosts that publish it.
const EVENT: &str = "EventThreadPublished";

/// A method that is the sample's own.
#[derive(Serialize, Deserialize)]
struct Greet {
    #[serde(default)]
    name: Option<String>,
}

impl Method for Greet {
    const NAME: &'static str = "greet";
    type Reply = Greeting;
}

#[derive(Serialize, Deserialize)]
struct Greeting {
    greeting: String,
}

/// Returns the manifest that the sample is run with.
pub(crate) fn manifest(program: &Path) -> Manifest {
    Manifest {
        id: "sample".to_owned(),
        author: "plugin-runner".to_owned(),
        name: "Sample".to_owned(),
        description: "Answers pings and greetings, and crashes once".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: program.display().to_string(),
        args: vec!["sample-plugin".to_owned()],
        events_consumed: vec![EVENT.to_owned()],
        ..Manifest::default()
    }
}

/// Writes the sample as a script into this directory, for places where this program is not; returns its
/// manifest.
pub(crate) fn script(dir: &Path) -> io::Result<Manifest> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o755);
    options
        .open(dir.join(SCRIPT))?
        .write_all(include_bytes!("sample.sh"))?;
    Ok(Manifest {
        command: format!("./{SCRIPT}"),
        args: Vec::new(),
        events_consumed: Vec::new(),
        transport: Transport::Stdio,
        ..manifest(Path::new(SCRIPT))
    })
}

/// Runs the sample until its connection ends.
///
/// # Errors
/// As [`Plugin::from_env`] and [`Plugin::run`]: it cannot be run by hand.
pub(crate) fn run() -> Result<()> {
    let dir = std::env::var_os(DATA_VARIABLE).map(PathBuf::from);
    let dir = dir.ok_or(Error::Setting {
        name: DATA_VARIABLE,
        problem: "it is not set: the sample is started by `plugin-runner run`".into(),
    })?;
    let started = Instant::now();
    Plugin::from_env()?
        .on_connect(move |_| connected(&dir))
        .on(move |_, _: Ping| {
            say("answered a ping");
            Ok(PingReply {
                pong: true,
                uptime_seconds: Some(started.elapsed().as_secs_f64()),
                status: Some("healthy".to_owned()),
            })
        })
        .on(|_, params: Greet| Ok(greet(&params)))
        .on_event(EVENT, |_, _: IgnoredAny| {
            say("heard that a thread was published");
            Ok(())
        })
        .run()
}

fn connected(dir: &Path) -> Result<(), HandlerError> {
    say("hello, I am connected");
    if crashes_now(dir)? {
        thread::sleep(CRASH_AFTER);
        say("I crash now, once, to show that I am started again");
        exit(1);
    }
    say("I crashed once already, so from now on I keep running");
    Ok(())
}

/// Returns whether the one crash is still to come; from then on it is not.
fn crashes_now(dir: &Path) -> io::Result<bool> {
    match File::create_new(dir.join(CRASHED_ONCE)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn greet(params: &Greet) -> Greeting {
    let name = params.name.as_deref().unwrap_or("world");
    say(&format!("greeted {name}"));
    Greeting {
        greeting: format!("hello, {name}"),
    }
}

/// Prints a line. An error is ignored: when nothing reads the output, the connection ends as well.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_a_good_one() {
        let manifest = manifest(Path::new("/bin/plugin-runner"));
        assert_eq!(manifest.problems(), []);
        assert_eq!(manifest.unknown_events().count(), 0);
        assert_eq!(manifest.command, "/bin/plugin-runner");
        assert_eq!(manifest.args, ["sample-plugin"]);
    }

    #[test]
    fn it_crashes_once_per_directory() {
        let dir = std::env::temp_dir().join(format!("plugin-runner-sample-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert!(crashes_now(&dir).unwrap());
        assert!(!crashes_now(&dir).unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(crashes_now(&dir).is_err());
    }
}
