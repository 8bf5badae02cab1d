//! What can be learned from the service itself about what its documents leave open.
//!
//! `SPRITES_API_KEY=… cargo test --test it -- --ignored --nocapture sprites_live` asks it, or what `SPRITES_API_URL`
//! names: it makes a sprite, which costs next to nothing and is deleted whatever happens, does there what the
//! host does with sprites, and prints a line for each open question. The same is done with the fake in every run
//! of the tests.

mod client;
mod questions;

use std::io::Write as _;

use plugin_runner::manager::PackageSource;
use plugin_runner::protocol::method::Ping;
use plugin_runner::runtime::SpritesSettings;
use plugin_runner::store::MemoryStore;
use plugin_runner::{Host, InstallationId, Manager};
use serde_json::json;

use client::{Client, Outcome, shown};
use questions::{Learned, Live};

use crate::sprites::{Answer, Fake, Fault};
use crate::support::{LONG, TestDir, skipped};

/// A plugin over stdio that answers every call, for a sprite where only a shell is certain to be.
const PLUGIN: &str = r#"#!/bin/bash
while IFS= read -r call; do
    [[ $call =~ \"id\":\"([0-9a-v]+)\" ]] &&
        printf '{"jsonrpc":"2.0","id":"%s","result":{"method":"ping","pong":true}}\n' \
            "${BASH_REMATCH[1]}"
done
"#;

#[test]
#[ignore = "asks the real service, with SPRITES_API_KEY"]
fn sprites_live() {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(key) = variable("SPRITES_API_KEY") else {
        skipped("sprites_live", "SPRITES_API_KEY is not set");
        return;
    };
    let url = variable("SPRITES_API_URL");
    let learned = learn(url.as_deref().unwrap_or("https://api.sprites.dev"), &key);
    let host = learned.last().unwrap();
    assert!(host.is_learned, "{}", host.text);
}

/// Asks all questions and prints what was learned, one line for each, and last whether this crate works there.
fn learn(url: &str, key: &str) -> Vec<Learned> {
    let mut learned = Live::new(Client::new(url, key)).ask_all();
    learned.push(Learned::of("this crate", host(url, key)));
    for line in &learned {
        println!("{}", line.text);
    }
    learned
}

/// Runs a plugin there as an embedder does.
fn host(url: &str, key: &str) -> Outcome<String> {
    let dir = TestDir::new("sprites-live");
    let host = Host::builder()
        .data_dir(dir.path())
        .store(std::sync::Arc::new(MemoryStore::default()))
        .sprites(SpritesSettings::new(key).api_url(url))
        // Nothing connects: the plugin talks over its standard input.
        .rpc_base_url("wss://nowhere.invalid")
        .build()
        .map_err(shown)?;
    let manager = Manager::new(host.clone()).map_err(shown)?;
    let json = json!({
        "id": "live", "author": "tests", "name": "live", "description": "for tests", "version": "1.0.0",
        "command": "./main", "transport": "stdio",
    });
    let json = json.to_string();
    let package = zip(&[("manifest.json", &json, 0o644), ("main", PLUGIN, 0o755)]);
    let installed = manager
        .install(PackageSource::bytes(package))
        .map_err(shown)?;
    let id = installed.id();
    let outcome = lives(&manager, id);
    // In any case: its sprite goes with it.
    let removed = manager.remove(id).map_err(shown);
    let report = host.shutdown(LONG);
    let text = outcome?;
    if let Some(left) = removed?.left {
        return Err(left);
    }
    if !report.is_complete() {
        return Err(format!("{report:?}"));
    }
    Ok(text)
}

fn zip(files: &[(&str, &str, u32)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (path, content, mode) in files {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(*mode);
        zip.start_file(*path, options).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn lives(manager: &Manager, id: InstallationId) -> Outcome<String> {
    let began = std::time::Instant::now();
    manager.activate(id, 4 * LONG).map_err(shown)?;
    let first = began.elapsed();
    let session = manager.session(id).map_err(shown)?;
    let pong = session.call(&Ping {}, LONG).map_err(shown)?;
    let began = std::time::Instant::now();
    manager.restart(id, 4 * LONG).map_err(shown)?;
    let again = began.elapsed();
    manager.deactivate(id, LONG).map_err(shown)?;
    Ok(format!(
        "a plugin over stdio is active after {first:.1?}, answers ({}), and starts again in {again:.1?}",
        pong.pong
    ))
}

#[test]
fn the_fake_answers_every_question_that_can_be_answered() {
    let fake = Fake::start();
    fake.set(|switches| switches.max_run = std::time::Duration::from_secs(1));
    let learned = learn(&fake.url(), fake.token());
    let told: Vec<_> = learned.iter().map(|line| &*line.text).collect();
    assert_eq!(learned.len(), 16, "{told:#?}");
    for (number, part) in [
        (1, "without max_run_after_disconnect gone after"),
        (1, "with 60s still listed"),
        (2, "session_info with tty false, and no output"),
        (3, "comes first"),
        (4, "frame 0x03 with 7, no text"),
        (5, "ends it at once: no"),
        (6, "timeout=1: status 200; timeout=1s: status 200"),
        (7, "INT: status 200; SIGINT: status 200"),
        (8, "no sprite: {\"error\":\"sprite not found\"}"),
        (9, "status 404"),
        (10, "mkdirParents: status 200; mkdir: status 200"),
        (11, "HOME"),
        (12, "not learned"),
        (13, "no pings"),
        (14, "error"),
        (15, "not learned"),
        (16, "is active after"),
    ] {
        let line = told[number - 1];
        assert!(line.contains(part), "{number}: {part}: {told:#?}");
        let is_open = [12, 15].contains(&number);
        assert_eq!(learned[number - 1].is_learned, !is_open, "{line}");
        assert!(!line.contains(fake.token()), "{line}");
    }
    assert_eq!(fake.sprites(), [""; 0]);
    fake.finish();
}

#[test]
fn the_sprite_is_deleted_also_when_nothing_works() {
    let fake = Fake::start();
    let failure = Answer::json(403, &json!({"error": "no"}));
    fake.set(|switches| {
        for pattern in ["GET *", "PUT *", "POST */kill"] {
            switches.next(1_000, pattern, Fault::Answer(failure.clone()));
        }
    });
    let learned = learn(&fake.url(), fake.token());
    let host = learned.last().unwrap();
    assert!(
        !host.is_learned && host.text.contains("not learned: "),
        "{}",
        host.text
    );
    assert!(fake.calls().count("POST /v1/sprites") > 0);
    assert_eq!(fake.sprites(), [""; 0]);
    fake.finish();
}
