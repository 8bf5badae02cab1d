//! Runs groups of cases and shows what they gave: a table for people, lines of JSON for machines.

use std::fs::OpenOptions;
use std::io::Write as _;

use serde_json::{Value, json};

use super::arguments::Arguments;
use super::case::{By, Case, Comparison, Target};
use super::{Effort, Sample, Unit};

/// A bench: what was asked of it, and where its rows go.
pub(crate) struct Bench {
    name: &'static str,
    arguments: Arguments,
}

/// A case that was run.
struct Row {
    name: String,
    unit: Unit,
    comparisons: Vec<Comparison>,
    rounds: Vec<Sample>,
}

impl Bench {
    pub(crate) fn new(name: &'static str, about: &str) -> Self {
        let arguments = Arguments::read();
        println!("{name}: {about} ({:?})", arguments.effort);
        Self { name, arguments }
    }

    pub(crate) fn effort(&self) -> Effort {
        self.arguments.effort
    }

    /// One of three, by how much is to be measured.
    pub(crate) fn pick<T>(&self, smoke: T, quick: T, full: T) -> T {
        match self.effort() {
            Effort::Smoke => smoke,
            Effort::Quick => quick,
            Effort::Full => full,
        }
    }

    /// Runs the cases, a round of each in turn, and shows them. The median of 5 rounds.
    pub(crate) fn group(&self, title: &str, cases: Vec<Case<'_>>) {
        self.group_of(title, self.pick(1, 3, 5), cases);
    }

    /// [`group`](Self::group) with another number of rounds.
    pub(crate) fn group_of(&self, title: &str, rounds: usize, cases: Vec<Case<'_>>) {
        let wanted: Vec<bool> = self.wanted(title, &cases);
        let mut running = Vec::new();
        for (case, wanted) in cases.into_iter().zip(wanted) {
            if wanted {
                let row = Row {
                    name: case.name,
                    unit: case.unit,
                    comparisons: case.comparisons,
                    rounds: Vec::new(),
                };
                running.push((row, (case.setup)()));
            }
        }
        if running.is_empty() {
            return;
        }
        // One round to warm up, unless it is all there is.
        let warm_up = usize::from(rounds > 1);
        for round in 0..rounds + warm_up {
            for (row, measure) in &mut running {
                let sample = measure();
                if round >= warm_up {
                    row.rounds.push(sample);
                }
            }
        }
        let rows: Vec<Row> = running.into_iter().map(|(row, _)| row).collect();
        self.show(title, &rows);
    }

    fn wanted(&self, title: &str, cases: &[Case<'_>]) -> Vec<bool> {
        let asked = |case: &Case<'_>| {
            let row = format!("{}/{title}/{}", self.name, case.name);
            self.arguments.wants(&row)
        };
        let compared: Vec<&str> = cases
            .iter()
            .filter(|case| asked(case))
            .flat_map(|case| &case.comparisons)
            .filter_map(|comparison| comparison.with.as_deref())
            .collect();
        cases
            .iter()
            .map(|case| asked(case) || compared.contains(&case.name.as_str()))
            .collect()
    }

    fn show(&self, title: &str, rows: &[Row]) {
        println!(
            "\n{title:<44}{:>12}{:>12}{:>12}{:>12}{:>12}{:>10}",
            "p50", "p90", "p99", "min", "max", "CPU"
        );
        for row in rows {
            let total = row.total();
            let suffix = row.unit.suffix();
            let figure = |value: f64| format!("{}{suffix}", rounded(value));
            let cpu = total
                .cpu
                .map_or_else(String::new, |cpu| format!("{}µs", rounded(cpu)));
            println!(
                "  {:<42}{:>12}{:>12}{:>12}{:>12}{:>12}{cpu:>10}",
                row.name,
                figure(total.p50),
                figure(total.p90),
                figure(total.p99),
                figure(total.min),
                figure(total.max),
            );
            for comparison in &row.comparisons {
                let figure = row.compare(comparison, rows);
                println!("      {}", sentence(row, comparison, figure));
            }
        }
        if let Some(file) = &self.arguments.json {
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(file)
                .unwrap();
            for row in rows {
                writeln!(file, "{}", self.machine(title, row, rows)).unwrap();
            }
        }
    }

    fn machine(&self, title: &str, row: &Row, rows: &[Row]) -> Value {
        let total = row.total();
        let comparisons: Vec<Value> = row
            .comparisons
            .iter()
            .map(|comparison| {
                let figure = row.compare(comparison, rows);
                let limit = match comparison.target {
                    Target::None => Value::Null,
                    Target::AtMost(limit) => json!({"at_most": limit}),
                    Target::AtLeast(limit) => json!({"at_least": limit}),
                };
                json!({
                    "by": format!("{:?}", comparison.by), "with": comparison.with,
                    "figure": figure, "target": limit, "met": comparison.target.is_met(figure),
                })
            })
            .collect();
        json!({
            "bench": self.name, "group": title, "row": row.name, "unit": row.unit.suffix().trim(),
            "rounds": row.rounds.len(), "p50": total.p50, "p90": total.p90, "p99": total.p99,
            "min": total.min, "max": total.max, "cpu_us": total.cpu, "comparisons": comparisons,
        })
    }
}

impl Row {
    /// The medians of the rounds, the least of the least and the most of the most.
    fn total(&self) -> Sample {
        let each = |figure: fn(&Sample) -> f64| self.rounds.iter().map(figure);
        let cpu: Option<Vec<f64>> = self.rounds.iter().map(|sample| sample.cpu).collect();
        Sample {
            p50: median(each(|sample| sample.p50)),
            p90: median(each(|sample| sample.p90)),
            p99: median(each(|sample| sample.p99)),
            min: each(|sample| sample.min).fold(f64::INFINITY, f64::min),
            max: each(|sample| sample.max).fold(f64::NEG_INFINITY, f64::max),
            cpu: cpu.map(|cpu| median(cpu.into_iter())),
        }
    }

    /// The median of the comparisons of each round with the same round of the other.
    fn compare(&self, comparison: &Comparison, rows: &[Row]) -> f64 {
        let Some(with) = &comparison.with else {
            return self.total().p50;
        };
        let other = rows.iter().find(|row| row.name == *with).unwrap();
        let pairs = self.rounds.iter().zip(&other.rounds);
        median(pairs.map(|(mine, other)| match comparison.by {
            By::P50 => mine.p50 / other.p50,
            By::P90 => mine.p90 / other.p90,
            By::Cpu => mine.cpu.unwrap() / other.cpu.unwrap(),
            By::Difference => mine.p50 - other.p50,
        }))
    }
}

fn sentence(row: &Row, comparison: &Comparison, figure: f64) -> String {
    let target = match comparison.target {
        Target::None => String::new(),
        Target::AtMost(limit) => format!(", target at most {limit}"),
        Target::AtLeast(limit) => format!(", target at least {limit}"),
    };
    let verdict = match comparison.target.is_met(figure) {
        None => "",
        Some(true) => ": met",
        Some(false) => ": MISSED",
    };
    let what = match (comparison.by, &comparison.with) {
        (_, None) => format!("{}{}", rounded(figure), row.unit.suffix()),
        (By::P50, Some(with)) => format!("p50 {figure:.2} of {with}"),
        (By::P90, Some(with)) => format!("p90 {figure:.2} of {with}"),
        (By::Cpu, Some(with)) => format!("CPU {figure:.2} of {with}"),
        (By::Difference, Some(with)) => {
            format!("{}{} more than {with}", rounded(figure), row.unit.suffix())
        }
    };
    format!("{what}{target}{verdict}")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Three digits that count, or the whole number.
fn rounded(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 100.0 => format!("{value:.0}"),
        magnitude if magnitude >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
