//! More connections than are served at once.

use super::*;

#[test]
fn the_longest_idle_connection_gives_way() {
    let (server, _) = TestServer::echo(HttpSettings {
        connections: 3,
        ..patient()
    });
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
        server.await_waiting(3);
    }
    // The first has been busy since, so the second has been idle for longest.
    assert_eq!(clients[0].get("/").status, 200);
    server.await_waiting(3);
    assert_eq!(server.connect().get("/new").status, 200);
    clients[1].ends();
    assert_eq!(clients[0].get("/").status, 200);
}

#[test]
fn idle_connections_keep_nobody_out() {
    let (server, _) = TestServer::echo(HttpSettings {
        connections: 50,
        ..patient()
    });
    let mut idle = Vec::new();
    for number in 0..300 {
        let mut client = server.connect();
        assert_eq!(client.get("/").status, 200, "number {number}");
        server.await_waiting(50.min(number + 1));
        wait_until("the one that gave way is gone", || server.threads() <= 51);
        idle.push(client);
    }
    for mut client in idle.drain(..250) {
        client.ends();
    }
}

#[test]
fn a_slow_head_gives_way_with_an_answer() {
    let (server, _) = TestServer::echo(HttpSettings {
        connections: 1,
        ..patient()
    });
    let mut slow = server.connect();
    // In one piece: both have been read when the first is answered.
    slow.send("GET /whole HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost");
    assert_eq!(slow.answer().text(), "GET /whole ");
    server.await_waiting(1);
    assert_eq!(server.connect().get("/").status, 200);
    let answer = slow.answer();
    assert_eq!(
        (answer.status, answer.text()),
        (503, "too many connections\n")
    );
    slow.ends();
}

#[test]
fn who_comes_while_all_are_busy_is_told_to_come_back() {
    let (begun, has_begun) = crossbeam_channel::bounded(2);
    let (release, wait) = crossbeam_channel::bounded::<()>(0);
    let server = TestServer::start(
        HttpSettings {
            connections: 2,
            ..patient()
        },
        move |_| {
            begun.send(()).unwrap();
            let _ = wait.recv_timeout(LONG);
            Response::empty(200)
        },
    );
    let mut busy: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for client in &mut busy {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        has_begun.recv_timeout(LONG).unwrap();
    }
    let refused = String::from_utf8(server.connect().rest()).unwrap();
    assert!(
        refused.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{refused}"
    );
    assert!(refused.contains("\r\nRetry-After: 1\r\n"), "{refused}");
    assert!(
        refused.ends_with("\r\n\r\ntoo many connections\n"),
        "{refused}"
    );
    drop(release);
    for client in &mut busy {
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn who_has_been_answered_gives_way() {
    let settings = || HttpSettings {
        connections: 2,
        linger: NEVER,
        ..patient()
    };
    let come = |server: &TestServer| {
        [(); 2].map(|()| {
            let mut newcomer = server.connect();
            assert_eq!(newcomer.get("/").status, 200);
            server.await_waiting(2);
            newcomer
        })
    };
    let (server, _) = TestServer::echo(settings());
    // One is expected to send the rest of a body that it was refused for, and one to end after a wrong head.
    let mut body = server.connect();
    body.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\nx");
    assert_eq!(body.answer().status, 413);
    let mut head = server.connect();
    head.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(head.answer().status, 400);
    server.await_waiting(2);
    let newcomers = come(&server);
    body.ends();
    head.ends();
    drop((newcomers, server));
    // And one the rest of a body that no handler has read.
    let server = TestServer::start(settings(), |_| Response::empty(200));
    let mut unread = server.connect();
    unread.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nx");
    assert_eq!(unread.answer().status, 200);
    server.await_waiting(1);
    let newcomers = come(&server);
    unread.ends();
    drop(newcomers);
}

#[test]
fn two_hundred_connections_of_which_half_are_stuck() {
    let server = TestServer::start(patient(), |request| match request.path() {
        "/events" => Response::events(|stream| {
            let data = "x".repeat(100_000);
            let event = Event {
                data: &data,
                ..Event::default()
            };
            while stream.send(&event).is_ok() {}
        }),
        "/upload" => match request.read_body(100) {
            Ok(_) => Response::empty(200),
            Err(error) => refused(error),
        },
        _ => Response::empty(200),
    });
    let stuck = [
        "",
        "GET / HT",
        "POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n123",
        "GET /events HTTP/1.1\r\nHost: h\r\n\r\n",
    ];
    let stuck: Vec<_> = (0..100)
        .map(|number| {
            let mut client = server.connect();
            client.send(stuck[number % stuck.len()]);
            client
        })
        .collect();
    let mut others: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for _ in 0..3 {
        for client in &mut others {
            assert_eq!(client.get("/").status, 200);
        }
    }
    assert_eq!(server.threads(), 201);
    // None of them holds up the end either.
    drop(others);
    server.server().stop(SHORT);
    wait_until("all to be cut off", || server.threads() == 0);
    for mut client in stuck {
        client.rest();
    }
}
