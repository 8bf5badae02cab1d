//! A plugin server on one port: an HTTP API for administrators, and `/rpc` for the plugins that connect in.
//! `cargo run --example server -- DATA ADDRESS` runs it, and SIGTERM or Ctrl-C ends it; when it runs again,
//! everything is back. It trusts everyone who reaches the port: a real server asks who it is.
//!
//! - `GET /plugins` shows all plugins and their states.
//! - `POST /plugins` installs the zip that is the body, or updates the plugin in it.
//! - `POST /plugins/{id}/activate` and `POST /plugins/{id}/deactivate` start and stop a plugin.
//! - `POST /plugins/{id}/call/{method}` calls it; the body is the params.
//! - `GET /plugins/{id}/log` shows what it prints, line by line, until the client goes.

use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use plugin_runner::listener::RequestHead;
use plugin_runner::manager::PackageSource;
use plugin_runner::plugin_log::Follower;
use plugin_runner::{Host, Manager, Result, SqliteStore};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// For an operation on a plugin; for each read and write of a connection, and for the end of everything.
const TIMEOUT: Duration = Duration::from_secs(60);
const SHORT_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> Result<(), String> {
    run().map_err(|error| error.to_string())
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().ok_or("usage: server DATA ADDRESS");
    let (data, listener) = (argument()?, TcpListener::bind(argument()?)?);
    let url = format!("http://{}", listener.local_addr()?);

    let store = Arc::new(SqliteStore::open(&data)?);
    let builder = Host::builder().data_dir(&data).store(store);
    let host = builder.rpc_base_url(&url).build()?;
    let manager = Manager::new(host.clone())?;
    let served = manager.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A real server limits how many of these there are.
            let manager = served.clone();
            thread::spawn(move || serve(&manager, stream).map_err(|error| eprintln!("{error}")));
        }
    });
    // Only now, because plugins connect to the port when they start.
    let up = manager.boot(TIMEOUT)?;
    println!("{url} is up; plugins that run again: {}", up.active.len());

    signals.forever().next();
    // Calls in flight are answered before the plugins are stopped.
    let _ = host.drain(SHORT_TIMEOUT);
    let report = host.shutdown(SHORT_TIMEOUT);
    println!("everything has ended: {}", report.is_complete());
    Ok(())
}

/// Reads one request, and answers it.
fn serve(manager: &Manager, mut stream: TcpStream) -> Result<(), Box<dyn Error>> {
    stream.set_read_timeout(Some(SHORT_TIMEOUT))?;
    stream.set_write_timeout(Some(SHORT_TIMEOUT))?;
    let mut reader = BufReader::new(stream.try_clone()?).take(8 * 1024);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Err("a request ended early, or its head is too long".into());
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(&head)?;
    let (method, target) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
    let path = target.split('?').next().unwrap_or("");
    let path: Vec<&str> = path.split('/').skip(1).collect();
    let headers = request.headers.iter();
    let mut headers = headers.map(|header| (header.name, header.value));
    if path == ["rpc"] {
        let minor = request.version.unwrap_or(1);
        let head = RequestHead::from_parts(method, target, minor, headers);
        match manager.host().admit(head) {
            Ok(admission) => {
                stream.write_all(&admission.to_bytes())?;
                admission.attach(stream, reader.get_ref().buffer().to_vec())?;
            }
            Err(refusal) => stream.write_all(&refusal.to_bytes())?,
        }
        return Ok(());
    }

    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.map_or(Ok("0"), |(_, value)| str::from_utf8(value))?;
    reader.set_limit(length.parse()?);
    let (status, body) = match reply(manager, (method, &path), &mut reader) {
        Ok(Reply::Json(status, value)) => (status, value.to_string()),
        Ok(Reply::Log(log)) => return send_log(log, stream),
        Err(error) => (error.kind().http_status(), json!(error).to_string()),
    };
    let head = "Content-Type: application/json\r\nConnection: close\r\nContent-Length";
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} \r\n{head}: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes())?;
    // The answer may be lost if the connection is closed before everything is read.
    io::copy(&mut reader, &mut io::sink())?;
    Ok(())
}

enum Reply {
    Json(u16, Value),
    Log(Follower),
}

fn reply(manager: &Manager, route: (&str, &[&str]), body: &mut impl Read) -> Result<Reply> {
    let value = match route {
        ("GET", ["plugins"]) => json!(manager.list()?),
        ("POST", ["plugins"]) => json!(manager.install_or_update(PackageSource::reader(body))?),
        ("POST", ["plugins", id, "activate"]) => json!(manager.activate(id.parse()?, TIMEOUT)?),
        ("POST", ["plugins", id, "deactivate"]) => json!(manager.deactivate(id.parse()?, TIMEOUT)?),
        ("POST", ["plugins", id, "call", method]) => {
            // What is no JSON becomes null, which is refused with all else that is no object.
            let params: Value = serde_json::from_reader(body).unwrap_or_default();
            let session = manager.session(id.parse()?)?;
            session.call_raw(method, &params, TIMEOUT)?.read()?
        }
        ("GET", ["plugins", id, "log"]) => return Ok(Reply::Log(manager.follow_log(id.parse()?)?)),
        _ => return Ok(Reply::Json(404, json!({"kind": "no_such_page"}))),
    };
    Ok(Reply::Json(200, value))
}

/// Sends what a plugin has printed and prints from now on.
fn send_log(mut log: Follower, mut stream: TcpStream) -> Result<(), Box<dyn Error>> {
    stream.write_all(b"HTTP/1.1 200 \r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")?;
    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    loop {
        match log.next(Duration::from_secs(1)) {
            Ok(line) => stream.write_all(format!("{line}\n").as_bytes())?,
            Err(error) if !error.is_timeout() => return Err(error.into()),
            // A client that waits sends nothing, not even an end.
            Err(_) if matches!(stream.peek(&mut [0]), Ok(0)) => return Ok(()),
            Err(_) => {}
        }
    }
}
