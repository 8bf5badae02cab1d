//! A plugin with its tests, which need no process and no socket: `cargo test --example plugin_test`. The
//! plugin itself needs the feature `sdk` alone; its tests have a host too, with
//! `plugin-runner = { version = "0.1", default-features = false, features = ["host"] }` among the
//! dev-dependencies.

use std::time::Duration;

use plugin_runner::sdk::Plugin;
use serde::{Deserialize, Serialize};

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Review {
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Verdict {
    accepted: bool,
}

fn main() -> plugin_runner::Result<()> {
    with_handlers(Plugin::from_env()?).run()
}

/// Everything of the plugin but where its host is.
fn with_handlers(plugin: Plugin) -> Plugin {
    plugin
        .method("review", |host, Review { text }| {
            let configuration = host.get_config(&["forbidden"], TIMEOUT)?;
            let forbidden = configuration
                .get("forbidden")
                .and_then(|word| word.as_str());
            let accepted = forbidden.is_none_or(|word| !text.contains(word));
            Ok(Verdict { accepted })
        })
        .on_configure(|_host, configuration| {
            Ok(configuration
                .get("forbidden")
                .is_some_and(|word| word != ""))
        })
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::thread;

    use plugin_runner::duplex::memory;
    use plugin_runner::protocol::Manifest;
    use plugin_runner::protocol::method::Configure;
    use plugin_runner::{Host, Record, ReportedState, Session};
    use serde_json::{Map, Value, json};

    use super::*;

    type TestResult = Result<(), Box<dyn Error>>;

    fn forbidding(word: &str) -> Map<String, Value> {
        Map::from_iter([("forbidden".to_owned(), word.into())])
    }

    /// Connects the plugin to a host in memory, runs the test, and ends both.
    fn with_plugin(test: impl FnOnce(&Session) -> TestResult) -> TestResult {
        let host = Host::builder().build()?;
        let manifest = json!({"id": "reviewer", "author": "me", "name": "Reviewer"});
        let mut record = Record::external(Manifest::parse(manifest.to_string().as_bytes())?)?;
        record.configuration = forbidding("spam");
        let id = record.id;
        host.store().put(record)?;
        let session = host.load(id)?;

        let (ours, theirs) = memory::pair(16);
        let running = thread::spawn(|| with_handlers(Plugin::over(theirs)).run());
        session.connect(ours, "")?;
        session.wait_for(ReportedState::Active, TIMEOUT)?;
        test(&session)?;
        host.shutdown(TIMEOUT);
        Ok(running.join().map_err(|_| "the plugin panicked")??)
    }

    #[test]
    fn a_text_is_accepted_without_the_configured_word() -> TestResult {
        with_plugin(|session| {
            for (text, accepted) in [("good morning", true), ("buy spam", false)] {
                let reply = session.call_raw("review", &json!({"text": text}), TIMEOUT)?;
                assert_eq!(reply.read::<Verdict>()?.accepted, accepted, "{text}");
            }
            Ok(())
        })
    }

    #[test]
    fn a_review_of_nothing_is_an_error_that_names_the_field() -> TestResult {
        with_plugin(|session| {
            match session.call_raw("review", &json!({}), TIMEOUT) {
                Err(plugin_runner::Error::Rpc(error)) => {
                    assert_eq!(error.code, -32602);
                    assert!(error.message.contains("text"), "{error}");
                }
                other => panic!("{other:?}"),
            }
            Ok(())
        })
    }

    #[test]
    fn an_empty_word_cannot_be_configured() -> TestResult {
        with_plugin(|session| {
            let answer = |word| session.call(&Configure(forbidding(word)), TIMEOUT);
            assert!(answer("offers")?.ok);
            assert!(!answer("")?.ok);
            Ok(())
        })
    }
}
