//! What a plugin finds when it starts: its files, its environment, its descriptors, and nothing of
//! the host's.

use std::collections::BTreeMap;
use std::fs;

use plugin_runner::Session;
use plugin_runner::plugin_log::LogStream;
use plugin_runner::store::Record;

use crate::support::host::TestHost;
use crate::support::plugin::{With as _, shell};

/// Starts a script that prints, then `done`, and waits; gives what it printed.
#[track_caller]
pub(super) fn printed(host: &TestHost, record: Record) -> (Session, Vec<String>) {
    let session = host.install(record);
    let id = session.id();
    session.supervised().unwrap().start().unwrap();
    host.output.wait_for("'done'", |line| {
        (line.plugin == id && line.text == "done").then_some(())
    });
    let mut texts = host.output.texts(id);
    texts.retain(|text| text != "done");
    (session, texts)
}

pub(super) fn environment(host: &TestHost, record: Record) -> BTreeMap<String, String> {
    let (_, lines) = printed(host, record);
    lines
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

pub(super) const PRINT_ENVIRONMENT: &str = "/usr/bin/env; echo done; exec sleep 1000";

#[test]
fn the_environment_is_the_allowlist_and_what_is_added() {
    // Stands for a secret: set for every test by cargo, and none of a plugin's business.
    let secret = "CARGO_MANIFEST_DIR";
    assert!(
        std::env::var_os(secret).is_some(),
        "run this by cargo, which sets {secret}"
    );
    let host = TestHost::with("environment", |setup| {
        setup.configure(|builder| builder.pass_variable("CARGO_PKG_NAME"));
    });
    let record = shell(&host, "plain", PRINT_ENVIRONMENT).variable("GREETING", "hello there");
    let id = record.id;
    let found = environment(&host, record);

    let expected = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "TMPDIR",
        "LANG",
        "TZ",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "STORYDEN_RPC_URL",
        "PLUGIN_DATA_DIR",
        "PLUGIN_RUNNER_COOKIE",
        "GREETING",
        "CARGO_PKG_NAME",
        // Set by the shell itself.
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
    ];
    for name in found.keys() {
        let allowed = expected.contains(&name.as_str())
            || name.starts_with("LC_")
            || name.starts_with("XDG_");
        assert!(allowed, "{name} was passed on");
    }
    assert_eq!(found["GREETING"], "hello there");
    assert_eq!(found["CARGO_PKG_NAME"], "plugin-runner");
    assert_eq!(found["PATH"], std::env::var("PATH").unwrap());
    for name in ["NO_PROXY", "no_proxy"] {
        assert!(
            found[name].ends_with("127.0.0.1,localhost,::1"),
            "{}",
            found[name]
        );
    }
    let url = &found["STORYDEN_RPC_URL"];
    let beginning = format!("ws://{}/rpc?plugin_id={id}&token=", host.address());
    assert!(url.starts_with(&beginning), "{url}");
    assert!(!found.contains_key("PLUGIN_RUNNER_TRANSPORT"));
}

#[test]
fn a_url_that_the_embedder_names_is_passed_on() {
    let host = TestHost::with("rpc-base-url", |setup| {
        setup.deaf();
        setup.configure(|builder| builder.rpc_base_url("https://forum.example/ignored?region=eu"));
    });
    let record = shell(&host, "remote", PRINT_ENVIRONMENT);
    let id = record.id;
    let found = environment(&host, record);
    let url = &found["STORYDEN_RPC_URL"];
    let beginning = format!("wss://forum.example/rpc?plugin_id={id}&region=eu&token=");
    assert!(url.starts_with(&beginning), "{url}");
}

#[test]
fn no_descriptor_of_the_host_is_inherited() {
    let host = TestHost::new("descriptors");
    let script = "ls -l /proc/$$/fd; echo done; exec sleep 1000";
    let (_, lines) = printed(&host, shell(&host, "curious", script));
    let descriptors: BTreeMap<u32, &str> = lines
        .iter()
        .filter_map(|line| line.split_once(" -> "))
        .map(|(number, target)| (number.rsplit(' ').next().unwrap().parse().unwrap(), target))
        // What this process was given by whoever started it, it passes on.
        .filter(|(number, _)| *number < 3 || !is_inheritable(*number))
        .collect();
    let numbers: Vec<_> = descriptors.keys().copied().collect();
    assert_eq!(numbers, [0, 1, 2], "{descriptors:#?}");
    assert_eq!(descriptors[&0], "/dev/null");
    assert!(descriptors[&1].starts_with("pipe:"), "{descriptors:#?}");
    assert!(descriptors[&2].starts_with("pipe:"), "{descriptors:#?}");
}

/// Whether this process has such a descriptor without close-on-exec.
fn is_inheritable(number: u32) -> bool {
    const CLOSE_ON_EXEC: u32 = 0o2_000_000;
    let Ok(info) = fs::read_to_string(format!("/proc/self/fdinfo/{number}")) else {
        return false;
    };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    u32::from_str_radix(flags.unwrap().trim(), 8).unwrap() & CLOSE_ON_EXEC == 0
}

#[test]
fn output_can_be_reopened_by_its_name() {
    let host = TestHost::new("reopen");
    let script = "echo out > /dev/stdout; echo err > /dev/stderr; echo done; exec sleep 1000";
    let (session, _) = printed(&host, shell(&host, "reopener", script));
    for (stream, text) in [(LogStream::Stdout, "out"), (LogStream::Stderr, "err")] {
        host.output.wait_for(text, |line| {
            (line.plugin == session.id() && line.stream == stream && line.text == text)
                .then_some(())
        });
    }
}
