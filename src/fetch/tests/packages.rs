//! What is received, and when it is refused: bytes, statuses, lengths, limits and digests.

use std::cell::Cell;
use std::io::Write as _;

use sha2::{Digest as _, Sha256};

use super::server::{Server, wait_for_end, write};
use super::{
    LIMIT, assert_no_thread_is_left, cause, failure, fetch, fetch_request, fetched, fetcher,
    read_all, request, settings,
};
use crate::error::{Error, FetchError};
use crate::fetch::FetchRequest;
use crate::testing::assert_matches;

#[test]
fn the_bytes_come_as_they_are() {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: text/plain; charset=x\r\n";
    assert_eq!(
        fetched(&format!("{head}Content-Length: 5\r\n\r\na\r\nb\0")),
        b"a\r\nb\0"
    );
    assert_eq!(fetched(&format!("{head}Content-Length: 0\r\n\r\n")), b"");
    assert_eq!(
        fetched(&format!("{head}\r\nuntil it closes")),
        b"until it closes"
    );
    assert_eq!(fetched("HTTP/1.0 200\r\n\r\nold"), b"old");
    assert_eq!(
        fetched(&format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x\r\n0123456789\r\n0\r\n\r\n"
        )),
        b"abc0123456789"
    );
}

#[test]
fn the_request_says_who_asks_and_nothing_else_of_it() {
    let server = Server::with("HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n");
    fetch(&server, "/a/b?c=d#e").unwrap();
    fetch(&server, "/").unwrap();
    for (head, path) in server.heads().iter().zip(["/a/b?c=d", "/"]) {
        let mut lines: Vec<String> = head.lines().map(str::to_ascii_lowercase).collect();
        assert_eq!(lines.remove(0), format!("get {path} http/1.1"));
        lines.retain(|line| !line.is_empty());
        lines.sort();
        assert_eq!(
            lines,
            [
                "accept-encoding: identity".to_owned(),
                "accept: */*".to_owned(),
                "connection: close".to_owned(),
                format!("host: {}", server.address),
                format!("user-agent: plugin-runner/{}", env!("CARGO_PKG_VERSION")),
            ]
        );
    }
}

#[test]
fn a_large_package_is_received_whole() {
    let package: Vec<u8> = (0..LIMIT).map(|index| (index % 251) as u8).collect();
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LIMIT}\r\n\r\n").into_bytes();
    answer.extend_from_slice(&package);
    let received = fetch(&Server::with(answer), "/").unwrap();
    assert!(received == package);
}

#[test]
fn only_status_200_is_a_package() {
    for (status, retryable) in [
        (201, false),
        (204, false),
        (206, false),
        (300, false),
        (304, false),
        (400, false),
        (401, false),
        (404, false),
        (407, false),
        (429, true),
        (500, true),
        (503, true),
    ] {
        let server = Server::with(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n"));
        let failure = failure(fetch(&server, "/secret?secret"));
        assert_eq!(
            failure.to_string(),
            format!(
                "{} answered with status {status}, expected 200; check the URL",
                server.host_port()
            )
        );
        assert_eq!(failure.is_retryable(), retryable, "{status}");
    }
}

#[test]
fn a_wrong_length_is_noticed_or_ends_the_body() {
    let server = Server::with("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort");
    let early = failure(fetch(&server, "/"));
    assert_matches!(
        cause(&early),
        FetchError::EndedEarly {
            received: 5,
            expected: Some(10),
            ..
        }
    );
    // What comes after the message is not part of it.
    assert_eq!(
        fetched("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlong, too long"),
        b"long"
    );

    let server = Server::with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc");
    let early = failure(fetch(&server, "/"));
    assert_matches!(
        cause(&early),
        FetchError::EndedEarly {
            received: 3,
            expected: None,
            ..
        }
    );
}

#[test]
fn the_limit_holds_before_and_while_reading() {
    let declared = LIMIT + 1;
    // Gives nothing but the head: the limit is seen there.
    let server = Server::start(move |_, stream| {
        write(
            stream,
            format!("HTTP/1.1 200 OK\r\nContent-Length: {declared}\r\n\r\n").as_bytes(),
        );
        wait_for_end(stream);
    });
    let large = failure(fetch(&server, "/"));
    assert_matches!(cause(&large), FetchError::TooLarge { limit: LIMIT, .. });

    for (head, chunk) in [
        ("HTTP/1.1 200 OK\r\n\r\n", [b'x'; 1024].to_vec()),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            [&b"400\r\n"[..], &[b'x'; 1024], b"\r\n"].concat(),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
            [b'x'; 1024].to_vec(),
        ),
    ] {
        let endless = Server::start(move |_, stream| {
            write(stream, head.as_bytes());
            while stream.write_all(&chunk).is_ok() {}
        });
        let fetcher = fetcher(settings(&[&endless]));
        let received = Cell::new(0);
        let result = fetcher.fetch(&request(&endless.url("/")), &|| false, |reader| {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                received.set(received.get() + count as u64);
            }
            Ok(())
        });
        let large = failure(result);
        assert_matches!(cause(&large), FetchError::TooLarge { limit: LIMIT, .. });
        assert!(received.get() <= LIMIT);
        assert_no_thread_is_left(&fetcher);
    }

    let server = Server::with(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(10)));
    let fetcher = fetcher(settings(&[&server]));
    let url = server.url("/");
    let exact = FetchRequest {
        limit: 10,
        ..request(&url)
    };
    assert_eq!(fetch_request(&fetcher, &exact).unwrap().len(), 10);
    let one_less = FetchRequest { limit: 9, ..exact };
    assert!(fetch_request(&fetcher, &one_less).is_err());
}

#[test]
fn the_digest_is_judged_before_the_end_is_given() {
    let server = Server::with("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\npackage");
    let fetcher = fetcher(settings(&[&server]));
    let url = server.url("/");
    let digest: [u8; 32] = Sha256::digest(b"package").into();
    let right = FetchRequest {
        sha256: Some(digest),
        ..request(&url)
    };
    assert_eq!(fetch_request(&fetcher, &right).unwrap(), b"package");

    let wrong = FetchRequest {
        sha256: Some([0xab; 32]),
        ..right
    };
    let ended = Cell::new(false);
    let result = fetcher.fetch(&wrong, &|| false, |reader| {
        let bytes = read_all(reader)?;
        ended.set(true);
        Ok(bytes)
    });
    assert!(!ended.get(), "the end of a wrong package was given");
    let text = failure(result).to_string();
    assert!(
        text.contains(&"ab".repeat(32)) && text.contains("has the SHA-256 "),
        "{text}"
    );

    // Nor does it help to stop before the end.
    let result = fetcher.fetch(&wrong, &|| false, |reader| {
        reader
            .read_exact(&mut [0; 7])
            .map_err(|error| Error::io("read", error))
    });
    let wrong = failure(result);
    assert_matches!(cause(&wrong), FetchError::Digest { .. });
    assert_no_thread_is_left(&fetcher);
}

#[test]
fn what_the_receiver_fails_with_comes_back_and_ends_the_connection() {
    let server = Server::start(|_, stream| {
        write(stream, b"HTTP/1.1 200 OK\r\n\r\nhalf");
        wait_for_end(stream);
    });
    let fetcher = fetcher(settings(&[&server]));
    let result = fetcher.fetch(&request(&server.url("/")), &|| false, |reader| {
        reader.read_exact(&mut [0; 4]).unwrap();
        Err::<(), _>(Error::Unsupported("the disk is full"))
    });
    assert_matches!(result, Err(Error::Unsupported("the disk is full")));
    assert_no_thread_is_left(&fetcher);
}
