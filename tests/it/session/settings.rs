//! Settings that cannot work are refused when the host is built, and runtimes that are not there
//! when they are needed.

use std::time::Duration;

use plugin_runner::store::{Record, Source};
use plugin_runner::{
    ActiveState, Error, Host, HostBuilder, Limits, RestartPolicy, RuntimeProvider, Timeouts,
};

use crate::support::plugin::{With as _, manifest};
use crate::support::session::Bench;
use crate::support::{TestDir, assert_matches};

/// Loads a supervised plugin on a host with this provider, on which external ones work.
fn load_supervised(provider: RuntimeProvider) -> Error {
    let bench = Bench::with_host(move |builder| builder.runtime_provider(provider));
    assert_eq!(bench.host.runtime_name(), provider.as_str());
    bench.ping(&bench.connect());
    let source = Source::Directory("nowhere".into());
    let record = Record::supervised(manifest("tested"), source)
        .with(|record| record.set_active_state(ActiveState::Active));
    let id = record.id;
    bench.host.store().put(record).unwrap();
    let error = bench.host.load(id).unwrap_err();
    assert!(bench.host.session(id).is_none());
    error
}

#[test]
fn without_a_runtime_supervised_plugins_are_disabled() {
    let error = load_supervised(RuntimeProvider::None);
    assert_matches!(error, Error::Disabled);
    assert_eq!(
        error.to_string(),
        "supervised plugins are disabled: the runtime provider is 'none'"
    );
}

#[test]
fn sprites_without_a_key_are_refused_when_the_host_is_built() {
    assert_refused("SPRITES_API_KEY", |builder| {
        builder.runtime_provider(RuntimeProvider::Sprites)
    });
}

#[track_caller]
fn assert_refused(setting: &str, change: impl FnOnce(HostBuilder) -> HostBuilder) {
    let refused = change(Host::builder().data_dir("refused")).build();
    let error = refused.expect_err(setting);
    assert_matches!(error, Error::Setting { name, .. } if name == setting);
    let text = error.to_string();
    assert!(text.starts_with(&format!("setting {setting}: ")), "{text}");
}

#[test]
fn limits_of_nothing_are_refused_by_name() {
    macro_rules! refused {
        ($($limit:ident),+) => {$(
            assert_refused(stringify!($limit), |builder| {
                builder.limits(Limits::default().$limit(0))
            });
        )+};
    }
    refused!(
        inbound_message,
        outbound_bytes,
        pending_calls,
        inbound_workers,
        queued_events,
        queued_event_bytes,
        handshakes,
        handler_stack
    );
}

#[test]
fn times_of_nothing_are_refused_by_name() {
    macro_rules! refused {
        ($($time:ident),+) => {$(
            assert_refused(stringify!($time), |builder| {
                builder.timeouts(Timeouts::default().$time(Duration::ZERO))
            });
        )+};
    }
    refused!(connect, call, handshake, stop, write_stall);
}

#[test]
fn a_stop_grace_that_leaves_no_time_for_the_kill_is_refused() {
    assert_refused("stop_grace", |builder| {
        builder.timeouts(
            Timeouts::default()
                .stop_grace(Duration::from_secs(5))
                .stop(Duration::from_secs(5)),
        )
    });
}

#[test]
fn a_host_without_any_thread_is_refused() {
    assert_refused("thread_limit", |builder| builder.thread_limit(0));
}

#[test]
fn an_address_for_plugins_must_be_a_url() {
    assert_refused("rpc_base_url", |builder| builder.rpc_base_url("no url"));
    assert_refused("rpc_base_url", |builder| builder.rpc_base_url(""));
    let folder = TestDir::new("urls");
    for url in [
        "http://127.0.0.1:8000",
        "https://forum.example/api?tenant=1",
        "ws://[::1]:9000",
    ] {
        let host = Host::builder()
            .data_dir(folder.path())
            .rpc_base_url(url)
            .build();
        assert!(host.is_ok(), "{url}: {host:?}");
    }
}

#[test]
fn the_defaults_and_a_policy_without_restarts_work() {
    let policy = RestartPolicy::default().max_restart_attempts(0);
    let bench = Bench::with_host(|builder| builder.restart_policy(policy));
    assert_eq!(bench.host.runtime_name(), "local");
    assert!(bench.host.thread_limit() >= 16);
}
