//! Starting, stopping and removing plugins.

use super::{Place, expect};

#[test]
fn plugins_are_started_stopped_and_restarted_also_after_a_failure() {
    let place = Place::served();
    place.ok("install hello.zip");
    let said = place.fails(1, "call hello ping");
    expect(
        &said,
        &["hello (", "does not run", "plugin-runner activate"],
    );
    place.ok("install bad.zip");
    let output = place.output("activate bad nothing hello");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    expect(
        &said,
        &[
            "bad (",
            "exit status 42",
            "plugin-runner logs ",
            "there is no plugin \"nothing\"",
        ],
    );
    expect(
        &String::from_utf8_lossy(&output.stdout),
        &["hello (", ") is active"],
    );
    let before = place.json("get hello")["status"]["activated_at"].clone();
    expect(&place.ok("restart hello"), &["hello (", ") is active"]);
    assert_ne!(place.json("get hello")["status"]["activated_at"], before);
    let shown = place.json("deactivate hello");
    assert_eq!(shown["status"]["active_state"], "inactive");
    assert_eq!(place.state("hello"), "inactive");
    expect(&place.fails(3, "restart helo"), &["did you mean hello"]);
}

#[test]
fn without_a_host_nothing_is_started() {
    let place = Place::new();
    place.ok("install hello.zip --data data");
    for command in [
        "activate hello",
        "deactivate hello",
        "restart hello",
        "rollback hello",
        "token rotate hello",
    ] {
        expect(
            &place.fails(4, command),
            &["no host is running on", "plugin-runner serve"],
        );
    }
    expect(&place.ok("remove hello"), &["hello (", "is removed"]);
    assert_eq!(place.ok("list --json"), "");
}

#[test]
fn what_is_removed_keeps_its_data_unless_it_is_purged() {
    let place = Place::served();
    for (flag, is_kept) in [("", true), ("--purge --yes", false)] {
        let id = place.json("install hello.zip --activate")["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let said = place.ok(&format!("remove hello {flag}"));
        expect(&said, &["hello (", "is removed"]);
        assert_eq!(said.contains("its data is kept in "), is_kept, "{said}");
        assert_eq!(place.scratch.path("data").join(&id).exists(), is_kept);
        expect(&place.fails(3, "get hello"), &["no plugin"]);
    }
}
