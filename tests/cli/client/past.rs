//! What plugins were before: their versions, and how their runs ended.

use super::{Place, expect};

#[test]
fn a_version_that_was_replaced_comes_back() {
    let place = Place::served();
    place.ok("install hello.zip --activate");
    let said = place.fails(1, "rollback hello");
    expect(&said, &["hello ("]);
    place.ok("update hello hello-2.zip");
    let table = place.ok("versions hello");
    expect(&table, &["VERSION", "2.0.0", "1.0.0", "now"]);
    let versions = place.lines("versions hello");
    assert_eq!(versions.len(), 2, "{versions:?}");
    assert_eq!(versions[0]["is_current"], true);
    expect(
        &place.ok("rollback hello"),
        &["is 1.0.0 again, and active; it was 2.0.0"],
    );
    expect(&place.ok("rollback hello --to 2.0.0"), &["is 2.0.0 again"]);
    let start = &versions[1]["sha256"].as_str().unwrap()[..8];
    let back = place.json(&format!("rollback hello --to {start}"));
    assert_eq!(back["version"], "1.0.0");
    let said = place.fails(1, "rollback hello --to 3.0.0");
    expect(&said, &["no version \"3.0.0\"", "2.0.0", "1.0.0"]);
    assert_eq!(place.json("get hello")["version"], "1.0.0");
}

#[test]
fn runs_that_ended_are_told_with_the_plugins_own_words() {
    let place = Place::served();
    place.ok("install bad.zip");
    place.fails(1, "activate bad");
    expect(
        &place.ok("history bad"),
        &["exit status 42", "given up", "tried", "and failed"],
    );
    let runs = place.lines("history bad");
    assert_eq!(runs[0]["error"], "exit status 42");
    assert!(runs.iter().all(|run| run["at"].is_string()), "{runs:?}");
    let id = place.json("get bad")["id"].clone();
    assert!(runs.iter().all(|run| run["installation"] == id), "{runs:?}");
}
