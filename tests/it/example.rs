//! The examples, run as a reader would who tries them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::bounded;
use plugin_runner::protocol::Manifest;
use plugin_runner::sdk::Plugin;
use plugin_runner::{Host, InstallationId, Manager, SqliteStore};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat, open};
use rustix::io::write;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::support::alone::{Driver, Watched};
use crate::support::http::{Answer, Request, connect, exchange};
use crate::support::plugin::{manifest, package};
use crate::support::{LONG, TestDir, wait_for, wait_until};

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
    let (data, package) = (folder.path().join("data"), folder.path().join("kept.zip"));
    kept(folder.path());
    let said =
        "Test plugin kept is active\nand says Some(\"healthy\")\neverything has ended: true\n";
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
fn a_plugin_lives_as_any_other_when_it_is_started_through_a_command() {
    let dir = TestDir::new("wrapped");
    let said = |niceness: i32| {
        let said = [
            "it is active in wrapped",
            &format!("its niceness is {niceness}"),
            "it is inactive, killed: false",
            "it was starting, connecting, active, stopping, inactive",
            "everything has ended: true",
        ];
        said.join("\n") + "\n"
    };
    let own = rustix::process::nice(0).unwrap();
    assert_eq!(run("wrapped", &[dir.path()]), said(own));
    let command = ["nice", "-n", "1"].map(Path::new);
    let arguments = [&[dir.path()], &command[..]].concat();
    assert_eq!(run("wrapped", &arguments), said(own + 1));
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

/// The server, and what it is asked over HTTP.
struct Server {
    driver: Driver,
    address: SocketAddr,
}

impl Server {
    /// Starts it, and checks how many plugins it has started.
    #[track_caller]
    fn start(data: &Path, plugins: usize) -> Self {
        let mut command = Command::new(program("server"));
        let driver = Driver::start(command.arg(data).arg("127.0.0.1:0"));
        let up = driver.wait_for("http://");
        let (address, started) = up.split_once(" is up; plugins that run again: ").unwrap();
        assert_eq!(started, plugins.to_string());
        let address = address.parse().unwrap();
        Self { driver, address }
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let request = Request::get(path).method(method);
        let request = request.with("Content-Length", &body.len().to_string());
        let bytes = [request.to_text().as_bytes(), body].concat();
        exchange(connect(self.address), &bytes)
    }

    #[track_caller]
    fn expect(&self, status: u16, method: &str, path: &str, body: &[u8]) -> Value {
        let answer = self.send(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        serde_json::from_str(&answer.body).unwrap()
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        self.expect(200, "GET", path, b"")
    }

    #[track_caller]
    fn post(&self, path: &str, body: &[u8]) -> Value {
        self.expect(200, "POST", path, body)
    }

    /// The states of all plugins, by their names.
    #[track_caller]
    fn states(&self) -> BTreeMap<String, String> {
        let plugins = self.get("/plugins");
        let plugins = plugins.as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        plugins
            .map(|plugin| {
                let name = text(&plugin["manifest"]["id"]);
                (name, text(&plugin["reported_state"]))
            })
            .collect()
    }

    /// Asks it to end, with `last` to be done meanwhile, and checks that nothing of it is left.
    #[track_caller]
    fn end_after(mut self, last: impl FnOnce(&Self)) {
        let children = self.driver.children();
        let children: Vec<_> = children.into_iter().map(Watched::new).collect();
        kill_process(self.driver.pid(), Signal::TERM).unwrap();
        last(&self);
        assert_eq!(self.driver.wait_for("everything has ended: "), "true");
        self.driver.wait();
        for child in children {
            child.expect_end("a child of the server's");
        }
    }

    #[track_caller]
    fn end(self) {
        self.end_after(|_| {});
    }
}

/// The package of a plugin that does what it is told.
fn kept(folder: &Path) -> Vec<u8> {
    let manifest = Manifest {
        command: env!("CARGO_BIN_EXE_plugin-runner-fixture").to_owned(),
        args: vec!["behave".to_owned()],
        ..manifest("kept")
    };
    fs::read(package(folder, "kept.zip", &manifest, &[])).unwrap()
}

#[test]
fn the_server_has_everything_on_one_port_and_again_after_a_restart() {
    let folder = TestDir::new("server");
    let data = folder.path().join("data");
    let server = Server::start(&data, 0);
    assert_eq!(server.get("/plugins"), json!([]));
    let zip = kept(folder.path());
    let uploaded = server.post("/plugins", &zip);
    assert_eq!(uploaded["newly_installed"], true);
    assert_eq!(server.post("/plugins", &zip)["unchanged"], true);
    assert_eq!(server.states()["kept"], "inactive");
    let id = uploaded["installation"]["id"].as_str().unwrap();
    let path = |rest: &str| format!("/plugins/{id}/{rest}");

    let activated = server.post(&path("activate"), b"");
    assert_eq!(activated["reported_state"], "active");
    let reply = server.post(&path("call/echo"), br#"{"text": "hello"}"#);
    assert_eq!(reply["echo"], json!({"text": "hello"}));

    // The log: what is there, and what comes; until the client wants no more.
    let request = Request::get(&path("log")).to_text();
    let mut log = connect(server.address);
    log.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(log.try_clone().unwrap()).lines();
    let mut await_line = |wanted: &str| {
        let found = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line == wanted);
        assert!(found.is_some(), "the log ended before {wanted:?}");
    };
    await_line("connected");
    server.post(&path("call/log"), br#"{"line": "from the plugin"}"#);
    await_line("from the plugin");
    log.shutdown(Shutdown::Write).unwrap();
    assert_eq!(lines.map(Result::unwrap).collect::<Vec<_>>(), [""; 0]);

    assert_eq!(
        server.post(&path("deactivate"), b"")["reported_state"],
        "inactive"
    );
    assert_eq!(server.states()["kept"], "inactive");
    server.post(&path("activate"), b"");
    server.end();

    let server = Server::start(&data, 1);
    assert_eq!(server.states()["kept"], "active");
    let reply = server.post(&path("call/echo"), b"{}");
    assert_eq!(reply["echo"], json!({}));
    server.end();
}

#[test]
fn the_server_answers_errors_with_their_kind_and_status() {
    let folder = TestDir::new("server-errors");
    let server = Server::start(&folder.path().join("data"), 0);
    let uploaded = server.post("/plugins", &kept(folder.path()));
    let id = uploaded["installation"]["id"].as_str().unwrap();
    let path = |rest: &str| format!("/plugins/{id}/{rest}");
    let expect = |status, kind: &str, method: &str, path: &str, body: &[u8]| {
        let error = server.expect(status, method, path, body);
        assert_eq!(error["kind"], kind, "{error}");
    };
    let unknown = |rest: &str| format!("/plugins/{}/{rest}", InstallationId::generate());
    expect(404, "not_installed", "POST", &unknown("activate"), b"");
    expect(404, "not_installed", "POST", &unknown("call/echo"), b"{}");
    expect(404, "not_installed", "GET", &unknown("log"), b"");
    expect(400, "invalid_input", "POST", "/plugins/17/activate", b"");
    expect(404, "not_loaded", "POST", &path("call/echo"), b"{}");
    expect(422, "invalid_package", "POST", "/plugins", b"no zip");
    expect(404, "no_such_page", "GET", "/elsewhere?/rpc", b"");
    let refused = Request::upgrade("/rpc?token=sdprt_x").send(server.address);
    assert_eq!(refused.status, 400);

    server.post(&path("activate"), b"");
    expect(502, "rpc", "POST", &path("call/nothing"), b"{}");
    expect(400, "invalid_input", "POST", &path("call/echo"), b"no JSON");
    server.end();
}

#[test]
fn an_external_plugin_connects_through_the_port_of_the_server() {
    let folder = TestDir::new("server-external");
    let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
    let host = Host::builder().data_dir(folder.path()).store(store);
    let manager = Manager::new(host.build().unwrap()).unwrap();
    let (_, token) = manager.install_external(manifest("outside")).unwrap();
    drop(manager);

    let server = Server::start(folder.path(), 0);
    assert_eq!(server.states()["outside"], "connecting");
    let url = token.connection_url(&format!("http://{}", server.address));
    let (connected, connects) = bounded(1);
    let plugin = Plugin::connect_to(&url.unwrap()).unwrap();
    let plugin = plugin.on_connect(move |host| {
        let _ = connected.try_send(host.get_config(&[], LONG)?);
        Ok(())
    });
    let handle = plugin.host();
    let running = thread::spawn(move || plugin.run());
    // Its call is answered, so frames go both ways.
    connects.recv_timeout(LONG).unwrap();
    wait_until("the plugin to be active", || {
        server.states()["outside"] == "active"
    });
    handle.close();
    running.join().unwrap().unwrap();
    server.end();
}

#[test]
fn the_server_answers_the_calls_in_flight_before_it_ends() {
    let folder = TestDir::new("server-drain");
    let server = Server::start(&folder.path().join("data"), 0);
    let uploaded = server.post("/plugins", &kept(folder.path()));
    let id = uploaded["installation"]["id"].as_str().unwrap();
    let path = |rest: &str| format!("/plugins/{id}/{rest}");
    server.post(&path("activate"), b"");

    // The plugin reads a pipe until its writer has closed it.
    let pipe = folder.path().join("pipe");
    mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    let params = json!({"path": pipe}).to_string();
    let mut call = connect(server.address);
    let request = Request::get(&path("call/read")).method("POST");
    let request = request.with("Content-Length", &params.len().to_string());
    call.write_all((request.to_text() + &params).as_bytes())
        .unwrap();
    let writer = wait_for("the plugin to read the pipe", || {
        open(&pipe, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()).ok()
    });
    server.end_after(|server| {
        wait_until("other calls to be refused", || {
            server.send("POST", &path("call/echo"), b"{}").status == 503
        });
        write(&writer, b"in time").unwrap();
        drop(writer);
        let answer = Answer::read(call);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.contains("in time"), "{}", answer.body);
    });
}
