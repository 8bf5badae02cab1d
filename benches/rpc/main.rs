//! Calls: one at a time, from many threads, many from one thread, large ones, and from the plugin to
//! its host; over each transport.
//!
//! Plugin and limit are the same peer, a process that knows nothing of this crate (see `peer`), with
//! the same payload. What stands beside a row is code that does only what cannot be avoided: send a
//! frame, wait for a frame.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod limits;
mod peer;
mod subjects;
#[path = "../support/mod.rs"]
mod support;

use support::{Bench, By, Case, Target, Unit, pinned};

use limits::{Params, Spin, Wire};
use peer::Answers;
use subjects::{Plugin, Way};

const KIB: usize = 1024;

fn main() {
    if peer::run() {
        return;
    }
    let bench = Bench::new("rpc", "calls to a plugin in another process, and back");
    bench.group("one in flight", one_in_flight(&bench));
    pinned(|| bench.group("one in flight, pinned to one processor", one_pinned(&bench)));
    bench.group("many in flight", many_in_flight(&bench));
    bench.group("large messages", large(&bench));
    bench.group("from the plugin to the host", inbound(&bench));
}

fn one_in_flight<'a>(bench: &Bench) -> Vec<Case<'a>> {
    let calls = bench.pick(20, 2_000, 5_000);
    vec![
        Case::new("ws+json, blocking", move || {
            let mut limit = Wire::web_socket(Answers::Json, Spin::No);
            move || limit.ping(calls)
        }),
        Case::new("ws+json, spinning", move || {
            let mut limit = Wire::web_socket(Answers::Json, Spin::Brief);
            move || limit.ping(calls)
        }),
        Case::new("call over websocket", move || {
            let plugin = Plugin::new(Way::WebSocket, Answers::Json);
            move || plugin.ping(calls)
        })
        .against("ws+json, blocking", By::P50, Target::AtMost(0.60))
        .against("ws+json, blocking", By::P90, Target::AtMost(1.0))
        .against("ws+json, spinning", By::P50, Target::AtMost(1.15)),
        Case::new("call over websocket, with a hook", move || {
            let plugin = Plugin::hooked(Way::WebSocket, Answers::Json);
            move || plugin.ping(calls)
        })
        .against("call over websocket", By::P50, Target::None),
        Case::new("call over websocket, plugin of our SDK", move || {
            let plugin = Plugin::of_sdk("websocket");
            move || plugin.ping(calls)
        })
        .against("ws+json, blocking", By::P50, Target::None),
        Case::new("two pipes + json, blocking", move || {
            let mut limit = Wire::pipes(Answers::Json, Spin::No);
            move || limit.ping(calls)
        }),
        Case::new("two pipes + json, spinning", move || {
            let mut limit = Wire::pipes(Answers::Json, Spin::Brief);
            move || limit.ping(calls)
        }),
        Case::new("call over stdio", move || {
            let plugin = Plugin::new(Way::Stdio, Answers::Json);
            move || plugin.ping(calls)
        })
        .against("two pipes + json, blocking", By::P50, Target::AtMost(1.15))
        .against("two pipes + json, spinning", By::P50, Target::AtMost(1.15)),
        Case::new("two channels, two threads", move || {
            let mut limit = Wire::channels();
            move || limit.ping(calls)
        }),
        Case::new("call over memory, plugin of our SDK", move || {
            let plugin = Plugin::in_memory();
            move || plugin.ping(calls)
        })
        .against("two channels, two threads", By::P50, Target::None),
    ]
}

fn one_pinned<'a>(bench: &Bench) -> Vec<Case<'a>> {
    let calls = bench.pick(20, 2_000, 5_000);
    vec![
        Case::new("ws+json, blocking", move || {
            let mut limit = Wire::web_socket(Answers::Json, Spin::No);
            move || limit.ping(calls)
        }),
        Case::new("call over websocket", move || {
            let plugin = Plugin::new(Way::WebSocket, Answers::Json);
            move || plugin.ping(calls)
        })
        .against("ws+json, blocking", By::P50, Target::AtMost(1.15)),
        Case::new("two pipes + json, blocking", move || {
            let mut limit = Wire::pipes(Answers::Json, Spin::No);
            move || limit.ping(calls)
        }),
        Case::new("call over stdio", move || {
            let plugin = Plugin::new(Way::Stdio, Answers::Json);
            move || plugin.ping(calls)
        })
        .against("two pipes + json, blocking", By::P50, Target::AtMost(1.15)),
    ]
}

fn many_in_flight<'a>(bench: &Bench) -> Vec<Case<'a>> {
    let calls = bench.pick(256, 20_000, 60_000);
    let limit = "64 in flight over ws+json, one thread";
    let mut cases = vec![
        Case::new(limit, move || {
            let mut limit = Wire::web_socket(Answers::Json, Spin::No);
            move || limit.pipeline(64, calls)
        })
        .unit(Unit::PerSecond),
    ];
    for threads in [2, 8, 64, 256] {
        let target = match threads {
            64 => Target::AtLeast(0.65),
            _ => Target::None,
        };
        let case = Case::new(format!("{threads} threads over websocket"), move || {
            let plugin = Plugin::new(Way::WebSocket, Answers::Json);
            move || plugin.threads(threads, calls)
        });
        cases.push(case.unit(Unit::PerSecond).against(limit, By::P50, target));
    }
    cases.push(
        Case::new("64 in flight over websocket, one thread", move || {
            let plugin = Plugin::new(Way::WebSocket, Answers::Json);
            move || plugin.pipeline(64, calls)
        })
        .unit(Unit::PerSecond)
        .against(limit, By::P50, Target::AtLeast(0.50)),
    );
    cases.push(
        Case::new("64 in flight over websocket, in batches", move || {
            let plugin = Plugin::new(Way::WebSocket, Answers::Json);
            move || plugin.batches(64, calls)
        })
        .unit(Unit::PerSecond)
        .against(limit, By::P50, Target::AtLeast(0.90)),
    );
    let pipes = "64 in flight over two pipes + json, one thread";
    cases.push(
        Case::new(pipes, move || {
            let mut limit = Wire::pipes(Answers::Json, Spin::No);
            move || limit.pipeline(64, calls)
        })
        .unit(Unit::PerSecond),
    );
    cases.push(
        Case::new("64 threads over stdio", move || {
            let plugin = Plugin::new(Way::Stdio, Answers::Json);
            move || plugin.threads(64, calls)
        })
        .unit(Unit::PerSecond)
        .against(pipes, By::P50, Target::None),
    );
    cases
}

fn large<'a>(bench: &Bench) -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    let sizes = [
        ("64 KiB", 64 * KIB, bench.pick(5, 500, 1_000)),
        ("1 MiB", 1024 * KIB - 4 * KIB, bench.pick(2, 30, 60)),
    ];
    for (name, bytes, calls) in sizes {
        let rows = [
            (Params::Ready, "tungstenite", "of JSON"),
            (Params::Encoded, "ws+json", "encoded"),
        ];
        for (params, limit, what) in rows {
            let limit = format!("{name} {what}, {limit}");
            cases.push(Case::new(limit.clone(), move || {
                let mut limit = Wire::web_socket(Answers::Raw, Spin::No);
                move || limit.echo(bytes, params, calls)
            }));
            let target = match (bytes, params) {
                (65_536, Params::Ready) => Target::AtMost(1.25),
                _ => Target::None,
            };
            let case = Case::new(format!("{name} {what} over websocket"), move || {
                let plugin = Plugin::new(Way::WebSocket, Answers::Raw);
                move || plugin.echo(bytes, params, calls)
            });
            cases.push(case.against(&limit, By::P50, target));
        }
    }
    cases
}

fn inbound<'a>(bench: &Bench) -> Vec<Case<'a>> {
    let calls = bench.pick(20, 2_000, 5_000);
    vec![
        Case::new("to a ws+json server, blocking", move || {
            let mut caller = limits::Caller::of_bare_server();
            move || caller.calls(calls)
        }),
        Case::new("to a host, websocket", move || {
            let mut called = subjects::caller();
            move || called.caller.calls(calls)
        })
        .against("to a ws+json server, blocking", By::P50, Target::None),
    ]
}
