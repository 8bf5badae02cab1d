//! What supervisors are told, who have no token.

use std::thread;

use super::Api;
use crate::support::{LONG, wait_until};

#[test]
fn probes_need_no_token_and_are_told_one_word() {
    let api = Api::new("admin-probes");
    let asked = |path| {
        let answer = api.send_without_token("GET", path, &[], b"");
        assert!(
            answer
                .header("Content-Type")
                .unwrap()
                .starts_with("text/plain")
        );
        (answer.status, answer.text())
    };
    assert_eq!(asked("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(asked("/readyz"), (503, "starting\n".to_owned()));
    api.managed.boot(LONG).unwrap();
    assert_eq!(asked("/readyz"), (200, "ready\n".to_owned()));
    let head = api.send_without_token("HEAD", "/readyz", &[], b"");
    assert_eq!((head.status, head.text()), (200, String::new()));
    // Nothing else is open, whatever the method.
    let other = api.send_without_token("POST", "/readyz", &[], b"");
    assert_eq!(other.problem(401).0, "unauthenticated");
    // While the host shuts down, for which it waits for this server too.
    thread::scope(|scope| {
        scope.spawn(|| api.managed.host.shutdown(LONG));
        wait_until("the host to be stopping", || {
            asked("/readyz") == (503, "stopping\n".to_owned())
        });
        assert_eq!(asked("/healthz"), (200, "ok\n".to_owned()));
        assert_eq!(api.server.stop(LONG), 0);
    });
    api.end();
}
