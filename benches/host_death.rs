//! From the SIGKILL of a host to the death of the last process that it had started: plugins that
//! ignore signals and the end of their connection, with grandchildren in their group and outside of
//! it. Beside it what the system needs to end the host alone.
//!
//! `cargo bench --bench host_death` measures: 100 deaths of small hosts, 20 of one that holds 1 GiB.
//! Run by `cargo test` it does one of each.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plugin_runner::protocol::Manifest;
use plugin_runner::store::{Overrides, Record, Source};
use plugin_runner::{ActiveState, Host, Keeper, ReportedState};
use serde_json::json;
use support::{Bench, By, Case, LONG, Sample, Target, Unit};

/// Makes this program the host: what keeps, and MiB that it holds.
const HOST: &str = "HOST_DEATH_HOST";

const PLUGINS: usize = 8;

const ALONE: &str = "kill + wait of the host alone";

fn main() {
    if let Ok(what) = std::env::var(HOST) {
        return host(&what);
    }
    let about = format!("{PLUGINS} plugins, each with a grandchild, after SIGKILL of their host");
    let bench = Bench::new("host_death", &about);
    // The memory of a dead host is freed before anybody hears of its death, and made before it lives.
    let (large, few) = bench.pick((16, 1), (1024, 1), (1024, 4));
    let many = bench.pick(1, 4, 20);
    for (keeper, mebibytes, trials) in [("sh", 0, many), ("program", 0, many), ("sh", large, few)] {
        let what = format!("{keeper} {mebibytes}");
        let alone = RefCell::new(Vec::new());
        let all = Case::new("last plugin dead", || {
            || {
                let trials = (0..trials).map(|_| trial(&what));
                let (all, hosts): (Vec<_>, Vec<_>) = trials.unzip();
                alone.replace(hosts);
                Sample::of_times(Unit::Milliseconds, &all)
            }
        });
        // Of the same deaths.
        let host = Case::new(ALONE, || {
            || Sample::of_times(Unit::Milliseconds, &alone.take())
        });
        let all = all.against(ALONE, By::Difference, Target::None);
        let cases = [all, host].map(|case| case.unit(Unit::Milliseconds));
        bench.group(
            &format!("keeper {keeper}, host of {mebibytes} MiB more"),
            cases.into(),
        );
    }
}

/// Starts a host, kills it, and gives the times until all is dead and until the host was.
fn trial(what: &str) -> (Duration, Duration) {
    let lifelines = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = std::env::temp_dir().join(format!("plugin-runner-death-{}", std::process::id()));
    let mut host = Command::new(std::env::current_exe().unwrap())
        .env(HOST, what)
        .env(
            "FIXTURE_LIFELINE",
            lifelines.local_addr().unwrap().to_string(),
        )
        .env("HOST_DEATH_FOLDER", &folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(host.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    let lives: Vec<BufReader<TcpStream>> = (0..2 * PLUGINS)
        .map(|_| {
            let (stream, _) = lifelines.accept().unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            let mut life = BufReader::new(stream);
            let mut pid = String::new();
            life.read_line(&mut pid).unwrap();
            assert!(pid.ends_with('\n'), "{pid:?}");
            life
        })
        .collect();
    let began = Instant::now();
    host.kill().unwrap();
    host.wait().unwrap();
    let alone = began.elapsed();
    for mut life in lives {
        match life.read(&mut [0]) {
            Ok(0) => {}
            other => panic!("a process did not end: {other:?}"),
        }
    }
    let all = began.elapsed();
    std::fs::remove_dir_all(&folder).unwrap();
    (all, alone)
}

fn host(what: &str) {
    let (keeper, mebibytes) = what.split_once(' ').unwrap();
    let memory = vec![1_u8; mebibytes.parse::<usize>().unwrap() * 1024 * 1024];
    let folder = PathBuf::from(std::env::var_os("HOST_DEATH_FOLDER").unwrap());
    let keeper = match keeper {
        "sh" => Keeper::Shell,
        _ => Keeper::Command {
            program: env!("CARGO_BIN_EXE_plugin-runner").into(),
            args: vec!["keeper".into()],
        },
    };
    let host = Host::builder()
        .data_dir(&folder)
        .keeper(keeper)
        .build()
        .unwrap();
    let sessions: Vec<_> = (0..PLUGINS)
        .map(|number| {
            let record = record(number);
            let id = record.id;
            host.store().put(record).unwrap();
            host.load(id).unwrap()
        })
        .collect();
    for session in &sessions {
        session.wait_for(ReportedState::Active, LONG).unwrap();
    }
    println!("ready");
    // Until it is killed, or the bench is gone.
    let _ = std::io::stdin().read_line(&mut String::new());
    black_box(memory);
}

fn record(number: usize) -> Record {
    let program = Path::new(env!("CARGO_BIN_EXE_plugin-runner-fixture"));
    let grandchild = ["grandchild", "grandchild-detached"][number % 2];
    let manifest = json!({
        "id": format!("bench-{number}"), "author": "bench", "name": "bench", "command": program,
        "args": ["linger", "ignore-signals", grandchild],
        "transport": "stdio",
    });
    let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
    let folder = program.parent().unwrap().to_owned();
    let lifeline = std::env::var("FIXTURE_LIFELINE").unwrap();
    let mut record = Record::supervised(manifest, Source::Directory(folder));
    record.set_active_state(ActiveState::Active);
    record.overrides = Overrides::default().environment([("FIXTURE_LIFELINE", lifeline)]);
    record
}
