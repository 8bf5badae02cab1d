//! What is measured: a host of this crate, and calls on its session.

use std::collections::VecDeque;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use plugin_runner::Session;
use plugin_runner::call::PendingCall;
use plugin_runner::listener::Listener;
use plugin_runner::protocol::method::{Ping, PingReply};
use plugin_runner::sdk;
use plugin_runner::{ActiveState, Host, HostBuilder, InstallationId, ReportedState};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::limits::{Caller, Params};
use super::peer::{self, Answers};
use super::support::plugins::{Folder, builder, fixture, install, install_external};
use super::support::{LONG, Sample, latencies};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    WebSocket,
    Stdio,
}

/// A plugin that is active.
pub(crate) struct Plugin {
    session: Session,
    host: Host,
    _listener: Option<Listener>,
    _folder: Folder,
    child: Option<Child>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Plugin {
    /// The peer as a plugin. Over a WebSocket it is an external one, over stdio a supervised one.
    pub(crate) fn new(way: Way, answers: Answers) -> Self {
        Self::of_host(way, answers, |builder| builder)
    }

    /// The peer as a plugin of a host with a hook on calls.
    pub(crate) fn hooked(way: Way, answers: Answers) -> Self {
        let took = AtomicU64::new(0);
        Self::of_host(way, answers, |builder| {
            builder.on_call(move |call| {
                let nanos = call.duration().as_nanos();
                took.fetch_add(u64::try_from(nanos).unwrap(), Ordering::Relaxed);
            })
        })
    }

    fn of_host(
        way: Way,
        answers: Answers,
        configure: impl FnOnce(HostBuilder) -> HostBuilder,
    ) -> Self {
        let folder = folder();
        let host = configure(builder(&folder)).build().unwrap();
        let program = std::env::current_exe().unwrap();
        match way {
            Way::WebSocket => {
                let listener = host.listen("127.0.0.1:0").unwrap();
                let id = install_external(&host, "bench");
                let session = host.load(id).unwrap();
                session.set_active_state(ActiveState::Active).unwrap();
                let url = external_url(&host, &listener, id);
                let child = Command::new(program)
                    .args(peer::arguments(answers, Some(&url)))
                    .spawn()
                    .unwrap();
                Self::active(folder, host, Some(listener), session, Some(child), None)
            }
            Way::Stdio => {
                let args = peer::arguments(answers, None);
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let id = install(&host, "bench", &program, &args, "stdio");
                let session = host.load(id).unwrap();
                session.set_active_state(ActiveState::Active).unwrap();
                Self::active(folder, host, None, session, None, None)
            }
        }
    }

    /// A supervised plugin that is made with the SDK of this crate.
    pub(crate) fn of_sdk(transport: &str) -> Self {
        let folder = folder();
        let host = builder(&folder).build().unwrap();
        let listener = host.listen("127.0.0.1:0").unwrap();
        let id = install(&host, "bench", &fixture(), &["behave"], transport);
        let session = host.load(id).unwrap();
        session.set_active_state(ActiveState::Active).unwrap();
        Self::active(folder, host, Some(listener), session, None, None)
    }

    /// A plugin in a thread of this process.
    pub(crate) fn in_memory() -> Self {
        let folder = folder();
        let host = builder(&folder).build().unwrap();
        let session = host.load(install_external(&host, "bench")).unwrap();
        let (ours, theirs) = plugin_runner::duplex::memory::pair(64);
        let thread = std::thread::spawn(|| sdk::Plugin::over(theirs).run().unwrap());
        session.connect(ours, "").unwrap();
        Self::active(folder, host, None, session, None, Some(thread))
    }

    fn active(
        folder: Folder,
        host: Host,
        listener: Option<Listener>,
        session: Session,
        child: Option<Child>,
        thread: Option<std::thread::JoinHandle<()>>,
    ) -> Self {
        session.wait_for(ReportedState::Active, LONG).unwrap();
        Self {
            session,
            host,
            _listener: listener,
            _folder: folder,
            child,
            thread,
        }
    }

    /// Calls, one at a time.
    pub(crate) fn ping(&self, calls: usize) -> Sample {
        latencies(calls, || {
            assert!(self.session.call(&Ping {}, LONG).unwrap().pong);
        })
    }

    /// Calls with params of so many bytes, which come back.
    pub(crate) fn echo(&self, bytes: usize, params: Params, calls: usize) -> Sample {
        let data = json!({"data": "x".repeat(bytes)});
        if params == Params::Encoded {
            return self.echo_of(bytes, &data, calls);
        }
        let ready = RawValue::from_string(data.to_string()).unwrap();
        self.echo_of(bytes, &ready, calls)
    }

    fn echo_of(&self, bytes: usize, params: &impl Serialize, calls: usize) -> Sample {
        latencies(calls, || {
            let reply = self.session.call_raw("echo", params, LONG).unwrap();
            assert!(reply.as_json().len() > bytes);
        })
    }

    /// Calls from many threads, each one after the other; calls in a second.
    pub(crate) fn threads(&self, threads: usize, calls: usize) -> Sample {
        let each = calls / threads;
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..each {
                        assert!(self.session.call(&Ping {}, LONG).unwrap().pong);
                    }
                });
            }
        });
        Sample::rate(each * threads, began.elapsed())
    }

    /// So many in flight all the time, from one thread; calls in a second.
    pub(crate) fn pipeline(&self, in_flight: usize, calls: usize) -> Sample {
        let start = || self.session.start_call(&Ping {}, LONG).unwrap();
        let began = Instant::now();
        let mut waiting: VecDeque<PendingCall<PingReply>> =
            (0..in_flight).map(|_| start()).collect();
        for done in 0..calls {
            let call = waiting.pop_front().unwrap();
            assert!(call.wait().unwrap().pong);
            if done + in_flight < calls {
                waiting.push_back(start());
            }
        }
        Sample::rate(calls, began.elapsed())
    }

    /// So many in flight from one thread, and whenever half of them are answered as many more in a
    /// batch; calls in a second.
    pub(crate) fn batches(&self, in_flight: usize, calls: usize) -> Sample {
        let half = in_flight / 2;
        let mut batch = self.session.batch().unwrap();
        let mut waiting = VecDeque::new();
        let mut send = |waiting: &mut VecDeque<PendingCall<PingReply>>| {
            let added = (0..half).map(|_| batch.start_call(&Ping {}, LONG).unwrap());
            waiting.extend(added);
            batch.send();
        };
        let began = Instant::now();
        send(&mut waiting);
        for done in 0..calls / half {
            if done + 1 < calls / half {
                send(&mut waiting);
            }
            for call in waiting.drain(..half) {
                assert!(call.wait().unwrap().pong);
            }
        }
        assert!(waiting.is_empty());
        Sample::rate(calls / half * half, began.elapsed())
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        assert!(self.host.shutdown(LONG).is_complete());
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A host that answers calls, and a process that calls it.
pub(crate) fn caller() -> Called {
    let host = Host::builder()
        .method_raw("bench", |_, _| {
            let mut result = serde_json::Map::new();
            result.insert("done".to_owned(), true.into());
            Ok(result.into())
        })
        .build()
        .unwrap();
    let listener = host.listen("127.0.0.1:0").unwrap();
    let session = host.load(install_external(&host, "bench")).unwrap();
    session.set_active_state(ActiveState::Active).unwrap();
    let caller = Caller::start(&external_url(&host, &listener, session.id()));
    session.wait_for(ReportedState::Active, LONG).unwrap();
    Called { host, caller }
}

pub(crate) struct Called {
    host: Host,
    pub(crate) caller: Caller,
}

impl Drop for Called {
    fn drop(&mut self) {
        assert!(self.host.shutdown(LONG).is_complete());
    }
}

fn external_url(host: &Host, listener: &Listener, id: InstallationId) -> String {
    let record = host.store().get(id).unwrap().unwrap();
    let token = record.external_token().unwrap();
    format!("ws://{}/rpc?token={}", listener.address(), token.expose())
}

fn folder() -> Folder {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    Folder::new(&format!("rpc-{}", NEXT.fetch_add(1, Relaxed)))
}
