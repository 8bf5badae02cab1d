//! `call`, `publish`, and what a plugin runs with: `config`, `env`, `limits`.

use serde_json::{Value, json};

use super::{done, refused};
use crate::program::Scratch;
use crate::serve::Server;

#[test]
fn a_plugin_is_called_and_events_are_published() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "");
    server.obedient(&scratch);
    assert_eq!(
        done(&scratch, r#"call obedient keep {"text":"kept"}"#),
        "{}\n"
    );
    let kept = done(&scratch, "call obedient kept --timeout 20s");
    assert_eq!(kept, "{\"text\": \"kept\"}\n");
    scratch.write("text.json", r#"{"text": "of a file"}"#);
    done(&scratch, "call obedient keep @text.json");
    assert_eq!(
        done(&scratch, "call obedient kept"),
        "{\"text\": \"of a file\"}\n"
    );
    let said = refused(&scratch, "call obedient wait --timeout 100ms", 1);
    assert!(said.contains("obedient"), "{said}");
    refused(&scratch, "call obedient keep [1]", 2);
    refused(&scratch, "call nothing keep", 3);
    let said = done(&scratch, "publish EventNone");
    assert!(said.contains("no active plugin consumes"), "{said}");
    server.program.stop();
    let said = refused(&scratch, "call obedient kept", 4);
    assert!(said.contains("no host is running"), "{said}");
}

#[test]
fn what_a_plugin_runs_with_is_set_before_a_host_runs() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "");
    server.obedient(&scratch);
    server.program.stop();

    let said = done(&scratch, "config set obedient greeting=hi volume=11");
    assert!(said.contains("is told when it starts"), "{said}");
    let said = done(&scratch, "env set obedient LEVEL=debug PLACE=here");
    assert!(!said.contains("debug"), "{said}");
    done(&scratch, "env unset obedient PLACE");
    done(&scratch, "limits obedient --open-files 321 --memory 512MiB");
    done(&scratch, "limits obedient --memory none");

    // A host knows what was stored without one.
    let server = Server::start(&scratch, "");
    let stored: Value =
        serde_json::from_str(&done(&scratch, "config get obedient --json")).unwrap();
    assert_eq!(stored, json!({"greeting": "hi", "volume": 11}));
    assert_eq!(done(&scratch, "env list obedient"), "LEVEL\n");
    let shown = done(&scratch, "env list obedient --show");
    assert!(shown.contains("debug"), "{shown}");
    let limits: Value = serde_json::from_str(&done(&scratch, "limits obedient --json")).unwrap();
    assert_eq!(limits["process_limits"], json!({"open_files": 321}));
    server.program.stop();
}
