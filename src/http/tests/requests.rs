//! Requests that are right: one after the other, in whatever pieces they come, of both versions.

use super::*;

#[test]
fn requests_in_one_piece_are_answered_in_their_order() {
    let (server, _) = TestServer::echo(patient());
    let mut client = server.connect();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n\
         POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello\
         POST /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
         2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\ntrailer: z\r\n\r\n\
         GET /4 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n\
         GET /5 HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    for wanted in ["GET /1 ", "POST /2 hello", "POST /3 hello", "GET /4 "] {
        assert_eq!(client.answer().text(), wanted);
    }
    client.ends();
}

#[test]
fn requests_that_come_byte_by_byte_are_answered_alike() {
    let (server, _) = TestServer::echo(patient());
    let mut client = server.connect();
    let requests = "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n\
         POST /2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\n\r\n\
         POST /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab";
    for byte in requests.bytes() {
        client.send([byte]);
    }
    for wanted in ["GET /1 ", "POST /2 hello", "POST /3 ab"] {
        assert_eq!(client.answer().text(), wanted);
    }
}

#[test]
fn an_old_client_is_answered_and_its_connection_ends() {
    let (server, _) = TestServer::echo(patient());
    let mut client = server.connect();
    client.send("POST /old HTTP/1.0\r\nContent-Length: 2\r\n\r\nab");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (200, "POST /old ab"));
    assert_eq!(answer.header("Connection"), Some("close"));
    client.ends();
}

#[test]
fn head_gets_the_head_alone() {
    let (server, _) = TestServer::echo(patient());
    let mut client = server.connect();
    client.send("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n");
    let head = client.head();
    assert_eq!(
        (head.status, head.header("Content-Length")),
        (200, Some("8"))
    );
    // The next answer follows at once.
    assert_eq!(client.get("/b").text(), "GET /b ");
}

#[test]
fn answers_without_a_body_have_none() {
    let server = TestServer::start(patient(), |request| match request.path() {
        "/gone" => Response::empty(204),
        "/nothing" => Response::empty(200),
        _ => {
            let answer = RefusalAnswer::TOO_MANY_CONNECTIONS;
            Response::refusal(answer, answer.plain_text())
        }
    });
    let mut client = server.connect();
    client.send("DELETE /gone HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = client.head();
    assert_eq!(
        (answer.status, answer.header("Content-Length")),
        (204, None)
    );
    assert_eq!(client.get("/nothing").header("Content-Length"), Some("0"));
    let answer = client.get("/");
    assert_eq!(
        (answer.status, answer.header("Retry-After")),
        (503, Some("1"))
    );
    assert_eq!(answer.text(), "too many connections\n");
}

#[test]
fn a_handler_sees_what_was_asked() {
    let server = TestServer::start(patient(), |request| {
        let body = format!(
            "{} {} {:?} {:?}",
            request.path(),
            request.query(),
            request.header("x-NAME"),
            request.header("absent"),
        );
        assert!(request.is_awaited() && request.peer().ip().is_loopback());
        Response::bytes(200, "text/plain", body)
    });
    let mut client = server.connect();
    client.send("GET /a%2F?b=c&d?e HTTP/1.1\r\nHost: h\r\nX-Name:  some value \r\n\r\n");
    let wanted = "/a%2F b=c&d?e Some(\"some value\") None";
    assert_eq!(client.answer().text(), wanted);
}

#[test]
fn no_header_can_be_smuggled_into_an_answer() {
    let server = TestServer::start(patient(), |request| {
        let value = request.query().replace("%0D", "\r").replace("%0A", "\n");
        let value = value.replace("%00", "\0");
        let response = Response::empty(200);
        match request.path() {
            "/length" => response.header("Content-Length", value),
            "/name" => response.header("x: y\r\nx", value),
            _ => response.header("X-Value", value),
        }
    });
    let mut client = server.connect();
    let answer = client.get("/value?right%20");
    assert_eq!(
        (answer.status, answer.header("X-Value")),
        (200, Some("right%20"))
    );
    for target in [
        "/?a%0D%0AX-Bad:y",
        "/?a%0AX-Bad:y",
        "/?a%0DX-Bad:y",
        "/?%00",
        "/length?5",
        "/name?a",
    ] {
        let answer = client.get(target);
        assert_eq!(answer.status, 500, "{target}");
        assert_eq!(answer.header("X-Bad"), None, "{target}");
        assert_eq!(answer.text(), "internal server error\n");
    }
}

#[test]
fn a_server_words_its_refusals() {
    let settings = HttpSettings {
        refusal_body: |answer| RefusalBody {
            content_type: "text/x-own",
            text: format!("own {}", answer.status),
        },
        ..patient()
    };
    let server = TestServer::start(settings, |request| match request.path() {
        "/panic" => panic!("on purpose"),
        _ => Response::empty(200).header("x", "\n"),
    });
    for (request, status) in [
        ("GET /panic HTTP/1.1\r\nHost: h\r\n\r\n", 500),
        (
            "GET /wrong-header HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            500,
        ),
        ("GET / HTTP/1.1\r\n\r\n", 400),
    ] {
        let mut client = server.connect();
        let answer = client.send(request).answer();
        assert_eq!(
            (answer.status, answer.text()),
            (status, &*format!("own {status}"))
        );
        assert_eq!(answer.header("Content-Type"), Some("text/x-own"));
        client.ends();
    }
}

#[test]
fn a_handler_that_panics_is_answered_for() {
    let server = TestServer::start(patient(), |request| {
        assert_ne!(request.path(), "/panic", "on purpose");
        Response::empty(200)
    });
    let mut client = server.connect();
    let answer = client.get("/panic");
    assert_eq!(
        (answer.status, answer.header("Connection")),
        (500, Some("close"))
    );
    client.ends();
    assert_eq!(server.connect().get("/").status, 200);
}

#[cfg(feature = "fetch")]
#[test]
fn a_client_that_others_have_written_gets_on_with_it() {
    let (server, _) = TestServer::echo(patient());
    let config = ureq::Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(LONG))
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let url = format!("http://{}/a", server.address);
    for _ in 0..3 {
        let mut answer = agent.get(&url).call().unwrap();
        assert_eq!(answer.body_mut().read_to_string().unwrap(), "GET /a ");
        let mut answer = agent.put(&url).send("text").unwrap();
        assert_eq!(answer.body_mut().read_to_string().unwrap(), "PUT /a text");
        let mut source = std::io::repeat(b'x').take(100_000);
        let body = ureq::SendBody::from_reader(&mut source);
        let mut answer = agent.post(&url).send(body).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert_eq!(text.len(), "POST /a ".len() + 100_000);
    }
    assert_eq!(server.threads(), 2, "all went over one connection");
}
