//! Updates of plugins on sprites while the service fails.

use std::time::Duration;

use plugin_runner::ErrorKind;
use plugin_runner::protocol::Transport;

use crate::manager::{Managed, settings};
use crate::runtimes::place::Place;
use crate::sprites::{Answer, Fault, Switches};
use crate::support::failed;
use crate::support::host::active;

#[test]
fn a_version_that_cannot_be_brought_there_gives_way_to_the_one_before() {
    let place = Place::sprites("update-unuploaded");
    let managed = Managed::of(
        place.host(),
        settings().activate_timeout(Duration::from_secs(3)),
    );
    let package =
        |version| managed.package_of("scripted", version, Transport::WebSocket, &["alone"]);
    let id = managed.running(package("1"));
    managed.write_own_file(id, "own.txt", "kept");
    place.fake().set(|switches| {
        switches.next(1_000, "PUT */fs/write", Fault::Answer(Answer::empty(503)));
    });
    failed(ErrorKind::RolledBack, managed.update(id, package("2")));
    place.fake().set(|switches| *switches = Switches::default());
    active(&managed.session(id));
    assert_eq!(managed.answering_version(id), "1");
    assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("kept"));
    managed.update(id, package("2")).unwrap();
    assert_eq!(managed.answering_version(id), "2");
    assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("kept"));
    drop(managed);
    place.finish();
}
