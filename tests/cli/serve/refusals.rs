//! What keeps the server from starting: one clear line each.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use super::{FREE, Server, command};
use crate::program::{Program, Scratch, text};
#[cfg(target_os = "linux")]
use crate::support::disk::run_on_a_disk;

/// What the server says, without the time, before it ends with this code.
#[track_caller]
fn refused(scratch: &Scratch, code: i32, arguments: &str) -> String {
    refused_command(command(scratch, arguments), code)
}

/// What this command says, without the time, before it ends with this code.
#[track_caller]
fn refused_command(command: Command, code: i32) -> String {
    let output = Program::start(command).end();
    let said = text(&output.stderr).to_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let said = said.trim_end();
    said.split_once("[ERROR] ")
        .map_or(said, |(_, said)| said)
        .to_owned()
}

#[test]
fn two_servers_cannot_have_one_directory() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "");
    let said = refused(&scratch, 1, &format!("--data data {FREE}"));
    let pid = server.program.id().as_raw_nonzero();
    assert_eq!(
        said,
        format!(
            "--data: the data directory {} is in use by process {pid}; stop that, or use another directory",
            server.data.display()
        )
    );
    // What the first one wrote is still its own.
    assert!(server.data.join("admin.json").exists());
    server.plugins();
    server.program.stop();
}

#[test]
fn a_run_and_a_server_cannot_have_one_directory() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "");
    let entries = || {
        let entries = fs::read_dir(&server.data).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        names
    };
    let before = entries();
    let of_a_server = "--data data: this is the directory of a server";
    let said = refused_command(scratch.command("run --data data"), 2);
    assert!(said.contains(of_a_server), "{said}");
    assert!(said.contains("name another"), "{said}");
    assert_eq!(entries(), before);
    server.program.stop();
    // It is the server's while that is stopped, too.
    let said = refused_command(scratch.command("run --data data"), 2);
    assert!(said.contains(of_a_server), "{said}");

    let run = scratch.start("run --data kept");
    run.error_with("built-in sample");
    let of_a_run = "--data: kept is the directory of a `plugin-runner run`, which installs nothing; name another, \
                    and install the plugins there";
    let arguments = format!("--data kept {FREE}");
    assert_eq!(refused(&scratch, 2, &arguments), of_a_run);
    run.stop();
    assert_eq!(refused(&scratch, 2, &arguments), of_a_run);
    assert!(!scratch.path("kept/plugins.sqlite").exists());

    // What `run` left in a server's directory before it was refused there does not keep the server from it.
    fs::write(scratch.path("data/.plugin-runner.lock"), "").unwrap();
    Server::start(&scratch, "").program.stop();
}

#[test]
fn a_port_that_is_taken_is_named_with_its_flag() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (flag, other) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let said = refused(
            &scratch,
            1,
            &format!("--data data {flag} {address} {other} 127.0.0.1:0"),
        );
        assert!(
            said.starts_with(&format!("{flag}: cannot listen on {address}: ")),
            "{said}"
        );
        assert!(
            said.ends_with("take another port, or 0 for a free one"),
            "{said}"
        );
    }
    assert!(!scratch.path("data/admin.json").exists());
}

#[test]
fn a_directory_that_cannot_be_used_is_named_with_its_setting() {
    let scratch = Scratch::new();
    scratch.write("file", "x");
    let said = refused(&scratch, 1, &format!("--data file {FREE}"));
    assert_eq!(
        said,
        "--data: file is not a directory; name one, or what is to become one"
    );
    let said = refused(&scratch, 1, &format!("--data file/below {FREE}"));
    assert!(
        said.starts_with("--data: cannot create the directory file/below: "),
        "{said}"
    );
    // Where no user may create anything, not even root.
    let mut command = command(&scratch, FREE);
    command.env("PLUGIN_DATA_PATH", "/proc/plugins");
    let output = Program::start(command).end();
    let said = text(&output.stderr);
    assert!(
        said.contains("PLUGIN_DATA_PATH: cannot create the directory /proc/plugins: "),
        "{said}"
    );
    assert_eq!(fs::read(scratch.path("file")).unwrap(), b"x");
}

#[test]
fn an_address_that_others_reach_needs_a_token_of_ones_own() {
    let scratch = Scratch::new();
    let said = refused(
        &scratch,
        2,
        "--data data --listen 127.0.0.1:0 --admin 0.0.0.0:0",
    );
    assert!(
        said.contains("--admin 0.0.0.0:0") && said.contains("--admin-token-file"),
        "{said}"
    );
    let said = refused(
        &scratch,
        2,
        "--data data --listen 127.0.0.1:9000 --admin 127.0.0.1:9000",
    );
    assert!(said.contains("take another"), "{said}");
    assert!(!scratch.path("data").exists());
}

#[test]
fn sprites_need_their_settings() {
    let scratch = Scratch::new();
    let arguments = format!("--data data {FREE} --runtime sprites");
    let output = Program::start(command(&scratch, &arguments)).end();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].contains("SPRITES_API_KEY"), "{said}");
    assert!(lines[1].contains("--public-url"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said() {
    run_on_a_disk(1, &["serve::refusals::alone::nothing_fits"]);
}

/// Tests in a process of their own, with a disk of their own.
#[cfg(target_os = "linux")]
mod alone {
    use std::fs;

    use crate::program::{Program, Scratch, text};
    use crate::serve::{FREE, command};
    use crate::support::disk;

    #[test]
    #[ignore = "mounts; run by another test, in a namespace of its own"]
    fn nothing_fits() {
        let scratch = Scratch::new();
        let disk = disk::mounted().unwrap();
        // So that it is a different file each time that does not fit.
        for room in (0..96).step_by(4) {
            let ballast = disk::fill(&disk, room * 1024);
            let data = disk.join(format!("data-{room}"));
            let arguments = format!("--data {} {FREE}", data.display());
            let program = Program::start(command(&scratch, &arguments));
            if program.error_with("").contains("plugins connect to") {
                program.stop();
            } else {
                let output = program.end();
                let said = text(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{room}: {said}");
                assert_eq!(said.lines().count(), 1, "{room}: {said}");
                let said = said.to_lowercase();
                assert!(said.contains("no space left"), "{room}: {said}");
                assert!(!data.join("admin.json").exists());
            }
            // Nothing that was begun is in the way once there is room.
            fs::remove_file(ballast).unwrap();
            let program = Program::start(command(&scratch, &arguments));
            program.error_with("up; no plugin is wanted active");
            program.stop();
            fs::remove_dir_all(data).unwrap();
        }
    }
}
