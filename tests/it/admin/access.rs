//! Who is served and who is not.

use plugin_runner::admin::{AdminServer, AdminSettings};

use super::{Api, TOKEN};

#[test]
fn only_the_token_opens_the_api() {
    let api = Api::new("admin-token");
    for path in ["/api/plugins", "/api/no-such-path"] {
        let (other, none) = ("not the one of this server", "as `Authorization: Bearer …`");
        for (headers, reason) in [
            (vec![], none),
            (
                vec![("Authorization", "Bearer another-token-of-nobodys")],
                other,
            ),
            (vec![("Authorization", TOKEN)], none),
            (vec![("Authorization", "Basic dGhlOnRva2Vu")], none),
            (vec![("Cookie", "storyden-session=1")], none),
        ] {
            let answer = api.send_without_token("GET", path, &headers, b"");
            let (kind, detail) = answer.problem(401);
            assert_eq!(kind, "unauthenticated", "{headers:?}");
            assert!(detail.contains(reason), "{headers:?}: {detail}");
            assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
        }
    }
    assert_eq!(api.get("/api/plugins").status, 200);
    assert_eq!(api.get("/api/no-such-path").problem(404).0, "no_such_path");
    let other = api.send("DELETE", "/api/plugins", &[], b"");
    assert_eq!(other.problem(405).0, "method_not_allowed");
    assert!(other.header("Allow").unwrap().contains("GET"));
    api.end();
}

#[test]
fn a_name_that_may_have_been_rebound_is_refused() {
    let settings = AdminSettings::default().allow_hosts(vec!["plugins.example".into()]);
    let api = Api::with("admin-host", settings);
    let asked = |host| api.send("GET", "/api/plugins", &[("Host", host)], b"");
    for host in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1:8001",
        "[::1]:8001",
        "plugins.example:80",
    ] {
        assert_eq!(asked(host).status, 200, "{host}");
    }
    for host in [
        "evil.example",
        "127.0.0.1.evil.example:8001",
        "plugins.example.evil.example",
    ] {
        let (kind, detail) = asked(host).problem(421);
        assert_eq!(kind, "misdirected", "{host}");
        assert!(detail.contains("allowed hosts"), "{detail}");
    }
    api.end();
}

#[test]
fn pages_of_other_origins_are_refused_unless_they_are_allowed() {
    let settings = AdminSettings::default().allow_origins(vec!["https://admin.example".into()]);
    let api = Api::with("admin-origin", settings);
    let asked = |origin: &str| api.send("GET", "/api/plugins", &[("Origin", origin)], b"");
    let allow = "Access-Control-Allow-Origin";
    for origin in ["https://admin.example", &*api.server.url()] {
        let answer = asked(origin);
        assert_eq!(answer.status, 200, "{origin}");
        assert_eq!(answer.header(allow), Some(origin));
    }
    for origin in ["https://evil.example", "null", "http://admin.example"] {
        let answer = asked(origin);
        assert_eq!(answer.problem(403).0, "origin_not_allowed", "{origin}");
        assert_eq!(answer.header(allow), None);
    }
    let preflight = [
        ("Origin", "https://admin.example"),
        ("Access-Control-Request-Method", "GET"),
    ];
    let answer = api.send_without_token("OPTIONS", "/api/plugins", &preflight, b"");
    assert_eq!(answer.status, 204);
    assert!(
        answer
            .header("Access-Control-Allow-Headers")
            .unwrap()
            .contains("Authorization")
    );
    let origins = vec!["https://evil.example".to_owned()];
    api.server.set_allowed_origins(origins).unwrap();
    assert_eq!(asked("https://evil.example").status, 200);
    assert_eq!(asked("https://admin.example").status, 403);
    api.end();
}

#[test]
fn settings_that_cannot_work_are_named() {
    let api = Api::new("admin-settings");
    let start = |token: &str, settings| {
        let manager = (*api.managed).clone();
        let error = AdminServer::start(manager, "127.0.0.1:0", token, settings).unwrap_err();
        error.to_string()
    };
    let settings = AdminSettings::default;
    for (error, word) in [
        (start("short", settings()), "token"),
        (start("a token with blanks in it", settings()), "token"),
        (start(TOKEN, settings().connections(0)), "connections"),
        (
            start(TOKEN, settings().allow_hosts(vec!["a:80".into()])),
            "allow_hosts",
        ),
        (
            start(TOKEN, settings().allow_origins(vec!["*".into()])),
            "allow_origins",
        ),
    ] {
        assert!(error.contains(word), "{error}");
        assert!(!error.contains("blanks"), "{error}");
    }
    api.end();
}
