//! Descriptors that whoever starts the program leaves open are none of the plugins' business.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::thread;

use crossbeam_channel::bounded;
use rustix::process::Pid;

use crate::program::{Program, Scratch, manifest, pid};
use crate::support::LONG;
use crate::support::alone::children;

/// Says who it is and which descriptors it has, and answers every call.
const LISTING: &str = r#"#!/usr/bin/env python3
import json, os, sys
print("pid", os.getpid(), flush=True)
for number in os.listdir("/proc/self/fd"):
    try:
        print("open", number, os.readlink("/proc/self/fd/" + number), flush=True)
    except FileNotFoundError:
        pass
print("listed", flush=True)
for line in sys.stdin:
    call = json.loads(line)
    answer = {"jsonrpc": "2.0", "id": call["id"], "result": {"method": call["method"]}}
    print(json.dumps(answer), flush=True)
"#;

/// Replaces itself by the program, which then has its input at the descriptors 7 and 200 instead.
const HAND_DOWN: &str = r#"
import os, sys
for number in (7, 200):
    os.dup2(0, number, inheritable=True)
os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// What the descriptors of a process lead to.
fn open(process: Pid) -> Vec<String> {
    let folder = format!("/proc/{}/fd", process.as_raw_nonzero());
    let entries = fs::read_dir(folder).unwrap();
    let links = entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn what_the_program_was_given_goes_neither_to_plugins_nor_to_the_keeper() {
    let scratch = Scratch::new();
    scratch.plugin("lister", &manifest("lister"), LISTING);
    let (mut left, handed_down) = io::pipe().unwrap();
    let program = scratch.command("run lister --json");
    let mut command = Command::new("python3");
    command
        .args(["-c", HAND_DOWN])
        .arg(program.get_program())
        .args(program.get_args())
        .env("TMPDIR", scratch.temporary())
        .current_dir(program.get_current_dir().unwrap())
        .stdin(Stdio::from(handed_down));
    let mut program = Program::start(command);
    let inode = fs::read_link(format!("/proc/self/fd/{}", left.as_raw_fd()));
    let inode = inode.unwrap().to_string_lossy().into_owned();

    let (mut listed, mut active, mut plugin) = (false, false, None);
    program.object_with("the list, and active", |object| {
        let line = object["line"].as_str().unwrap_or_default();
        assert!(!line.contains(&inode), "the plugin has it: {line}");
        if line.starts_with("pid ") {
            plugin = Some(pid(line));
        }
        listed |= line == "listed";
        active |= object["to"] == "active";
        listed && active
    });
    let plugin = plugin.unwrap();
    let own = program.id();
    assert_eq!(
        open(own).iter().filter(|link| **link == inode).count(),
        2,
        "the program has it"
    );
    let lock = |link: &String| link.ends_with("/.plugin-runner.temporary");
    assert!(open(own).iter().any(lock), "the temporary folder's lock");
    let children = children(own);
    assert!(
        children.contains(&plugin) && children.len() > 1,
        "no keeper: {children:?}"
    );
    for child in children {
        let open = open(child);
        assert!(!open.contains(&inode), "process {child:?} has it: {open:?}");
        assert!(!open.iter().any(lock), "process {child:?} holds the lock");
    }

    program.stop();
    let (sender, ended) = bounded(1);
    thread::spawn(move || sender.send(left.read(&mut [0]).unwrap()));
    assert_eq!(ended.recv_timeout(LONG), Ok(0), "the end of the pipe");
}
