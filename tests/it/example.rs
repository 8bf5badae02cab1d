//! The examples, run as a reader would who tries them.

use std::fs;
use std::io::{BufRead as _, BufReader, Cursor, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use crossbeam_channel::bounded;
use plugin_runner::sdk::Plugin;
use serde_json::json;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::support::http::Request;
use crate::support::{LONG, TestDir, wait_until};

/// An example's program, which every `cargo test` builds that is not told to build less.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let examples = own.ancestors().nth(2).unwrap().join("examples");
    let program = examples.join(name);
    assert!(
        program.is_file(),
        "{} is not built; `cargo build --example {name}` does",
        program.display()
    );
    program
}

#[track_caller]
fn run(example: &str, arguments: &[&Path]) -> String {
    let output = Command::new(program(example))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{errors}", output.status);
    text
}

#[test]
fn what_the_example_was_given_is_there_when_it_runs_again() {
    let folder = TestDir::new("example");
    let (data, package) = (folder.path().join("data"), folder.path().join("plugin.zip"));
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("manifest.json", SimpleFileOptions::default())
        .unwrap();
    let manifest = json!({
        "id": "kept", "author": "test", "name": "Kept", "args": ["behave"],
        "command": env!("CARGO_BIN_EXE_plugin-runner-fixture"),
    });
    zip.write_all(manifest.to_string().as_bytes()).unwrap();
    fs::write(&package, zip.finish().unwrap().into_inner()).unwrap();

    let said = "Kept is active\nand says Some(\"healthy\")\neverything has ended: true\n";
    assert_eq!(
        run("embed", &[&data, &package]),
        format!("up again: 0, failed: 0\n{said}")
    );
    // The package itself is not needed any more.
    fs::remove_file(&package).unwrap();
    for _ in 0..2 {
        assert_eq!(
            run("embed", &[&data]),
            format!("up again: 1, failed: 0\n{said}")
        );
    }
}

#[test]
fn the_example_of_a_store_shows_what_it_cannot_read() {
    let dir = TestDir::new("json-example");
    let run = || {
        let mut command = Command::new(program("json_store"));
        let output = command.arg(dir.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let first = run();
    let (id, rest) = first.split_once(' ').unwrap();
    assert_eq!(rest, "is connecting: as it should be\n");
    assert_eq!(run(), first, "it is there again");
    let file = dir.path().join(format!("{id}.json"));
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 2]).unwrap();
    let damaged = run();
    let expected =
        format!("{id} is errored: its record is damaged: its file cannot be read: line ");
    assert!(damaged.starts_with(&expected), "{damaged}");
    fs::write(&file, whole).unwrap();
    assert_eq!(run(), first, "it is whole again");
}

#[test]
fn a_host_and_its_plugin_call_each_other_with_methods_of_their_own() {
    let said = [
        "the plugin says: good morning, Ada",
        "the plugin hears that Ada has arrived",
        "the event is Delivered",
    ];
    assert_eq!(run("own_methods", &[]), said.join("\n") + "\n");
}

#[test]
fn an_external_plugin_connects_with_its_url_until_the_token_is_replaced() {
    let dir = TestDir::new("external");
    let said = run("external", &[dir.path()]);
    let (url, rest) = said.split_once('\n').unwrap();
    assert!(url.starts_with("connects with ws://127.0.0.1:"), "{url}");
    let (_, token) = url.split_once("/rpc?token=").unwrap();
    assert!(!rest.contains(token), "{rest}");
    let expected = [
        r#"answers {"method":"shout","text":"HELLO"}"#,
        "with the old URL: not connected: the handshake was refused with HTTP status 401",
        r#"answers {"method":"shout","text":"HELLO AGAIN"}"#,
        "everything has ended: true",
    ];
    assert_eq!(rest, expected.join("\n") + "\n");
}

/// An example that is ended with the test, even if that fails.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_plugin_and_a_browser_use_one_port_of_the_example() {
    let dir = TestDir::new("one-port");
    let mut command = Command::new(program("one_port"));
    command.arg(dir.path()).stdin(Stdio::piped());
    let mut server = Server(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut output = BufReader::new(server.0.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let (health, url) = (line(), line());
    let (_, address) = health.split_once("http://").unwrap();
    let (address, path) = address.split_once('/').unwrap();
    let address = address.parse().unwrap();
    let get = |path: &str| Request::get(path).send(address);
    let path = format!("/{path}");
    let state = || get(&path).body;
    assert!(state().ends_with(" is connecting\n"), "{}", state());
    assert_eq!(get("/elsewhere").status, 404);
    assert_eq!(
        Request::upgrade("/rpc?token=sdprt_x").send(address).status,
        400
    );

    let (connected, connects) = bounded(1);
    let plugin = Plugin::connect_to(&url).unwrap().on_connect(move |host| {
        let configuration = host.get_config(&[], LONG)?;
        let _ = connected.try_send(configuration);
        Ok(())
    });
    let handle = plugin.host();
    let running = thread::spawn(move || plugin.run());
    // The plugin's call is answered, so frames go both ways.
    connects.recv_timeout(LONG).unwrap();
    wait_until("the plugin to be active", || {
        state().ends_with(" is active\n")
    });
    handle.close();
    running.join().unwrap().unwrap();

    drop(server.0.stdin.take());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "everything has ended: true\n");
    assert!(server.0.wait().unwrap().success());
}
