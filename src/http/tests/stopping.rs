//! The end of a server.

use super::*;

#[test]
fn a_stop_ends_what_waits_and_lets_a_response_be_finished() {
    let (begun, has_begun) = crossbeam_channel::bounded(1);
    let (release, wait) = crossbeam_channel::bounded::<()>(0);
    let server = TestServer::start(patient(), move |_| {
        begun.send(()).unwrap();
        let _ = wait.recv_timeout(LONG);
        Response::bytes(200, "text/plain", "done")
    });
    let mut idle = server.connect();
    let mut half = server.connect();
    half.send("GET / HT");
    let mut busy = server.connect();
    busy.send("GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
    has_begun.recv_timeout(LONG).unwrap();
    wait_until("all are accepted", || server.threads() == 4);
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| server.server().stop(LONG));
        idle.ends();
        half.ends();
        drop(release);
        let answer = busy.answer();
        assert_eq!(
            (answer.text(), answer.header("Connection")),
            ("done", Some("close"))
        );
        // The second request is not begun.
        busy.ends();
        assert_eq!(stop.join().unwrap(), 0);
    });
}

#[test]
fn a_stop_cuts_off_who_neither_reads_nor_sends() {
    let server = TestServer::start(patient(), |request| match request.path() {
        "/events" => Response::events(|stream| wait_until("the stop", || !stream.is_open())),
        "/long" => Response::stream(200, "text/plain", 1 << 40, std::io::repeat(b'x')),
        _ => match request.read_body(100) {
            Ok(_) => Response::empty(200),
            Err(error) => refused(error),
        },
    });
    let mut clients = [
        server.connect(),
        server.connect(),
        server.connect(),
        server.connect(),
    ];
    clients[0].send("GET /events HTTP/1.1\r\nHost: h\r\n\r\n");
    clients[1].send("GET /long HTTP/1.1\r\nHost: h\r\n\r\n");
    clients[2].send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n123");
    assert_eq!(clients[0].head().status, 200);
    assert_eq!(clients[1].head().status, 200);
    wait_until("all are accepted", || server.threads() == 5);
    server.server().stop(SHORT);
    wait_until("all to be cut off", || server.threads() == 0);
    // A stream that ended so is whole.
    assert_eq!(clients[0].chunk(), None);
    for mut client in clients {
        client.rest();
    }
}

#[test]
fn a_stop_says_what_it_leaves() {
    let (release, wait) = crossbeam_channel::bounded::<()>(0);
    let (begun, has_begun) = crossbeam_channel::bounded(1);
    let server = TestServer::start(patient(), move |_| {
        begun.send(()).unwrap();
        let _ = wait.recv_timeout(LONG);
        Response::empty(200)
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    has_begun.recv_timeout(LONG).unwrap();
    let is_left = || server.server().stop(Duration::from_millis(1)) == 1;
    wait_until("all but the handler to end", is_left);
    drop(release);
    client.ends();
}

#[test]
fn a_handler_that_waits_can_notice_the_stop() {
    let (begun, has_begun) = crossbeam_channel::bounded(1);
    let server = TestServer::start(patient(), move |request| {
        begun.send(()).unwrap();
        wait_until("the stop", || !request.is_awaited());
        Response::empty(503)
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    has_begun.recv_timeout(LONG).unwrap();
    assert_eq!(server.server().stop(LONG), 0);
    assert_eq!(client.answer().status, 503);
}

#[test]
fn an_address_that_is_none_or_in_use_is_refused_with_a_way_out() {
    let (server, _) = TestServer::echo(patient());
    for (address, wanted) in [
        ("localhost:0".to_owned(), "is not an address with a port"),
        (
            server.address.to_string(),
            "take another port, or 0 for a free one",
        ),
    ] {
        let threads = Threads::with_limit(10);
        let handler = |_: &mut Request<'_>| Response::empty(200);
        let started = Server::start(&address, patient(), threads.clone(), handler);
        let error = started.unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
        assert_eq!(threads.count(), 0);
    }
}

#[test]
fn a_connection_for_which_there_is_no_thread_is_told_to_come_back() {
    let threads = Threads::with_limit(1);
    let handler = |_: &mut Request<'_>| Response::empty(200);
    let server = Server::start("127.0.0.1:0", patient(), threads.clone(), handler).unwrap();
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut client = Client(stream);
    let answer = client.answer();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("Retry-After"), Some("1"));
    client.ends();
    assert_eq!(server.stop(LONG), 0);
    assert_eq!(threads.join_all(Deadline::after(LONG)), 0);
}
