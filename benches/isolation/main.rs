//! Calls to one plugin: alone; beside ten sick neighbours on the same host, which hang, flood it or
//! read nothing; and beside the same ten on another host in another process, which use as much of the
//! machine and have nothing to do with this one. What the second costs over the third is what sick
//! neighbours cost those on their host, beyond the processor time that any program would take.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod neighbours;
#[path = "../support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use plugin_runner::protocol::method::Ping;
use plugin_runner::{ActiveState, Host, ReportedState, Session, Timeouts};

use neighbours::{Elsewhere, Neighbours, processor_time};
use support::plugins::{Folder, builder, fixture, install};
use support::{Bench, By, Case, LONG, Sample, Target, Unit};

fn main() {
    if std::env::args().nth(1).as_deref() == Some(neighbours::ROLE) {
        return neighbours::serve();
    }
    let bench = Bench::new("isolation", "calls to one plugin, and its sick neighbours");
    let rounds = bench.pick(1, 5, 21);
    let round = Duration::from_millis(bench.pick(50, 400, 700));
    let folder = Folder::new("isolation");
    let host = host(&folder);
    let listener = host.listen("127.0.0.1:0").unwrap();
    let session = well(&host);
    let here = Neighbours::new(&host);
    let elsewhere = RefCell::new(Elsewhere::start());

    let used: Rc<RefCell<[Vec<f64>; 2]>> = Rc::default();
    let beside = |index: usize, start: &dyn Fn(), stop: &dyn Fn()| {
        let total = || processor_time("self") + elsewhere.borrow().processor_time();
        let (began, before) = (Instant::now(), total());
        start();
        let sample = calls(&session, round);
        stop();
        let share = total().saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64();
        used.borrow_mut()[index].push(share);
        sample
    };
    let (here, elsewhere, session) = (&here, &elsewhere, &session);
    let beside = &beside;
    let cases = vec![
        Case::new(ALONE, move || move || calls(session, round / 4)),
        Case::new(ELSEWHERE, move || {
            move || {
                let start = || elsewhere.borrow_mut().tell("start");
                beside(0, &start, &|| elsewhere.borrow_mut().tell("stop"))
            }
        }),
        Case::new(HERE, move || {
            move || beside(1, &|| here.start(), &|| here.stop())
        })
        .against(ELSEWHERE, By::P50, Target::None)
        .against(ELSEWHERE, By::P90, Target::AtMost(1.25))
        .against(ALONE, By::P90, Target::None),
    ];
    bench.group_of("calls to a plugin", rounds, cases);

    let used = used.take();
    let [elsewhere_used, here_used] = used;
    if !elsewhere_used.is_empty() {
        let row = |name: &str, values: Vec<f64>| {
            Case::new(name, move || {
                let sample = Sample::of(values);
                move || sample
            })
            .unit(Unit::Count)
        };
        let cases = vec![
            row(ELSEWHERE, elsewhere_used),
            row(HERE, here_used).against(ELSEWHERE, By::P50, Target::None),
        ];
        bench.group_of("processors in use meanwhile", 1, cases);
    }
    elsewhere.borrow_mut().finish();
    drop(listener);
    assert!(host.shutdown(LONG).is_complete());
}

const ALONE: &str = "alone";
const HERE: &str = "beside 10 sick neighbours";
const ELSEWHERE: &str = "beside 10 of another host";

/// A host that has patience with those who read nothing, so that they stay.
fn host(folder: &Folder) -> Host {
    let timeouts = Timeouts::default().write_stall(Duration::from_secs(3_600));
    builder(folder).timeouts(timeouts).build().unwrap()
}

/// The plugin that is called.
fn well(host: &Host) -> Session {
    let id = install(host, "well", &fixture(), &["behave"], "websocket");
    let session = host.load(id).unwrap();
    session.set_active_state(ActiveState::Active).unwrap();
    session.wait_for(ReportedState::Active, LONG).unwrap();
    session
}

/// Calls one after the other, for so long.
fn calls(session: &Session, time: Duration) -> Sample {
    let until = Instant::now() + time;
    let mut times = Vec::new();
    while Instant::now() < until || times.len() < 10 {
        let began = Instant::now();
        let reply = session.call(&Ping {}, LONG).unwrap();
        times.push(began.elapsed());
        assert!(reply.pong);
    }
    Sample::of_times(Unit::Microseconds, &times)
}
