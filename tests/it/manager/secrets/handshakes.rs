//! Handshakes: with tokens that are right, wrong, replaced and spent, and with headers that are nobody's
//! business; over the listener, over a stream that the embedder accepted, and with a head that it read.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;

use plugin_runner::ActiveState;
use plugin_runner::ReportedState::{Active, Connecting};
use plugin_runner::auth::ExternalToken;
use plugin_runner::listener::RequestHead;

use super::*;
use crate::admission::parts;
use crate::support::host::active;
use crate::support::http::{Answer, FORGED, Request, connect};
use crate::support::peer::Peer;
use crate::support::plugin::target;
use crate::support::wait_for;

/// A good handshake with headers that say more than they have to.
fn request(target: &str) -> Request {
    Request::upgrade(target)
        .with("Authorization", &format!("Bearer {HEADER}"))
        .with("Cookie", &format!("session={HEADER}"))
        .with("Sec-WebSocket-Protocol", HEADER)
        .with("X-Forwarded-For", HEADER)
        .with("Referer", &format!("http://h/{HEADER}"))
}

fn to_rpc(token: &str) -> String {
    format!("/rpc?key={URL}&token={token}")
}

impl Watched {
    /// Sends it in every way; returns what it was answered, which must be the same in each.
    #[track_caller]
    fn refused(&self, request: &Request) -> u16 {
        let evidence = &self.evidence;
        let head = request.to_text();
        let answer = Answer::read({
            let mut stream = connect(self.host.address());
            stream.write_all(head.as_bytes()).unwrap();
            stream
        });
        assert_ne!(answer.status, 101, "{head}");
        let raw = RequestHead::parse(head.as_bytes()).map(|(head, _)| head);
        for head in [raw, parts(head.as_bytes())].into_iter().flatten() {
            let head = head.address("203.0.113.7:9");
            evidence.debug(&head);
            let refusal = self.host.admit(head).unwrap_err();
            assert_eq!(refusal.status(), answer.status);
            evidence.debug(&refusal);
            evidence.error(&refusal.into());
        }
        let (mut peer, ours) = UnixStream::pair().unwrap();
        peer.write_all(head.as_bytes()).unwrap();
        evidence.failed(self.host.accept(ours));
        let (_peer, ours) = UnixStream::pair().unwrap();
        let read = head.into_bytes();
        evidence.failed(self.host.accept_with_head(ours, read));
        self.look();
        answer.status
    }

    /// Connects over the listener.
    #[track_caller]
    fn connect_marked(&self, target: &str) -> Peer {
        Peer::upgraded(request(target).send(self.host.address()))
    }
}

pub(super) fn run(evidence: &Arc<Evidence>) {
    let watched = Watched::new(evidence, settings());
    evidence.debug(&watched.host.listen("127.0.0.1:0").unwrap());
    let (installed, token) = watched.install_external(manifest("outside")).unwrap();
    let (id, session) = (installed.id(), watched.session(installed.id()));
    evidence.hide_token("an external token", token.expose());
    evidence.debug(&token);
    let good = to_rpc(token.expose());
    refused_whatever_the_token(&watched, &good);

    let other = ExternalToken::generate().unwrap();
    evidence.hide_token("a wrong token", other.expose());
    let named = format!("&plugin_id={id}");
    for (wrong, unnamed) in [(other.expose(), 401), (FORGED, 400), (HEADER, 400)] {
        assert_eq!(watched.refused(&request(&to_rpc(wrong))), unnamed);
        assert_eq!(watched.refused(&request(&(to_rpc(wrong) + &named))), 401);
    }
    let peer = watched.connect_marked(&good);
    active(&session);
    watched.look();
    assert_eq!(watched.refused(&request(&good)), 503);
    drop(peer);
    session.wait_for(Connecting, LONG).unwrap();
    // With a head that the embedder has read.
    let head = parts(request(&good).to_text().as_bytes()).unwrap();
    evidence.debug(&head);
    let admission = watched.host.admit(head).unwrap();
    evidence.debug(&admission);
    let (ours, peer) = UnixStream::pair().unwrap();
    evidence.debug(&admission.attach(ours, Vec::new()).unwrap());
    session.wait_for(Active, LONG).unwrap();
    watched.look();
    drop(peer);
    session.wait_for(Connecting, LONG).unwrap();
    let new = watched.rotate_token(id).unwrap();
    evidence.hide_token("a new token", new.expose());
    assert_eq!(watched.refused(&request(&good)), 401);
    session.set_active_state(ActiveState::Inactive).unwrap();
    assert_eq!(watched.refused(&request(&to_rpc(new.expose()))), 503);
    // A wrong one that the administrator types.
    for text in [
        format!("{} ", other.expose()),
        URL.to_owned(),
        format!("sdprt_{HEADER}"),
    ] {
        evidence.failed(ExternalToken::parse(&text));
        evidence.failed(text.parse::<InstallationId>());
    }
    supervised(&watched);
}

fn refused_whatever_the_token(watched: &Watched, good: &str) {
    let changed = |name, value: &str| request(good).without(name).with(name, value);
    for (request, status) in [
        (changed("Origin", &format!("http://{HEADER}.example")), 403),
        (changed("Sec-WebSocket-Key", HEADER), 400),
        (changed("Sec-WebSocket-Version", HEADER), 400),
        (changed("Upgrade", HEADER), 426),
        (changed("Connection", HEADER), 426),
        (changed("Content-Length", HEADER), 400),
        (changed("Transfer-Encoding", HEADER), 400),
        (request(good).with(&format!("bad {HEADER}"), "x"), 400),
        (request(good).with("X", &format!("{HEADER}\u{1}")), 400),
        (request(good).with("X", &HEADER.repeat(1000)), 431),
        (request(good).method(HEADER), 405),
        (request(good).version(&format!("HTTP/{HEADER}")), 400),
        (request(&format!("/{URL}/rpc")), 404),
        (request(&format!("/rpc#{URL}")), 404),
        (request(&format!("http://me:{URL}@h/rpc")), 400),
        (request(&format!("http://me:{URL}@h/other")), 404),
        (request(&format!("/rpc?plugin_id={URL}&token=x")), 400),
        (request(&format!("/rpc?{URL}")), 400),
        (request(&format!("/rpc?token={URL} {URL}")), 400),
    ] {
        assert_eq!(watched.refused(&request), status, "{}", request.to_text());
    }
}

/// The token of a run, which its plugin has in its environment alone.
fn supervised(watched: &Watched) {
    let evidence = &watched.evidence;
    let script = "printf '%s\n' \"$STORYDEN_RPC_URL\" > \"$PLUGIN_DATA_DIR/url\"; exec sleep 1000";
    let id = watched.shell("inside", script);
    let mut spent: Option<String> = None;
    for _ in 0..2 {
        watched.request_activation(id).unwrap();
        let session = watched.session(id);
        let file = watched.folder(id).join("data/url");
        let url = wait_for("the URL of the run", || {
            let text = fs::read_to_string(&file).ok()?;
            text.strip_suffix('\n').map(str::to_owned)
        });
        fs::remove_file(&file).unwrap();
        let (_, token) = url.split_once("token=").unwrap();
        evidence.hide_token("the token of a run", token);
        let target = target(&url) + &format!("&key={URL}");
        let foreign = request(&target).with("Origin", "http://elsewhere.example");
        assert_eq!(watched.refused(&foreign), 403);
        if let Some(spent) = spent {
            assert_eq!(watched.refused(&request(&spent)), 401, "of the run before");
        }
        let peer = watched.connect_marked(&target);
        active(&session);
        assert_eq!(watched.refused(&request(&target)), 401, "spent");
        watched.deactivate(id, LONG).unwrap();
        drop(peer);
        watched.look();
        spent = Some(target);
    }
}
