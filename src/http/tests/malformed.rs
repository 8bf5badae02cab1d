//! Requests that two readers could understand in two ways: each is refused, and what is hidden in it is not
//! served.

use super::*;

/// Asserts that this is answered so, and that the connection ends then.
#[track_caller]
fn assert_refused(bytes: impl AsRef<[u8]>, status: u16) {
    let bytes = bytes.as_ref();
    let shown = bytes[..bytes.len().min(200)].escape_ascii().to_string();
    let (server, targets) = TestServer::echo(HttpSettings {
        linger: Duration::from_millis(50),
        ..patient()
    });
    let mut client = server.connect();
    // The server may have ended the connection before all is sent.
    let _ = client.0.write_all(bytes);
    let answer = client.answer();
    assert_eq!(answer.status, status, "{shown}: {answer:?}");
    assert_eq!(answer.header("Connection"), Some("close"), "{shown}");
    client.ends();
    assert!(!targets.all().contains(&"/smuggled".to_owned()), "{shown}");
    // It serves others.
    assert_eq!(server.connect().get("/next").status, 200);
}

const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

fn post(headers: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n\r\n{body}")
}

#[test]
fn lengths_that_are_not_one_number() {
    for headers in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 0\r\nContent-Length: 35",
        "Content-Length: 5, 5",
        "Content-Length: -5",
        "Content-Length: +5",
        "Content-Length: 18446744073709551616",
        "Content-Length: 0x23",
        "Content-Length: ",
    ] {
        assert_refused(post(headers, HIDDEN), 400);
    }
}

#[test]
fn a_length_beside_chunks() {
    let chunks = format!("0\r\n\r\n{HIDDEN}");
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
    ] {
        assert_refused(post(headers, &chunks), 400);
    }
}

#[test]
fn codings_other_than_chunked() {
    let chunks = format!("0\r\n\r\n{HIDDEN}");
    for coding in [
        "xchunked",
        "chunked, identity",
        "identity",
        "gzip",
        "\"chunked\"",
        "chunked;a",
    ] {
        assert_refused(post(&format!("Transfer-Encoding: {coding}"), &chunks), 400);
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
    assert_refused(post(twice, &chunks), 400);
    let old = format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    assert_refused(old, 400);
}

#[test]
fn chunks_that_are_none() {
    for chunks in [
        "xyz\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "000000005\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloGET",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "0\r\n\n",
        "0\r\nx: y\n\r\n",
        "0\r\nx: \0\r\n\r\n",
    ] {
        assert_refused(
            post("Transfer-Encoding: chunked", &format!("{chunks}{HIDDEN}")),
            400,
        );
    }
}

#[test]
fn chunk_extensions_and_trailers_without_end() {
    let chunked = "Transfer-Encoding: chunked";
    // One line of 3 MB, and many lines of 200 bytes.
    let one = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(3_000_000));
    assert_refused(post(chunked, &one), 400);
    let many = format!("1;{}\r\nx\r\n", "x".repeat(200)).repeat(1000);
    assert_refused(post(chunked, &format!("{many}0\r\n\r\n")), 400);
    let trailers = "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1000);
    assert_refused(post(chunked, &format!("0\r\n{trailers}\r\n")), 400);
}

#[test]
fn a_nul_and_a_host_that_is_missing_or_there_twice() {
    assert_refused("GET / HTTP/1.1\r\nHost: h\r\nx: a\0b\r\n\r\n", 400);
    assert_refused("GET / HTTP/1.1\r\nHo\0st: h\r\n\r\n", 400);
    assert_refused("GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    assert_refused("GET / HTTP/1.1\r\n\r\n", 400);
    assert_refused("GET / HTTP/1.1\r\nHost: h\r\nHost: other\r\n\r\n", 400);
}

#[test]
fn lines_that_end_in_half_a_line_end() {
    assert_refused("GET / HTTP/1.1\nHost: h\r\n\r\n", 400);
    assert_refused("GET / HTTP/1.1\r\nHost: h\r\nx: y\nz: a\r\n\r\n", 400);
    assert_refused("GET / HTTP/1.1\nHost: h\n\r\n\r\n", 400);
    assert_refused(
        format!("GET / HTTP/1.1\r\nHost: h\r\nx: y\n\r\n{HIDDEN}"),
        400,
    );
    assert_refused(format!("GET / HTTP/1.1\r\nHost: h\r\n\n{HIDDEN}"), 400);
    assert_refused("GET / HTTP/1.1\r\nHost: h\r\nx: y\rz: a\r\n\r\n", 400);
    assert_refused("GET / HTTP/1.1\r\nHost: h\r\n folded: y\r\n\r\n", 400);
    // Without any, the head has no end; its deadline is another test's.
    let (server, _) = TestServer::echo(HttpSettings {
        head: SHORT,
        ..patient()
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\nHost: h\n\n");
    assert_eq!(client.answer().status, 408);
}

#[test]
fn what_is_not_http_or_another_version() {
    assert_refused("\x16\x03\x01\x02\r\n\r\n", 400);
    assert_refused("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505);
    assert_refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    assert_refused("GET http://other/ HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    assert_refused("CONNECT other:443 HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    assert_refused("GET / HTTP/1.1\r\nHost: h\r\nExpect: more\r\n\r\n", 417);
    let many = "x: y\r\n".repeat(64);
    assert_refused(format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n"), 431);
}
