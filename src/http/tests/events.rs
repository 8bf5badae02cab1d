//! Streams of server-sent events.

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn an_event_arrives_when_it_is_sent() {
    let (next, wait) = crossbeam_channel::bounded::<&str>(0);
    let server = TestServer::start(patient(), move |_| {
        let wait = wait.clone();
        Response::events(move |stream| {
            for (number, data) in wait.iter().enumerate() {
                let id = number.to_string();
                let event = Event {
                    id: Some(&id),
                    name: (number == 1).then_some("named"),
                    data,
                };
                stream.send(&event).unwrap();
                stream.comment("heartbeat").unwrap();
            }
        })
    });
    let mut client = server.connect();
    client.send(GET);
    let head = client.head();
    assert_eq!(
        head.header("Content-Type"),
        Some("text/event-stream; charset=utf-8")
    );
    assert_eq!(head.header("Cache-Control"), Some("no-cache"));
    for (data, wanted) in [
        ("one", "id: 0\ndata: one\n\n"),
        (
            "two\r\nlines",
            "id: 1\nevent: named\ndata: two\ndata: lines\n\n",
        ),
        ("a\rdata: b", "id: 2\ndata: a\ndata: data: b\n\n"),
        ("", "id: 3\ndata: \n\n"),
    ] {
        next.send_timeout(data, LONG).unwrap();
        assert_eq!(client.chunk().unwrap(), wanted.as_bytes());
        assert_eq!(client.chunk().unwrap(), b": heartbeat\n\n");
    }
    drop(next);
    // The stream ends as a whole, and the connection can be used again.
    assert_eq!(client.chunk(), None);
    client.send(GET);
    assert_eq!(client.answer().text(), "");
}

#[test]
fn an_old_client_reads_to_the_end_of_the_connection() {
    let server = TestServer::start(patient(), |_| {
        Response::events(|stream| stream.comment("hello").unwrap())
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let head = client.head();
    assert_eq!(head.header("Transfer-Encoding"), None);
    assert_eq!(client.rest(), b": hello\n\n");
}

#[test]
fn head_starts_no_stream() {
    let server = TestServer::start(patient(), |_| {
        Response::events(|_| panic!("it is called for HEAD"))
    });
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.head().status, 200);
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.head().status, 200);
}

#[test]
fn an_id_or_name_cannot_forge_an_event() {
    let server = TestServer::start(patient(), |_| {
        Response::events(|stream| {
            for (id, name) in [("a\nb", "n"), ("a\rb", "n"), ("a\0", "n"), ("a", "n\nm")] {
                let (id, name) = (Some(id), Some(name));
                let sent = stream.send(&Event { id, name, data: "" });
                assert_eq!(sent.unwrap_err().kind(), ErrorKind::InvalidInput);
            }
            stream.comment("none\nevent: forged").unwrap();
        })
    });
    let mut client = server.connect();
    client.send(GET);
    assert_eq!(client.answer().text(), ": none\n: event: forged\n\n");
}

#[test]
fn a_stream_that_a_stop_ends_is_whole() {
    let server = TestServer::start(patient(), |_| {
        Response::events(|stream| {
            stream.send_id("7").unwrap();
            wait_until("the stop", || !stream.is_open());
            // It did not know of the stop, and does not go on.
            assert!(stream.send_id("8").is_err() && stream.comment("").is_err());
        })
    });
    let mut client = server.connect();
    client.send(GET);
    client.head();
    assert_eq!(client.chunk(), Some(b"id: 7\n\n".to_vec()));
    assert_eq!(server.server().stop(LONG), 0);
    assert_eq!(client.chunk(), None);
}

#[test]
fn a_client_that_goes_is_noticed_without_sending() {
    let (closed, noticed) = crossbeam_channel::bounded(1);
    let server = TestServer::start(patient(), move |_| {
        let closed = closed.clone();
        Response::events(move |stream| {
            wait_until("the client is gone", || !stream.is_open());
            assert!(stream.comment("too late").is_err());
            closed.send(()).unwrap();
        })
    });
    // The second one has sent another request already, which lies unread.
    for behind in ["", if cfg!(target_os = "linux") { GET } else { "" }] {
        let mut client = server.connect();
        client.send(GET);
        client.head();
        client.send(behind);
        drop(client);
        noticed.recv_timeout(LONG).unwrap();
        wait_until("its thread has ended", || server.threads() == 1);
    }
}

#[test]
fn a_stuck_reader_is_given_up_and_holds_up_nobody() {
    let (failed, given_up) = crossbeam_channel::bounded(1);
    let server = TestServer::start(
        HttpSettings {
            write: SHORT,
            ..patient()
        },
        move |request| {
            if request.path() == "/other" {
                return Response::empty(200);
            }
            let failed = failed.clone();
            Response::events(move |stream| {
                let data = "x".repeat(10_000);
                let event = Event {
                    data: &data,
                    ..Event::default()
                };
                // As fast as it can, without end.
                let error = loop {
                    if let Err(error) = stream.send(&event) {
                        break error;
                    }
                };
                // Nothing more goes out behind half an event.
                let has_ended = !stream.is_open() && stream.send(&Event::default()).is_err();
                failed.send((error.kind(), has_ended)).unwrap();
            })
        },
    );
    let mut stuck = server.connect();
    stuck.send(GET);
    let mut other = server.connect();
    let began = Instant::now();
    while given_up.is_empty() {
        assert!(began.elapsed() < LONG, "the stuck reader is not given up");
        assert_eq!(other.get("/other").status, 200);
    }
    assert_eq!(given_up.recv().unwrap(), (ErrorKind::TimedOut, true));
    wait_until("its thread has ended", || server.threads() == 2);
    assert!(!stuck.rest().ends_with(b"0\r\n\r\n"), "it looks whole");
}
