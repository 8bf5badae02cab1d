//! The client's handshake, against a server of the test's own.

use super::*;
use crate::testing::{TestDir, assert_matches};

/// Accepts one connection and does what `serve` says.
fn serve(serve: impl FnOnce(TcpStream) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || serve(listener.accept().unwrap().0));
    (format!("ws://localhost:{port}/rpc?token=secret"), serving)
}

fn head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn accept(request: &str) -> String {
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .unwrap();
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

#[test]
fn a_client_connects_and_loses_nothing_sent_early() {
    let (url, serving) = serve(|mut stream| {
        let request = head(&mut stream);
        assert!(request.starts_with("GET /rpc?token=secret HTTP/1.1\r\n"));
        let agent = format!(
            "User-Agent: plugin-runner/{}\r\n",
            env!("CARGO_PKG_VERSION")
        );
        assert!(request.contains(&agent), "{request}");
        // In one piece with the answer.
        let mut bytes = accept(&request).into_bytes();
        bytes.extend(b"\x81\x05early");
        stream.write_all(&bytes).unwrap();
        let mut answer = [0; 2 + 4 + 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..2], [0x81, 0x84]);
    });
    let socket = WebSocket::connect(&url, LONG).unwrap();
    let mut halves = Halves::of(socket, &settings()).unwrap();
    assert_eq!(receive_text(&mut halves.reader), "early");
    halves.writer.send("pong", long()).unwrap();
    serving.join().unwrap();
    assert_matches!(halves.reader.receive(), Err(Disconnect::Lost));
}

#[test]
fn a_client_connects_over_a_unix_socket() {
    let dir = TestDir::new("websocket");
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = head(&mut stream);
        stream.write_all(accept(&request).as_bytes()).unwrap();
        stream.write_all(b"\x81\x02hi").unwrap();
    });
    let socket = WebSocket::connect_unix(&path, "ws://localhost/rpc", LONG).unwrap();
    let mut halves = Halves::of(socket, &settings()).unwrap();
    assert_eq!(receive_text(&mut halves.reader), "hi");
    serving.join().unwrap();
}

#[test]
fn a_refused_handshake_names_the_status() {
    let (url, serving) = serve(|mut stream| {
        head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
    });
    let error = WebSocket::connect(&url, LONG).unwrap_err();
    assert_eq!(
        error.to_string(),
        "not connected: the handshake was refused with HTTP status 401"
    );
    serving.join().unwrap();
}

#[test]
fn a_handshake_that_takes_too_long_ends_in_time() {
    // Connects, thanks to the queue of the listener; then nothing.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("ws://{}/rpc", listener.local_addr().unwrap());
    let error = WebSocket::connect(&url, Duration::from_millis(100)).unwrap_err();
    assert_matches!(
        error,
        Error::Timeout {
            phase: Phase::Handshake,
            ..
        }
    );
}

#[test]
fn what_cannot_be_connected_to_says_why() {
    let error = |url: &str| WebSocket::connect(url, LONG).unwrap_err().to_string();
    assert!(error("wss://localhost/rpc").contains("TLS"));
    assert!(error("http://localhost/rpc").contains("not a ws:// URL"));
    assert!(!error("ws://[::1/rpc?token=secret").contains("secret"));
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    assert!(error(&format!("ws://{address}/rpc")).starts_with("cannot connect to 127.0.0.1:"));
    let (url, serving) = serve(|mut stream| {
        head(&mut stream);
    });
    assert!(error(&url).contains("connection lost"));
    serving.join().unwrap();
    let (url, serving) = serve(|mut stream| {
        let request = head(&mut stream).replace("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: x");
        stream.write_all(accept(&request).as_bytes()).unwrap();
    });
    assert!(error(&url).contains("did not read our handshake"));
    serving.join().unwrap();
    let (url, serving) = serve(|mut stream| {
        head(&mut stream);
        stream.write_all(b"SSH-2.0-not-a-web-server\r\n").unwrap();
    });
    assert!(error(&url).contains("broke the protocol"));
    serving.join().unwrap();
}
