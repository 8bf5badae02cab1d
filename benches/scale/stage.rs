//! What is measured with a number of connections, whoever holds them: the order of events, and the
//! figures of one run.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::peers::Peers;
use super::process::{Activity, Holdings, raise_descriptor_limit};

/// One who accepts connections and calls over them.
pub(crate) trait Server {
    /// Where it accepts.
    fn address(&self) -> String;
    /// Makes room for so many more; gives the request target that each is to connect with.
    fn expect(&mut self, count: usize) -> Vec<String>;
    /// Waits until all that are expected are connected.
    fn await_all(&mut self);
    /// Lists the connections; gives how many there are.
    fn list(&self) -> usize;
    /// Calls over one of the connections, and checks the answer.
    fn call(&mut self, number: usize);
    /// How many times a peer was asked for a sign of life.
    fn pings(&self) -> u64;
    /// Closes all connections and waits until nothing is left of them.
    fn shut_down(self);
}

/// What is asked of a run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// How many connections.
    pub(crate) count: usize,
    /// How long nothing is done.
    pub(crate) idle: Duration,
    /// How many calls are timed one by one.
    pub(crate) calls: usize,
    /// The interval of health checks, if there are any.
    pub(crate) health: Option<Duration>,
    /// Whether the peers take no notice of a close.
    pub(crate) mute: bool,
}

/// The figures of one run; all but the latencies for one connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Resident memory and page tables of one that was never called, in KiB.
    pub(crate) fresh: f64,
    /// The same after a call.
    pub(crate) called: f64,
    /// The page tables in that.
    pub(crate) tables: f64,
    pub(crate) threads: f64,
    pub(crate) descriptors: f64,
    /// From the request to connect to the connection in use, in microseconds.
    pub(crate) connect: f64,
    /// For all, in microseconds.
    pub(crate) list: Vec<f64>,
    /// One call among the idle, in microseconds each.
    pub(crate) call: Vec<f64>,
    /// A call, when each gets one in turn, in microseconds.
    pub(crate) call_each: f64,
    /// In microseconds.
    pub(crate) shut_down: f64,
    /// What all threads did while nothing was asked of them.
    pub(crate) idle: Activity,
    /// What the threads did that look for signs of life.
    pub(crate) monitor: Activity,
    /// Pings meanwhile.
    pub(crate) pings: f64,
}

/// Measures. In a process of its own: what others have freed would be taken for free.
pub(crate) fn run(mut server: impl Server, plan: Plan) -> Figures {
    raise_descriptor_limit();
    let mut peers = Peers::start(&server.address(), plan.mute);
    // What the first connection of all costs is not the price of one more.
    peers.connect(&server.expect(WARM_UP));
    server.await_all();
    for number in 0..WARM_UP {
        server.call(number);
    }
    settle();
    let count = as_float(plan.count);
    let micros = |since: Instant| since.elapsed().as_secs_f64() * 1e6;

    let before = Holdings::now();
    let began = Instant::now();
    let targets = server.expect(plan.count);
    peers.connect(&targets);
    drop(targets);
    server.await_all();
    let connect = micros(began) / count;
    settle();
    let fresh = Holdings::now();

    let began = Instant::now();
    for number in (0..plan.count).map(|number| number + WARM_UP) {
        server.call(number);
    }
    let call_each = micros(began) / count;
    settle();
    let called = Holdings::now();

    let activity = || {
        (
            Activity::of_others(None),
            Activity::of_others(Some(MONITOR)),
        )
    };
    let (before_all, before_monitor, pings) = (activity().0, activity().1, server.pings());
    std::thread::sleep(plan.idle);
    let (all, monitor) = activity();
    let (idle, monitor) = (all.since(before_all), monitor.since(before_monitor));
    let pings = as_float(usize::try_from(server.pings() - pings).unwrap());

    let list = (0..20)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(server.list(), plan.count + WARM_UP);
            micros(began)
        })
        .collect();
    let call = (0..plan.calls)
        .map(|_| {
            let began = Instant::now();
            server.call(WARM_UP + plan.count / 2);
            micros(began)
        })
        .collect();
    let began = Instant::now();
    server.shut_down();
    let shut_down = micros(began) / (count + as_float(WARM_UP));
    peers.finish();

    let memory = |holdings: Holdings| holdings.resident + holdings.tables;
    Figures {
        fresh: (memory(fresh) - memory(before)) / count,
        called: (memory(called) - memory(before)) / count,
        tables: (called.tables - before.tables) / count,
        threads: (called.threads - before.threads) / count,
        descriptors: (called.descriptors - before.descriptors) / count,
        connect,
        list,
        call,
        call_each,
        shut_down,
        idle,
        monitor,
        pings,
    }
}

const WARM_UP: usize = 1;

/// The name of the thread that looks for signs of life.
const MONITOR: &str = "host-health";

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
fn as_float(count: usize) -> f64 {
    count as f64
}

/// Waits until no thread of this process does anything any more.
fn settle() {
    let mut before = Activity::of_others(None);
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(100));
        let now = Activity::of_others(None);
        if now.since(before).wake_ups < 1.0 {
            return;
        }
        before = now;
    }
}
