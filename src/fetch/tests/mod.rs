//! Fetching from a real server on loopback, which misbehaves as each test says. Pure rules (addresses,
//! URLs) are tested beside them.

mod server;

use std::cell::Cell;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;
use sha2::{Digest as _, Sha256};

use self::server::{Server, wait_for_end, write};
use super::{FetchSettings, Fetcher, Wanted};
use crate::deadline::Deadline;
use crate::error::{Error, FetchError, FetchStep, Result};
use crate::thread::Threads;

/// Only ever waited out by what is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waited out by the tests of what takes too long.
const SHORT: Duration = Duration::from_millis(300);

const LIMIT: u64 = 1_000_000;

fn settings(allowed: &[&Server]) -> FetchSettings {
    FetchSettings::default()
        .with_timeout(PATIENCE)
        .with_connect(PATIENCE)
        .with_allowed_hosts(allowed.iter().map(|server| server.place()))
}

fn fetcher(settings: FetchSettings) -> Fetcher {
    Fetcher::new(settings, Threads::with_limit(2)).unwrap()
}

/// A fetcher that knows no names but those that `look_up` knows.
fn with_names(
    settings: FetchSettings,
    look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
) -> Fetcher {
    Fetcher {
        look_up: Arc::new(look_up),
        ..fetcher(settings)
    }
}

fn wanted(url: &str) -> Wanted<'_> {
    Wanted {
        url,
        sha256: None,
        limit: LIMIT,
        deadline: Deadline::after(PATIENCE),
    }
}

fn read_all(reader: &mut dyn Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("read the package", error))?;
    Ok(bytes)
}

#[track_caller]
fn fetch_wanted(fetcher: &Fetcher, wanted: &Wanted<'_>) -> Result<Vec<u8>> {
    let fetched = fetcher.fetch(wanted, &|| false, read_all);
    assert_no_thread_is_left(fetcher);
    fetched
}

#[track_caller]
fn fetch(server: &Server, path: &str) -> Result<Vec<u8>> {
    fetch_wanted(&fetcher(settings(&[server])), &wanted(&server.url(path)))
}

#[track_caller]
fn fetched(answer: &str) -> Vec<u8> {
    fetch(&Server::with(answer), "/package.zip").unwrap()
}

#[track_caller]
fn failure<T>(fetched: Result<T>) -> Arc<FetchError> {
    match fetched {
        Err(Error::Fetch(failure)) => failure,
        Err(other) => panic!("failed otherwise: {other}"),
        Ok(_) => panic!("did not fail"),
    }
}

#[track_caller]
fn assert_no_thread_is_left(fetcher: &Fetcher) {
    let left = fetcher.threads.join_all(Deadline::after(PATIENCE));
    assert_eq!(left, 0, "the thread that fetches did not end");
}

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

/// Runs itself once more, as a process with that environment.
#[test]
fn a_proxy_of_the_environment_is_not_asked() {
    const PLACE: &str = "PLUGIN_RUNNER_TEST_PLACE";
    if let Ok(place) = std::env::var(PLACE) {
        let settings = settings(&[]).with_allowed_hosts([place.clone()]);
        let url = format!("http://{place}/");
        let fetched = fetch_wanted(&fetcher(settings), &wanted(&url));
        assert_eq!(fetched.unwrap(), b"direct");
        return;
    }
    let server = Server::with("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ndirect");
    let proxy = Server::with("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "fetch::tests::a_proxy_of_the_environment_is_not_asked",
        ])
        .env(PLACE, server.place());
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        command
            .env(name, proxy.url(""))
            .env(name.to_uppercase(), proxy.url(""));
    }
    command.env_remove("no_proxy").env_remove("NO_PROXY");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    assert!(proxy.heads().is_empty(), "the proxy was asked");
    assert_eq!(server.heads().len(), 1);
}

/// Redirects from /n to /n-1, and gives a package at /0.
fn chain(status: u16) -> Server {
    Server::start(move |path, stream| {
        let answer = match path[1..].parse().unwrap() {
            0 => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend".to_owned(),
            left @ 1_u32.. => format!(
                "HTTP/1.1 {status} x\r\nLocation: {}\r\nContent-Length: 2\r\n\r\nno",
                left - 1
            ),
        };
        write(stream, answer.as_bytes());
    })
}

#[test]
fn five_redirects_are_followed_and_six_are_not() {
    for status in [301, 302, 303, 307, 308] {
        assert_eq!(fetch(&chain(status), "/1").unwrap(), b"end");
    }
    let server = chain(302);
    assert_eq!(fetch(&server, "/5").unwrap(), b"end");
    let failure = failure(fetch(&server, "/6"));
    assert!(
        matches!(*failure, FetchError::TooManyRedirects { limit: 5, .. }),
        "{failure}"
    );
    assert_eq!(server.heads().len(), 6 + 6);

    let none = fetcher(settings(&[&server]).with_redirects(0));
    assert!(fetch_wanted(&none, &wanted(&server.url("/0"))).is_ok());
    assert!(fetch_wanted(&none, &wanted(&server.url("/1"))).is_err());
}

#[test]
fn a_redirect_to_where_nobody_may_go_is_refused() {
    let forbidden = Server::raw(|_| {});
    let port = forbidden.address.port();
    let place = &forbidden.place();
    for (location, expected) in [
        ("http://10.0.0.1/", "10.0.0.1 is at 10.0.0.1, a private"),
        (
            "http://169.254.169.254/latest/meta-data/",
            "169.254.169.254 is at",
        ),
        (
            &format!("http://127.0.0.1:{port}/"),
            &format!("{place} is at 127.0.0.1"),
        ),
        (
            &format!("http://localhost:{port}/"),
            &format!("localhost:{port} is at 127.0.0.1"),
        ),
        (
            &format!("//127.0.0.1:{port}"),
            &format!("{place} is at 127.0.0.1"),
        ),
        (
            &format!("http://[::ffff:127.0.0.1]:{port}/"),
            "[::ffff:127.0.0.1]:",
        ),
        (
            &format!("http://0x7f.1:{port}/"),
            "redirects, and the URL cannot be used: its host looks like",
        ),
        (
            &format!("http://2130706433:{port}/"),
            "redirects, and the URL cannot be used: its host looks like",
        ),
        (
            "file:///etc/passwd",
            "redirects, and the URL's scheme is \"file\"",
        ),
        (
            "gopher://example.org/",
            "redirects, and the URL's scheme is \"gopher\"",
        ),
        (
            "http://user:secret@example.org/",
            "redirects, and the URL of example.org has a user name",
        ),
        ("http:///", "redirects, and the URL names no host"),
    ] {
        let redirecting = Server::with(format!("HTTP/1.1 302 x\r\nLocation: {location}\r\n\r\n"));
        let names = with_names(settings(&[&redirecting]), |_, port| {
            Ok(vec![([127, 0, 0, 1], port).into()])
        });
        let failure = failure(fetch_wanted(&names, &wanted(&redirecting.url("/"))));
        let text = failure.to_string();
        assert!(text.contains(expected), "{location}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
    assert!(forbidden.heads().is_empty(), "somebody connected");

    let server = Server::with("HTTP/1.1 302 x\r\n\r\n");
    let failure = failure(fetch(&server, "/"));
    assert!(failure.to_string().contains("no Location"), "{failure}");
}

#[test]
fn a_wrong_length_is_noticed_or_ends_the_body() {
    let server = Server::with("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort");
    let early = failure(fetch(&server, "/"));
    assert!(
        matches!(
            *early,
            FetchError::EndedEarly {
                received: 5,
                expected: Some(10),
                ..
            }
        ),
        "{early}"
    );
    // What comes after the message is not part of it.
    assert_eq!(
        fetched("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlong, too long"),
        b"long"
    );

    let server = Server::with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc");
    let early = failure(fetch(&server, "/"));
    assert!(
        matches!(
            *early,
            FetchError::EndedEarly {
                received: 3,
                expected: None,
                ..
            }
        ),
        "{early}"
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
    assert!(
        matches!(*large, FetchError::TooLarge { limit: LIMIT, .. }),
        "{large}"
    );

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
        use std::io::Write as _;
        let endless = Server::start(move |_, stream| {
            write(stream, head.as_bytes());
            while stream.write_all(&chunk).is_ok() {}
        });
        let fetcher = fetcher(settings(&[&endless]));
        let received = Cell::new(0);
        let result = fetcher.fetch(&wanted(&endless.url("/")), &|| false, |reader| {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                received.set(received.get() + count as u64);
            }
            Ok(())
        });
        let large = failure(result);
        assert!(
            matches!(*large, FetchError::TooLarge { limit: LIMIT, .. }),
            "{large}"
        );
        assert!(received.get() <= LIMIT);
        assert_no_thread_is_left(&fetcher);
    }

    let server = Server::with(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(10)));
    let fetcher = fetcher(settings(&[&server]));
    let url = server.url("/");
    let exact = Wanted {
        limit: 10,
        ..wanted(&url)
    };
    assert_eq!(fetch_wanted(&fetcher, &exact).unwrap().len(), 10);
    let one_less = Wanted { limit: 9, ..exact };
    assert!(fetch_wanted(&fetcher, &one_less).is_err());
}

/// Writes a byte now and then until the peer has had enough.
fn trickle(stream: &mut std::net::TcpStream) {
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
    type Slow = fn(&str, &mut std::net::TcpStream);
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
        let fetcher = fetcher(settings(&[&server]).with_timeout(SHORT));
        let late = failure(fetch_wanted(&fetcher, &wanted(&server.url("/"))));
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
    let hurried = Wanted {
        deadline: Deadline::after(SHORT),
        ..wanted(&url)
    };
    assert!(failure(fetch_wanted(&fetcher, &hurried)).is_timeout());
    let past = Wanted {
        deadline: Deadline::after(Duration::ZERO),
        ..hurried
    };
    assert!(failure(fetch_wanted(&fetcher, &past)).is_timeout());
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
                server.place()
            )
        );
        assert_eq!(failure.is_retryable(), retryable, "{status}");
    }
}

#[test]
fn the_digest_is_judged_before_the_end_is_given() {
    let server = Server::with("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\npackage");
    let fetcher = fetcher(settings(&[&server]));
    let url = server.url("/");
    let digest: [u8; 32] = Sha256::digest(b"package").into();
    let right = Wanted {
        sha256: Some(digest),
        ..wanted(&url)
    };
    assert_eq!(fetch_wanted(&fetcher, &right).unwrap(), b"package");

    let wrong = Wanted {
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
    assert!(matches!(*wrong, FetchError::Digest { .. }), "{wrong}");
    assert_no_thread_is_left(&fetcher);
}

#[test]
fn a_name_is_looked_up_once_and_connected_to_there() {
    let server = Server::with("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let address = server.address;
    let asked = Arc::new(AtomicUsize::new(0));
    let place = format!("packages.test:{}", address.port());
    let settings = settings(&[]).with_allowed_hosts([place.clone()]);
    let names = with_names(settings, {
        let asked = asked.clone();
        // A second answer would lead elsewhere.
        move |name, port| {
            assert_eq!((name, port), ("packages.test", address.port()));
            match asked.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(vec![address]),
                _ => Ok(vec![([127, 0, 0, 1], 1).into()]),
            }
        }
    });
    let url = format!("http://Packages.TEST.:{}/", address.port());
    assert_eq!(fetch_wanted(&names, &wanted(&url)).unwrap(), b"ok");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(
        server.heads()[0]
            .to_ascii_lowercase()
            .contains(&format!("host: {place}\r\n"))
    );
}

#[test]
fn a_name_with_a_private_address_is_refused() {
    for private in [
        "10.1.2.3",
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:10.0.0.1",
        "fd00::1",
    ] {
        let private = SocketAddr::new(private.parse().unwrap(), 443);
        let names = with_names(settings(&[]), move |_, port| {
            Ok(vec![([8, 8, 8, 8], port).into(), private])
        });
        let refused = failure(fetch_wanted(
            &names,
            &wanted("https://example.org/a?secret"),
        ));
        assert_eq!(
            refused.to_string(),
            format!(
                "example.org is at {}, a private or local address; if it is meant, add its host:port to \
                 FetchSettings::allowed_hosts",
                private.ip()
            )
        );
        assert!(!refused.is_retryable());
    }
    let names = with_names(settings(&[]), |_, _| Err(io::Error::other("no such name")));
    let unknown = failure(fetch_wanted(&names, &wanted("https://example.org/")));
    assert!(matches!(*unknown, FetchError::LookUp { .. }), "{unknown}");
    assert!(unknown.to_string().contains("no such name"), "{unknown}");
}

#[test]
fn a_look_up_that_hangs_is_given_up_in_time() {
    let (release, released) = bounded::<()>(0);
    let names = with_names(settings(&[]).with_timeout(SHORT), move |_, _| {
        // Until the other end is dropped.
        let _ = released.recv_timeout(PATIENCE);
        Err(io::Error::other("released"))
    });
    let late = failure(names.fetch(&wanted("https://example.org/"), &|| false, read_all));
    assert!(
        matches!(
            *late,
            FetchError::Timeout {
                step: FetchStep::LookUp,
                ..
            }
        ),
        "{late}"
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
    let result = fetcher.fetch(&wanted(&server.url("/")), &|| cancelled.get(), |reader| {
        reader.read_exact(&mut [0; 5]).unwrap();
        cancelled.set(true);
        read_all(reader)
    });
    let cancelled = failure(result);
    assert!(
        matches!(*cancelled, FetchError::Cancelled { .. }),
        "{cancelled}"
    );
    assert_no_thread_is_left(&fetcher);

    let silent = Server::start(|_, stream| wait_for_end(stream));
    let asked = Cell::new(0);
    let cancel = || asked.replace(asked.get() + 1) > 1;
    let fetcher = self::fetcher(settings(&[&silent]));
    let result = fetcher.fetch(&wanted(&silent.url("/")), &cancel, read_all);
    assert!(matches!(*failure(result), FetchError::Cancelled { .. }));
    assert_no_thread_is_left(&fetcher);
}

#[test]
fn what_the_receiver_fails_with_comes_back_and_ends_the_connection() {
    let server = Server::start(|_, stream| {
        write(stream, b"HTTP/1.1 200 OK\r\n\r\nhalf");
        wait_for_end(stream);
    });
    let fetcher = fetcher(settings(&[&server]));
    let result = fetcher.fetch(&wanted(&server.url("/")), &|| false, |reader| {
        reader.read_exact(&mut [0; 4]).unwrap();
        Err::<(), _>(Error::Unsupported("the disk is full"))
    });
    assert!(matches!(
        result,
        Err(Error::Unsupported("the disk is full"))
    ));
    assert_no_thread_is_left(&fetcher);
}

#[test]
fn a_server_without_tls_is_named_so() {
    let server = Server::raw(|stream| write(stream, b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let fetcher = fetcher(settings(&[&server]));
    let url = format!("https://{}/?secret", server.place());
    let insecure = failure(fetch_wanted(&fetcher, &wanted(&url)));
    assert!(matches!(*insecure, FetchError::Tls { .. }), "{insecure}");
    let text = insecure.to_string();
    assert!(
        text.starts_with(&format!("no secure connection to {}", server.place())),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");

    let silent = Server::raw(wait_for_end);
    let fetcher = self::fetcher(settings(&[&silent]).with_connect(SHORT));
    let url = format!("https://{}/", silent.place());
    let late = failure(fetch_wanted(&fetcher, &wanted(&url)));
    assert!(late.is_timeout(), "{late}");
    assert!(
        late.to_string().ends_with("took longer than 300ms"),
        "{late}"
    );

    let closing = Server::raw(|_| {});
    let fetcher = self::fetcher(settings(&[&closing]));
    let url = format!("https://{}/", closing.place());
    let closed = failure(fetch_wanted(&fetcher, &wanted(&url)));
    assert!(matches!(*closed, FetchError::Tls { .. }), "{closed}");
}

#[test]
fn what_is_not_there_or_not_http_is_named_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    drop(listener);
    let nobody = fetcher(settings(&[]).with_allowed_hosts([place.clone()]));
    let refused = failure(fetch_wanted(&nobody, &wanted(&format!("http://{place}/"))));
    assert!(matches!(*refused, FetchError::Connect { .. }), "{refused}");
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
        assert!(
            matches!(*broken, FetchError::Broken { .. }),
            "{start:?}: {broken}"
        );
    }
}

#[test]
fn without_a_thread_to_spare_nothing_is_fetched() {
    let server = Server::raw(|_| {});
    let fetcher = Fetcher::new(settings(&[&server]), Threads::with_limit(0)).unwrap();
    let result = fetch_wanted(&fetcher, &wanted(&server.url("/")));
    assert!(matches!(result, Err(Error::ThreadLimit { limit: 0, .. })));
    assert!(server.heads().is_empty());
}
