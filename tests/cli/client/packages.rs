//! Packages on their way to a host, and back.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use super::{Place, expect};
use crate::program::{Program, manifest};
use crate::support::{LONG, names, wait_until};

#[test]
fn a_package_is_installed_updated_and_downloaded() {
    for place in [Place::new(), Place::served()] {
        let data = if place.server.is_some() {
            ""
        } else {
            "--data data"
        };
        let said = place.ok(&format!("install hello.zip {data}"));
        expect(&said, &["hello (", "is installed, version 1.0.0"]);
        let said = place.fails(1, &format!("install ./hello {data}"));
        expect(&said, &["installed already, version 1.0.0", "--update"]);
        let said = place.fails(1, &format!("update hello bad.zip {data}"));
        expect(&said, &["hello (", "the package is of the plugin \"bad\""]);
        let said = place.ok(&format!("install hello-2.zip --update {data}"));
        expect(&said, &["from version 1.0.0 to 2.0.0"]);
        let said = place.ok(&format!("download hello {data}"));
        expect(&said, &["hello-2.0.0.zip"]);
        let package = fs::read(place.scratch.path("hello-2.zip")).unwrap();
        let copy = place.scratch.path("hello-2.0.0.zip");
        assert!(fs::read(&copy).unwrap() == package, "another package");
        let said = place.fails(1, &format!("download hello {data}"));
        expect(&said, &["hello-2.0.0.zip exists", "--force"]);
        fs::write(&copy, "old").unwrap();
        let shown = place.json(&format!("download hello --force {data}"));
        assert_eq!(shown["bytes"], package.len());
        assert!(fs::read(&copy).unwrap() == package, "the old file");
        let mut download = place.command(&format!("download hello -o - {data}"));
        let output = download.output().unwrap();
        assert!(output.stdout == package, "another package");
        place.scratch.assert_nothing_left();
    }
}

#[test]
fn a_directory_is_packed_installed_and_started_and_what_is_pinned_is_checked() {
    let place = Place::served();
    let said = place.ok("install ./hello --activate");
    expect(&said, &["is installed, version 1.0.0\n", "is active\n"]);
    assert_eq!(place.state("hello"), "active");
    let zeros = "0".repeat(64);
    let said = place.fails(1, &format!("update hello hello-2.zip --sha256 {zeros}"));
    expect(&said, &["SHA-256", &zeros]);
    assert_eq!(place.json("get hello")["version"], "1.0.0");
    let package = fs::read(place.scratch.path("hello-2.zip")).unwrap();
    let mut digest = String::new();
    for byte in Sha256::digest(&package) {
        write!(digest, "{byte:02X}").unwrap();
    }
    let updated = place.json(&format!("update hello hello-2.zip --sha256 {digest}"));
    assert_eq!(updated["version"], "2.0.0");
    assert_eq!(place.state("hello"), "active");
    let said = place.fails(1, "install bad.zip --activate");
    expect(&said, &["bad (", "exit status 42", "plugin-runner logs "]);
    place.scratch.assert_nothing_left();
}

#[test]
fn what_is_no_package_is_named_and_nothing_is_installed() {
    let place = Place::new();
    place.scratch.write("notes.txt", "some notes");
    let cases = [
        (
            1,
            "nothing-here",
            "nothing-here: there is no such file",
            "a plugin's directory, or a URL",
        ),
        (1, "notes.txt", "notes.txt: not a zip archive", ""),
        (
            1,
            "hello/manifest.json",
            "a manifest is no package",
            "--external",
        ),
        (2, "hello.zip --sha256 abc", "64 hexadecimal digits", ""),
        (
            4,
            "hello.zip --activate",
            "no host is running",
            "plugin-runner serve",
        ),
    ];
    for (status, arguments, problem, way_out) in &cases {
        let said = place.fails(*status, &format!("install {arguments} --data data"));
        expect(&said, &[problem, way_out]);
    }
    assert!(!place.scratch.path("data").exists(), "a directory was made");
    let said = place.fails(4, "install hello.zip");
    expect(&said, &["nothing was ever installed", "--data"]);
}

#[test]
fn an_external_plugin_is_installed_with_where_it_connects() {
    let place = Place::served();
    let said = place.ok("install --external chat.json");
    expect(
        &said,
        &[
            "chat (",
            "token, shown only now: sdprt_",
            "ws://127.0.0.1:",
            "/rpc?token=sdprt_",
        ],
    );
    let said = place.fails(1, "install --external chat.json");
    expect(&said, &["installed already", "--update"]);
    expect(
        &place.ok("update chat --manifest chat.json"),
        &["chat (", "is updated"],
    );
    let said = place.fails(1, "update chat hello.zip");
    expect(&said, &["external plugin"]);
    let rotated = place.json("token rotate chat");
    let token = rotated["token"].as_str().unwrap();
    expect(rotated["url"].as_str().unwrap(), &["ws://", token]);
    assert_eq!(place.ok("token rotate chat").lines().count(), 1);
    place.ok("remove chat");
    let added = place.json("install --external chat.json");
    let url = added["connection"]["url"].as_str().unwrap();
    expect(
        url,
        &["ws://", added["connection"]["token"].as_str().unwrap()],
    );
}

/// A host that answers two requests as one would, and then sends half a package.
fn half_a_package(listener: &TcpListener) -> TcpStream {
    let mut stream = answering_until(listener, b"/package");
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nPK")
        .unwrap();
    stream
}

/// A host that answers requests with its list, until one has this in its head.
pub(super) fn answering_until(listener: &TcpListener, wanted: &[u8]) -> TcpStream {
    let list = r#"{"plugins":[{"id":"dc7310e43tv172dprueg","added_at":"2026-01-01T00:00:00Z","name":"hello","description":"","version":"1.0.0","manifest":{"id":"hello"},"connection":{"mode":"supervised"},"status":{"active_state":"inactive"}}]}"#;
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            request.push(byte[0]);
        }
        if request.windows(wanted.len()).any(|part| part == wanted) {
            return stream;
        }
        let length = list.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(list.as_bytes()).unwrap();
    }
}

#[test]
fn a_download_that_is_interrupted_or_broken_off_leaves_no_file() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    fs::create_dir(place.scratch.path("here")).unwrap();
    let here = place.scratch.path("here");
    for signal in [Some(Signal::INT), Some(Signal::TERM), None] {
        let mut command = place
            .scratch
            .command(&format!("download hello -o here/hello.zip --admin {url}"));
        command.env("PLUGIN_RUNNER_TOKEN", "0123456789abcdef0123456789abcdef");
        let program = Program::start(command);
        let stream = half_a_package(&listener);
        wait_until("a file that is written", || names(&here).len() == 1);
        match signal {
            Some(signal) => program.signal(signal),
            None => drop(stream),
        }
        let output = program.end();
        assert_eq!(
            output.status.code(),
            if signal.is_some() { None } else { Some(4) }
        );
        assert_eq!(names(&here), [""; 0], "left behind after {signal:?}");
    }
}

#[test]
fn a_host_that_refuses_early_is_heard_although_it_reads_no_further() {
    let place = Place::served();
    let large = "x".repeat(40 << 20);
    let hello = manifest("hello").to_string();
    let files = [
        ("manifest.json", &*hello, 0o644),
        ("main", "#!/bin/sh\n", 0o755),
        ("large", &*large, 0o644),
    ];
    place.scratch.zip("large.zip", &files);
    let zeros = "0".repeat(64);
    place.ok("install ./hello");
    let said = place.fails(1, &format!("update hello large.zip --sha256 {zeros}"));
    expect(&said, &["SHA-256"]);
    let mut command = place.command("update hello large.zip");
    command.env("PLUGIN_RUNNER_TOKEN", "0123456789abcdef0123456789abcdef");
    let output = Program::start(command).end();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    expect(&said, &["does not take this token"]);
    assert_eq!(place.json("get hello")["version"], "1.0.0");
}

#[test]
fn a_url_is_fetched_by_the_host() {
    let files = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = files.local_addr().unwrap();
    let place = Place::served_with(&format!("--fetch-allow-host {address}"));
    let package = fs::read(place.scratch.path("hello.zip")).unwrap();
    // It ends with the test's process, at the latest.
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = files.accept() {
            let mut byte = [0];
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                request.push(byte[0]);
            }
            let length = package.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&package);
        }
    });
    let url = format!("http://{address}/hello.zip");
    let said = place.ok(&format!("install {url} --activate"));
    expect(
        &said,
        &["hello (", "is installed, version 1.0.0", "is active"],
    );
    let said = place.fails(1, &format!("install {url}"));
    expect(&said, &["installed already", "plugin-runner update"]);
    for command in ["install --update", "update hello"] {
        let said = place.fails(2, &format!("{command} {url}"));
        expect(&said, &["download the package first"]);
    }
    assert_eq!(place.state("hello"), "active");
    let said = place.fails(1, "install http://127.0.0.1:1/hello.zip");
    expect(&said, &["fetch_allowed_hosts"]);
    assert_eq!(place.lines("list").len(), 1);
}
