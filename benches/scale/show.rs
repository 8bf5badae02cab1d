//! The bench itself: starts the runs, and shows their figures.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::stage::{Figures, Plan};
use super::support::{Bench, By, Case, Sample, Target, Unit};
use super::{process, role};

/// How many connections, who holds them, and what was measured in each round.
struct Runs {
    count: usize,
    who: &'static str,
    figures: Vec<Figures>,
}

pub(crate) fn run() {
    let bench = Bench::new(
        "scale",
        "sessions on one host, their peers in another process",
    );
    let counts: &[usize] = bench.pick(&[1, 10], &[1, 100, 1_000], &[1, 10, 100, 1_000, 10_000]);
    let counts = within_limits(counts);
    let most = counts.iter().copied().max().unwrap_or(1);
    let (short, long) = (
        bench.pick(100, 1_000, 2_000),
        bench.pick(100, 3_000, 10_000),
    );
    let (short, long) = (Duration::from_millis(short), Duration::from_millis(long));
    let plan = Plan {
        count: most.min(1_000),
        idle: long,
        calls: bench.pick(10, 500, 2_000),
        health: None,
        mute: false,
    };
    let mut all: Vec<Runs> = Vec::new();
    for round in 0..bench.pick(1, 1, 3) {
        for &count in &counts {
            for who in [role::HOST, role::BARE] {
                let idle = match (round, who) {
                    // Once is enough for what is to be nothing.
                    (0, role::HOST) if count == most => long,
                    (0, role::HOST) => short,
                    _ => Duration::ZERO,
                };
                let figures = measure(
                    who,
                    Plan {
                        count,
                        idle,
                        ..plan
                    },
                );
                let known = all
                    .iter_mut()
                    .find(|runs| (runs.count, runs.who) == (count, who));
                match known {
                    Some(runs) => runs.figures.push(figures),
                    None => all.push(Runs {
                        count,
                        who,
                        figures: vec![figures],
                    }),
                }
            }
        }
    }
    // Where everybody is asked twice meanwhile.
    let pinged = Plan {
        health: Some(long * 2 / 5),
        ..plan
    };
    let mute = Plan {
        mute: true,
        idle: Duration::ZERO,
        ..plan
    };
    let (pings, shut_down) = (
        measure(role::HOST, pinged),
        measure(role::HOST, mute).shut_down,
    );

    memory(&bench, &all);
    let each = "microseconds for each session";
    time(&bench, &format!("connect, {each}"), &all, |figures| {
        figures.connect
    });
    time(
        &bench,
        &format!("a call to each in turn, {each}"),
        &all,
        |figures| figures.call_each,
    );
    time(&bench, &format!("shut down, {each}"), &all, |figures| {
        figures.shut_down
    });
    many(&bench, "one call among them", &all, |figures| &figures.call);
    many(&bench, "sessions()", &all, |figures| &figures.list);
    idleness(&bench, &all, plan.count, &pings);
    let name = format!("{} that take no notice of the close", plan.count);
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let all = shut_down * plan.count as f64 / 1e3;
    // Each has a second, and all have the same one.
    let case = Case::new(name, move || move || Sample::single(all));
    let case = case
        .unit(Unit::Milliseconds)
        .absolute(Target::AtMost(3_000.0));
    bench.group_of("shut down of all", 1, vec![case]);
}

/// Those of the counts for which there are descriptors enough.
fn within_limits(counts: &[usize]) -> Vec<usize> {
    let limit = process::raise_descriptor_limit();
    let fits = |count: &&usize| **count as u64 + 100 <= limit;
    let (fit, over): (Vec<usize>, Vec<usize>) = counts.iter().partition(fits);
    if !over.is_empty() {
        println!("not measured: {over:?}, for want of descriptors: the limit is {limit}");
    }
    fit
}

/// One run, in a process of its own.
fn measure(who: &str, plan: Plan) -> Figures {
    let child = Command::new(std::env::current_exe().unwrap())
        .arg(who)
        .arg(serde_json::to_string(&plan).unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{who} {plan:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

impl Runs {
    fn name(&self) -> String {
        name(self.count, self.who)
    }

    /// A row of what each round gave.
    fn case(&self, figure: impl Fn(&Figures) -> Sample) -> Case<'static> {
        let samples: Vec<Sample> = self.figures.iter().map(figure).collect();
        // The first is for warming up, if there are several.
        let first = (samples.len() > 1).then(|| samples[0]);
        let mut samples = first.into_iter().chain(samples);
        Case::new(self.name(), move || move || samples.next().unwrap())
    }
}

fn name(count: usize, who: &str) -> String {
    if who == role::HOST {
        format!("{count}")
    } else {
        format!("{count}, bare threads")
    }
}

fn memory(bench: &Bench, all: &[Runs]) {
    let rounds = all[0].figures.len();
    let single =
        |figure: fn(&Figures) -> f64| move |figures: &Figures| Sample::single(figure(figures));
    let group = |title: &str, unit, target: Option<f64>, figure: fn(&Figures) -> f64| {
        let cases = all.iter().map(|runs| {
            let case = runs.case(single(figure)).unit(unit);
            match target {
                // With few, pages that many would share count in full.
                Some(target) if runs.who == role::HOST && runs.count >= 100 => case
                    .absolute(Target::AtMost(target))
                    .against(&name(runs.count, role::BARE), By::P50, Target::None),
                _ => case,
            }
        });
        bench.group_of(title, rounds, cases.collect());
    };
    group(
        "memory of an idle session",
        Unit::KibiBytes,
        Some(32.0),
        |figures| figures.fresh,
    );
    group(
        "the same, once it was called",
        Unit::KibiBytes,
        Some(32.0),
        |figures| figures.called,
    );
    group("page tables in that", Unit::KibiBytes, None, |figures| {
        figures.tables
    });
    group(
        "threads for each session",
        Unit::Count,
        Some(1.0),
        |figures| figures.threads,
    );
    group(
        "descriptors for each session",
        Unit::Count,
        Some(1.0),
        |figures| figures.descriptors,
    );
}

/// What each session costs, and whether it costs the same however many there are.
fn time(bench: &Bench, title: &str, all: &[Runs], figure: fn(&Figures) -> f64) {
    let cases = all.iter().map(|runs| {
        let case = runs.case(|figures| Sample::single(figure(figures)));
        let case = against_bare(case, runs);
        if runs.who == role::HOST && runs.count > 100 {
            case.against(&name(100, role::HOST), By::P50, Target::AtMost(FLAT))
        } else {
            case
        }
    });
    bench.group_of(title, all[0].figures.len(), cases.collect());
}

/// What a session may cost more among many than among a hundred. Not one, because what ten thousand
/// hold fits into no cache: a bare thread for each connection costs more then as well.
const FLAT: f64 = 2.0;

fn many(bench: &Bench, title: &str, all: &[Runs], figure: fn(&Figures) -> &Vec<f64>) {
    let cases = all.iter().map(|runs| {
        let case = runs.case(|figures| Sample::of(figure(figures).clone()));
        against_bare(case, runs)
    });
    bench.group_of(title, all[0].figures.len(), cases.collect());
}

fn against_bare(case: Case<'static>, runs: &Runs) -> Case<'static> {
    if runs.who == role::HOST {
        case.against(&name(runs.count, role::BARE), By::P50, Target::None)
    } else {
        case
    }
}

fn idleness(bench: &Bench, all: &[Runs], count: usize, pinged: &Figures) {
    let row = |name: String, value: f64| {
        Case::new(name, move || move || Sample::single(value)).unit(Unit::Count)
    };
    let hosts = || all.iter().filter(|runs| runs.who == role::HOST);
    let cases = hosts().map(|runs| {
        let wake_ups = runs.figures[0].idle.wake_ups;
        row(runs.name(), wake_ups).absolute(Target::AtMost(0.0))
    });
    bench.group_of("wake-ups of an idle host", 1, cases.collect());
    let cases = hosts().map(|runs| {
        let processor = runs.figures[0].idle.processor;
        row(runs.name(), processor).unit(Unit::Microseconds)
    });
    bench.group_of("its processor time", 1, cases.collect());
    let pings = pinged.pings.max(1.0);
    println!(
        "\n{count} sessions were sent {} pings meanwhile",
        pinged.pings
    );
    let cases = vec![
        row(
            "wake-ups of all threads".to_owned(),
            pinged.idle.wake_ups / pings,
        ),
        row(
            "wake-ups of the one that pings".to_owned(),
            pinged.monitor.wake_ups / pings,
        ),
        row("processor time".to_owned(), pinged.idle.processor / pings).unit(Unit::Microseconds),
    ];
    bench.group_of("for each health check", 1, cases);
}
