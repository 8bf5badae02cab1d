//! Slow, silent and endless clients.

use super::*;

#[test]
fn a_head_that_trickles_is_refused_at_its_deadline() {
    let (server, targets) = TestServer::echo(HttpSettings {
        head: SHORT,
        ..patient()
    });
    let mut client = server.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: h\r\nx: ");
    client.trickle(b'y');
    let answer = client.answer();
    assert_eq!(
        (answer.status, answer.header("Connection")),
        (408, Some("close"))
    );
    client.ends();
    assert_eq!(targets.all(), [""; 0]);
}

#[test]
fn the_second_head_has_a_deadline_of_its_own_too() {
    let (server, _) = TestServer::echo(HttpSettings {
        head: SHORT,
        ..patient()
    });
    let mut client = server.connect();
    assert_eq!(client.get("/first").status, 200);
    client.send("GET /second");
    assert_eq!(client.answer().status, 408);
    client.ends();
}

#[test]
fn a_body_that_trickles_is_refused_at_its_deadline() {
    let (server, _) = TestServer::echo(HttpSettings {
        body: SHORT,
        body_rate: 1 << 30,
        ..patient()
    });
    for head in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut client = server.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n"));
        client.trickle(b'1');
        let answer = client.answer();
        // The chunk's size line becomes too long, if it is not too late before.
        assert!(answer.status == 408 || head.ends_with("chunked") && answer.status == 400);
        client.ends();
    }
}

#[test]
fn a_body_may_take_longer_the_longer_it_is() {
    let (server, _) = TestServer::echo(HttpSettings {
        body: Duration::ZERO,
        body_rate: 1,
        ..patient()
    });
    // The first byte would be too late at once, but what has come already is not waited for.
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab");
    assert_eq!(client.answer().status, 408);
    let (server, _) = TestServer::echo(HttpSettings {
        body: SHORT,
        body_rate: 1,
        ..patient()
    });
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10000\r\n\r\n");
    client.send([b'x'; 5000]);
    // These bytes bought 5,000 seconds.
    let bought = Instant::now() + 2 * SHORT;
    while Instant::now() < bought {
        client.send(b"y");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    client.send([b'z'; 10_000]);
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_silent_connection_ends_unanswered() {
    let (server, _) = TestServer::echo(HttpSettings {
        head: SHORT,
        ..patient()
    });
    server.connect().ends();
}

#[test]
fn an_idle_connection_ends_unanswered() {
    let (server, _) = TestServer::echo(HttpSettings {
        idle: SHORT,
        ..patient()
    });
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    client.ends();
}

#[test]
fn a_head_without_end_is_refused_and_not_read() {
    let (server, targets) = TestServer::echo(HttpSettings {
        linger: Duration::from_millis(50),
        ..patient()
    });
    let more = vec![b'y'; 64 * 1024];
    for begin in ["GET /", "GET / HTTP/1.1\r\nHost: h\r\nx: "] {
        let mut client = server.connect();
        client.send(begin).send(&more);
        assert_eq!(client.answer().status, 431);
        let began = Instant::now();
        while client.0.write_all(&more).is_ok() {
            assert!(began.elapsed() < LONG, "it is still read");
        }
    }
    assert_eq!(targets.all(), [""; 0]);
}

#[test]
fn a_client_that_does_not_read_its_answer_is_given_up() {
    let server = TestServer::start(
        HttpSettings {
            write: SHORT,
            ..patient()
        },
        |request| match request.path() {
            "/bytes" => Response::bytes(200, "text/plain", vec![b'x'; 64 * 1024 * 1024]),
            _ => Response::stream(200, "text/plain", 1 << 40, std::io::repeat(b'x')),
        },
    );
    for target in ["/bytes", "/stream"] {
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        wait_until("the connection is in use", || server.threads() == 2);
        wait_until("it is given up", || server.threads() == 1);
        // What it has of the body is less than it was promised.
        assert!(client.rest().len() < 64 * 1024 * 1024);
    }
}
