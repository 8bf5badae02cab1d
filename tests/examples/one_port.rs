//! One port for an HTTP server and the plugins that connect to it: `cargo run --example one_port -- DATA`
//! prints where `/health` is and the URL that one external plugin connects with, which `/rpc` of the same
//! port answers. It ends when its input does.

use std::error::Error;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use plugin_runner::listener::RequestHead;
use plugin_runner::protocol::Manifest;
use plugin_runner::{Host, Manager};

/// How long a request head may take, and how large it may be in bytes.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_LIMIT: usize = 8 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let data = std::env::args_os().nth(1).map(PathBuf::from);
    let data = data.ok_or("usage: one_port DATA")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let base = format!("http://{}", listener.local_addr()?);
    let host = Host::builder().data_dir(data).rpc_base_url(&base).build()?;
    let manifest = Manifest {
        id: "outside".to_owned(),
        author: "example".to_owned(),
        name: "Outside".to_owned(),
        ..Manifest::default()
    };
    let (_, token) = Manager::new(host.clone())?.install_external(manifest)?;
    println!("{base}/health\n{}", token.connection_url(&base)?);

    let served = host.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A real server limits how many of these there are.
            let host = served.clone();
            thread::spawn(move || {
                if let Err(error) = serve(&host, stream) {
                    eprintln!("{error}");
                }
            });
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink())?;
    let report = host.shutdown(Duration::from_secs(10));
    println!("everything has ended: {}", report.is_complete());
    Ok(())
}

/// Reads a request head, and answers it or hands it to the host.
fn serve(host: &Host, mut stream: TcpStream) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + READ_TIMEOUT;
    let mut read = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(length) = request.parse(&read)? {
            return match request.path.unwrap_or_default().split('?').next() {
                Some("/rpc") => rpc(host, stream, &request, read[length..].to_vec()),
                Some("/health") => respond(&mut stream, "200 OK", &health(host)),
                _ => respond(&mut stream, "404 Not Found", "nothing here\n"),
            };
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || read.len() >= HEAD_LIMIT {
            return Err("the request is not complete".into());
        }
        stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err("the peer went away".into());
        }
        read.extend_from_slice(&chunk[..count]);
    }
}

/// Has the host decide whether a plugin may connect, sends its answer, and hands the connection over.
fn rpc(
    host: &Host,
    mut stream: TcpStream,
    request: &httparse::Request<'_, '_>,
    rest: Vec<u8>,
) -> Result<(), Box<dyn Error>> {
    let headers = request.headers.iter();
    let head = RequestHead::from_parts(
        request.method.unwrap_or_default(),
        request.path.unwrap_or_default(),
        request.version.unwrap_or_default(),
        headers.map(|header| (header.name, header.value)),
    );
    match host.admit(head) {
        Ok(admission) => {
            stream.write_all(&admission.to_bytes())?;
            admission.attach(stream, rest)?;
        }
        Err(refusal) => stream.write_all(&refusal.to_bytes())?,
    }
    Ok(())
}

fn health(host: &Host) -> String {
    let line = |session: plugin_runner::Session| {
        format!("{} is {}\n", session.id(), session.reported_state())
    };
    host.sessions().into_iter().map(line).collect()
}

fn respond(stream: &mut TcpStream, status: &str, body: &str) -> Result<(), Box<dyn Error>> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    Ok(())
}
