//! External plugins: their tokens, their manifests, and how their connections end when these change.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use plugin_runner::ReportedState::{Active, Connecting};
use plugin_runner::auth::ExternalToken;
use plugin_runner::{ActiveState, Error, ErrorKind, InstallationId, fault};
use tungstenite::Message;

use super::store::{Done, FailingStore, Step};
use super::{Managed, settings};
use crate::support::LONG;
use crate::support::host::active;
use crate::support::http::Request;
use crate::support::peer::Peer;
use crate::support::plugin::manifest;

impl Managed {
    #[track_caller]
    fn outside(&self) -> (InstallationId, ExternalToken) {
        let (installation, token) = self.install_external(manifest("outside")).unwrap();
        (installation.id(), token)
    }

    #[track_caller]
    fn connect(&self, token: &ExternalToken) -> Peer {
        Peer::connect(self.host.address(), &target(token))
    }

    /// The status that a handshake with this token is answered with.
    #[track_caller]
    fn knock(&self, token: &ExternalToken) -> u16 {
        let request = Request::upgrade(&target(token));
        request.send(self.host.address()).status
    }
}

fn target(token: &ExternalToken) -> String {
    format!("/rpc?token={}", token.expose())
}

/// Reads until the connection ends; returns the code and the reason of its close.
#[track_caller]
fn closed(peer: &mut Peer) -> (u16, String) {
    loop {
        match peer.socket.read() {
            Ok(Message::Close(Some(frame))) => {
                return (frame.code.into(), frame.reason.as_str().to_owned());
            }
            Ok(_) => {}
            Err(error) => panic!("no close, but {error}"),
        }
    }
}

/// Reads a connection in the background, as a plugin does, until it ends.
fn closing(mut peer: Peer) -> thread::JoinHandle<(u16, String)> {
    thread::spawn(move || closed(&mut peer))
}

#[test]
fn a_token_is_shown_once_unless_it_is_to_be_kept() {
    for keeps in [false, true] {
        let settings = settings().keep_external_tokens(keeps);
        let managed = Managed::with("token", settings);
        let (id, token) = managed.outside();
        for rotated in [false, true] {
            let token = if rotated {
                managed.rotate_token(id).unwrap()
            } else {
                token.clone()
            };
            let shown = managed.get(id).unwrap();
            assert_eq!(shown.record().active_state, ActiveState::Active);
            assert_eq!(shown.reported_state(), Connecting);
            assert_eq!(shown.record().external_token(), keeps.then_some(&token));
            let stored = serde_json::to_string(&shown.record()).unwrap();
            assert_eq!(stored.contains(token.expose()), keeps, "{stored}");
            let text = format!("{shown:?} {:?}", managed.list().unwrap());
            assert!(!text.contains(token.expose()), "{text}");
            let peer = managed.connect(&token);
            managed.session(id).wait_for(Active, LONG).unwrap();
            drop(peer);
            managed.session(id).wait_for(Connecting, LONG).unwrap();
        }
    }
}

#[test]
fn a_manifest_with_problems_changes_nothing() {
    let managed = Managed::new("bad-manifest");
    let mut bad = manifest("");
    bad.author = String::new();
    let check = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::InvalidManifest);
        let text = error.to_string();
        assert!(text.contains("id") && text.contains("author"), "{text}");
    };
    check(managed.install_external(bad.clone()).unwrap_err());
    managed.expect_nothing_at_all();
    let (id, token) = managed.outside();
    let before = managed.get(id).unwrap().record().clone();
    let _peer = managed.connect(&token);
    active(&managed.session(id));
    check(managed.update_manifest(id, bad).unwrap_err());
    assert_eq!(managed.get(id).unwrap().record(), &before);
    assert_eq!(
        managed.session(id).reported_state(),
        Active,
        "its connection stays"
    );
}

#[test]
fn a_new_manifest_has_the_plugin_come_back() {
    let managed = Managed::new("new-manifest");
    let (id, token) = managed.outside();
    // The name is what a session has for life.
    for name in ["outside", "renamed", "outside"] {
        let session = managed.session(id);
        let peer = managed.connect(&token);
        session.wait_for(Active, LONG).unwrap();
        let closing = closing(peer);
        let mut new = manifest(name);
        new.version = "2".to_owned();
        let updated = managed.update_manifest(id, new.clone()).unwrap();
        assert_eq!(
            closing.join().unwrap(),
            (1012, "manifest updated".to_owned())
        );
        assert_eq!(updated.manifest().clone(), new);
        assert_eq!(updated.reported_state(), Connecting);
        let session = managed.session(id);
        let peer = managed.connect(&token);
        session.wait_for(Active, LONG).unwrap();
        assert_eq!(session.manifest(), new);
        drop(peer);
        session.wait_for(Connecting, LONG).unwrap();
    }
}

#[test]
fn a_rotated_token_counts_no_more() {
    let managed = Managed::new("rotate");
    let (id, old) = managed.outside();
    let peer = managed.connect(&old);
    let session = managed.session(id);
    session.wait_for(Active, LONG).unwrap();
    let closing = closing(peer);
    let new = managed.rotate_token(id).unwrap();
    assert_eq!(closing.join().unwrap(), (1008, "token rotated".to_owned()));
    assert_ne!(old.expose(), new.expose());
    assert_eq!(managed.knock(&old), 401);
    assert_eq!(session.counters().refused_spent_token, 1);
    // A token that was never used is known too.
    let newer = managed.rotate_token(id).unwrap();
    assert_eq!(managed.knock(&new), 401);
    let new = managed.rotate_token(id).unwrap();
    assert_eq!(managed.knock(&newer), 401);
    assert_eq!(session.counters().refused_spent_token, 3);
    assert_eq!(managed.get(id).unwrap().reported_state(), Connecting);
    let _peer = managed.connect(&new);
    session.wait_for(Active, LONG).unwrap();
}

#[test]
fn a_connection_that_is_let_in_with_the_old_token_at_that_moment_is_not_kept() {
    let managed = Managed::new("rotate-reserved");
    let (id, old) = managed.outside();
    let hold = fault::hold(fault::RESERVED, id);
    let mut events = managed.host.events();
    let address = managed.host.address();
    let early = target(&old);
    thread::scope(|scope| {
        let early = scope.spawn(move || Peer::connect(address, &early).read_to_close());
        assert!(hold.reached(LONG), "no connection arrived");
        let new = managed.rotate_token(id).unwrap();
        // A connection that is about to end keeps no other out.
        let _peer = managed.connect(&new);
        events.until(id, Active);
        hold.release();
        early.join().unwrap();
        assert_eq!(managed.session(id).counters().connections, 1);
        assert_eq!(managed.session(id).reported_state(), Active);
    });
}

#[test]
fn a_token_that_was_good_when_it_was_looked_up_is_refused_after_its_rotation() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "looked-up", settings());
    let (id, old) = managed.outside();
    let hold = store.hold(Done::LookUp);
    thread::scope(|scope| {
        let early = scope.spawn(|| managed.knock(&old));
        hold.expect(LONG);
        let new = managed.rotate_token(id).unwrap();
        drop(hold);
        assert_eq!(early.join().unwrap(), 401);
        assert_eq!(managed.session(id).reported_state(), Connecting);
        let _peer = managed.connect(&new);
        let session = managed.session(id);
        session.wait_for(Active, LONG).unwrap();
        assert_eq!(session.counters().connections, 1);
    });
}

#[test]
fn a_removed_plugin_is_disconnected_for_good() {
    let managed = Managed::new("remove-external");
    let (id, token) = managed.outside();
    let peer = managed.connect(&token);
    let session = managed.session(id);
    session.wait_for(Active, LONG).unwrap();
    let closing = closing(peer);
    managed.remove(id).unwrap();
    assert_eq!(closing.join().unwrap(), (1008, "removed".to_owned()));
    assert_eq!(managed.knock(&token), 401);
    assert!(managed.host.session(id).is_none());
    managed.expect_nothing_at_all();
}

#[test]
fn a_store_that_fails_leaves_token_manifest_and_connection() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "store-fails", settings());
    store.fail(Step::Put, 0);
    managed.install_external(manifest("outside")).unwrap_err();
    store.mend();
    managed.expect_nothing_at_all();
    let (id, token) = managed.outside();
    let before = managed.get(id).unwrap().record().clone();
    let mut peer = managed.connect(&token);
    let session = managed.session(id);
    session.wait_for(Active, LONG).unwrap();
    store.fail(Step::Put, 0);
    managed.rotate_token(id).unwrap_err();
    managed.update_manifest(id, manifest("other")).unwrap_err();
    store.mend();
    assert_eq!(managed.get(id).unwrap().record(), &before);
    let params = serde_json::json!({"still": "there"});
    let call = session
        .start_call_raw("echo", &params, Duration::from_secs(60))
        .unwrap();
    assert_eq!(peer.answer_one()["params"], params);
    call.wait().unwrap();
    // One that cannot be deleted stays, and may connect again.
    store.fail(Step::Delete, 0);
    drop(peer);
    managed.remove(id).unwrap_err();
    store.mend();
    assert_eq!(managed.get(id).unwrap().record(), &before);
    let _peer = managed.connect(&token);
    let session = managed.session(id);
    session.wait_for(Active, LONG).unwrap();
}
