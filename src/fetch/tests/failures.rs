//! What does not come, and who does not want to wait: slow and broken peers, look-ups, cancelling.

use std::cell::Cell;
use std::io::{self, Read as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crossbeam_channel::bounded;

use super::server::{Server, wait_for_end, write};
use super::{
    FetchSettings, SHORT, assert_no_thread_is_left, cause, failure, fetch, fetch_request, fetcher,
    read_all, request, settings, with_names,
};
use crate::deadline::Deadline;
use crate::error::{Error, FetchError, FetchStep};
use crate::fetch::{FetchRequest, Fetcher};
use crate::testing::{LONG, assert_matches};
use crate::thread::Threads;

/// Writes a byte now and then until the peer has had enough.
fn trickle(stream: &mut TcpStream) {
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let waits = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        )
    };
    while stream.read(&mut [0]).is_err_and(|error| waits(&error)) {
        write(stream, b"x");
    }
}

#[test]
fn a_peer_that_is_slow_is_given_up_in_time() {
    type Slow = fn(&str, &mut TcpStream);
    let slow: [(&str, Slow); 5] = [
        ("nothing", |_, stream| wait_for_end(stream)),
        ("trickling head", |_, stream| {
            write(stream, b"HTTP/1.1 200 OK\r\nX-Trickle: ");
            trickle(stream);
        }),
        ("no body", |_, stream| {
            write(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
            wait_for_end(stream);
        }),
        ("trickling body", |_, stream| {
            write(
                stream,
                b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
            );
            trickle(stream);
        }),
        ("redirects", |path, stream| {
            stream.set_read_timeout(Some(SHORT / 3)).unwrap();
            let _ = stream.read(&mut [0]);
            write(
                stream,
                format!("HTTP/1.1 302 x\r\nLocation: {path}x\r\n\r\n").as_bytes(),
            );
        }),
    ];
    for (what, answer) in slow {
        let server = Server::start(answer);
        let fetcher = fetcher(FetchSettings {
            timeout: SHORT,
            ..settings(&[&server])
        });
        let late = failure(fetch_request(&fetcher, &request(&server.url("/"))));
        assert!(late.is_timeout() && late.is_retryable(), "{what}: {late}");
        assert!(
            late.to_string().ends_with("took longer than 300ms"),
            "{what}: {late}"
        );
    }
    // The caller's own deadline counts as well.
    let server = Server::start(|_, stream| wait_for_end(stream));
    let fetcher = fetcher(settings(&[&server]));
    let url = server.url("/");
    let hurried = FetchRequest {
        deadline: Deadline::after(SHORT),
        ..request(&url)
    };
    assert!(failure(fetch_request(&fetcher, &hurried)).is_timeout());
    let past = FetchRequest {
        deadline: Deadline::after(Duration::ZERO),
        ..hurried
    };
    // And is what is heard of, if that is why it was cancelled.
    for cancel in [false, true] {
        let late = failure(fetcher.fetch(&past, &|| cancel, read_all));
        assert!(late.is_timeout(), "{late}");
    }
    assert_no_thread_is_left(&fetcher);
}

#[test]
fn a_look_up_that_hangs_is_given_up_in_time() {
    let (release, released) = bounded::<()>(0);
    let names = with_names(
        FetchSettings {
            timeout: SHORT,
            ..settings(&[])
        },
        move |_, _| {
            // Until the other end is dropped.
            let _ = released.recv_timeout(LONG);
            Err(io::Error::other("released"))
        },
    );
    let late = failure(names.fetch(&request("https://example.org/"), &|| false, read_all));
    assert_matches!(
        cause(&late),
        FetchError::Timeout {
            step: FetchStep::LookUp,
            ..
        }
    );
    drop(release);
    assert_no_thread_is_left(&names);
}

#[test]
fn a_wish_to_cancel_is_heard_in_the_middle() {
    let server = Server::start(|_, stream| {
        write(
            stream,
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!",
        );
        wait_for_end(stream);
    });
    let fetcher = fetcher(settings(&[&server]));
    let cancelled = Cell::new(false);
    let result = fetcher.fetch(&request(&server.url("/")), &|| cancelled.get(), |reader| {
        reader.read_exact(&mut [0; 5]).unwrap();
        cancelled.set(true);
        read_all(reader)
    });
    let cancelled = failure(result);
    assert_matches!(cause(&cancelled), FetchError::Cancelled { .. });
    assert_no_thread_is_left(&fetcher);

    let silent = Server::start(|_, stream| wait_for_end(stream));
    let asked = Cell::new(0);
    let cancel = || asked.replace(asked.get() + 1) > 1;
    let fetcher = self::fetcher(settings(&[&silent]));
    let result = fetcher.fetch(&request(&silent.url("/")), &cancel, read_all);
    assert_matches!(cause(&failure(result)), FetchError::Cancelled { .. });
    assert_no_thread_is_left(&fetcher);
}

#[test]
fn a_server_without_tls_is_named_so() {
    let server = Server::raw(|stream| write(stream, b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let fetcher = fetcher(settings(&[&server]));
    let url = format!("https://{}/?secret", server.host_port());
    let insecure = failure(fetch_request(&fetcher, &request(&url)));
    assert_matches!(cause(&insecure), FetchError::Tls { .. });
    let text = insecure.to_string();
    assert!(
        text.starts_with(&format!("no secure connection to {}", server.host_port())),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");

    let silent = Server::raw(wait_for_end);
    let fetcher = self::fetcher(FetchSettings {
        connect: SHORT,
        ..settings(&[&silent])
    });
    let url = format!("https://{}/", silent.host_port());
    let late = failure(fetch_request(&fetcher, &request(&url)));
    assert!(late.is_timeout(), "{late}");
    assert!(
        late.to_string().ends_with("took longer than 300ms"),
        "{late}"
    );

    let closing = Server::raw(|_| {});
    let fetcher = self::fetcher(settings(&[&closing]));
    let url = format!("https://{}/", closing.host_port());
    let closed = failure(fetch_request(&fetcher, &request(&url)));
    assert_matches!(cause(&closed), FetchError::Tls { .. });
}

#[test]
fn what_is_not_there_or_not_http_is_named_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    drop(listener);
    let nobody = fetcher(FetchSettings {
        allowed_hosts: vec![place.clone()],
        ..settings(&[])
    });
    let refused = failure(fetch_request(
        &nobody,
        &request(&format!("http://{place}/")),
    ));
    assert_matches!(cause(&refused), FetchError::Connect { .. });
    assert!(refused.is_retryable());

    for answer in [
        "SSH-2.0-OpenSSH_9\r\n\r\n".to_owned(),
        String::new(),
        "HTTP/1.1 200 OK\r\nContent-Le".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(200_000)),
    ] {
        let server = Server::with(answer.clone());
        let broken = failure(fetch(&server, "/"));
        let start = &answer[..answer.len().min(60)];
        assert_matches!(cause(&broken), FetchError::Broken { .. }, "{start:?}");
    }
}

#[test]
fn without_a_thread_to_spare_nothing_is_fetched() {
    let server = Server::raw(|_| {});
    let fetcher = Fetcher::new(settings(&[&server]), Threads::with_limit(0)).unwrap();
    let result = fetch_request(&fetcher, &request(&server.url("/")));
    assert_matches!(result, Err(Error::ThreadLimit { limit: 0, .. }));
    assert!(server.heads().is_empty());
}
