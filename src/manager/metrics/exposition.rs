//! `Exposition`: writes Prometheus' text format, version 0.0.4. What it writes is valid: each family has its type and
//! its help once, in front of all of its series, counters end in `_total`, and text in labels is escaped.

use std::fmt::Write as _;
use std::time::Duration;

use crate::session::Distribution;

/// Precedes every name.
const PREFIX: &str = "plugin_runner_";

/// The text so far. Names and the names of labels are lower-case words joined with `_`; no name comes twice.
#[derive(Default)]
pub(super) struct Exposition(String);

/// A family whose series are being written. Each has other labels.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: String,
}

/// The value of a series.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Whole(u64),
    Seconds(Duration),
}

pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

impl Exposition {
    /// Begins a family of values that only go up.
    pub(super) fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(format!("{PREFIX}{name}_total"), "counter", help)
    }

    /// Begins a family of values that go up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(format!("{PREFIX}{name}"), "gauge", help)
    }

    /// Writes a family of distributions of durations.
    pub(super) fn histogram(&mut self, name: &str, help: &str, all: &[(Labels<'_>, Distribution)]) {
        let family = self.family(format!("{PREFIX}{name}"), "histogram", help);
        let Family { text, name } = family;
        for (labels, distribution) in all {
            let mut write = |suffix, le: Option<&str>, number| {
                let bound = le.map(|le| ("le", le));
                let labels = labels.iter().copied().chain(bound);
                write_series(text, &name, suffix, labels, number);
            };
            for (bound, count) in &distribution.buckets {
                let le = bound.as_secs_f64().to_string();
                write("_bucket", Some(&le), Number::Whole(*count));
            }
            write("_bucket", Some("+Inf"), Number::Whole(distribution.count));
            write("_sum", None, Number::Seconds(distribution.sum));
            write("_count", None, Number::Whole(distribution.count));
        }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    fn family(&mut self, name: String, kind: &str, help: &str) -> Family<'_> {
        let text = &mut self.0;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { text, name }
    }
}

impl Family<'_> {
    /// Writes a series of the family.
    pub(super) fn series(&mut self, labels: Labels<'_>, number: impl Into<Number>) -> &mut Self {
        let labels = labels.iter().copied();
        write_series(self.text, &self.name, "", labels, number.into());
        self
    }
}

fn write_series<'a>(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: impl Iterator<Item = (&'static str, &'a str)>,
    number: Number,
) {
    text.push_str(name);
    text.push_str(suffix);
    let mut separator = '{';
    for (label, value) in labels {
        text.push(separator);
        separator = ',';
        text.push_str(label);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    if separator == ',' {
        text.push('}');
    }
    let _ = match number {
        Number::Whole(number) => writeln!(text, " {number}"),
        Number::Seconds(time) => writeln!(text, " {}.{:09}", time.as_secs(), time.subsec_nanos()),
    };
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Whole(number as u64)
    }
}

impl From<bool> for Number {
    fn from(is_so: bool) -> Self {
        Self::Whole(is_so.into())
    }
}

impl From<Duration> for Number {
    fn from(time: Duration) -> Self {
        Self::Seconds(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_with_their_type_and_help() {
        let mut text = Exposition::default();
        text.counter("calls", "All \\ of\nthem.")
            .series(&[], 7_u64)
            .series(&[("a", "1"), ("b", "2")], 0_u64);
        text.gauge("up", "Whether.").series(&[], true);
        text.gauge("time_seconds", "When.")
            .series(&[], Duration::from_millis(1_050));
        let expected = "\
# HELP plugin_runner_calls_total All \\\\ of\\nthem.
# TYPE plugin_runner_calls_total counter
plugin_runner_calls_total 7
plugin_runner_calls_total{a=\"1\",b=\"2\"} 0
# HELP plugin_runner_up Whether.
# TYPE plugin_runner_up gauge
plugin_runner_up 1
# HELP plugin_runner_time_seconds When.
# TYPE plugin_runner_time_seconds gauge
plugin_runner_time_seconds 1.050000000
";
        assert_eq!(text.into_text(), expected);
    }

    #[test]
    fn text_in_a_label_stays_in_its_label_and_on_its_line() {
        let mut text = Exposition::default();
        text.gauge("x", "X.")
            .series(&[("name", "a\"} 1\nb\\\u{7}{,=é")], 1_u64);
        let text = text.into_text();
        let expected = "plugin_runner_x{name=\"a\\\"} 1\\nb\\\\\u{7}{,=é\"} 1";
        assert_eq!(text.lines().last(), Some(expected));
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn a_distribution_has_its_buckets_sum_and_count() {
        let mut text = Exposition::default();
        let distribution = Distribution {
            buckets: vec![
                (Duration::from_micros(250), 1),
                (Duration::from_secs(30), 3),
            ],
            count: 4,
            sum: Duration::from_millis(61_500),
        };
        text.histogram("call_seconds", "Calls.", &[(&[("a", "b")], distribution)]);
        let text = text.into_text();
        let series: Vec<&str> = text.lines().skip(1).collect();
        let expected = [
            "# TYPE plugin_runner_call_seconds histogram",
            "plugin_runner_call_seconds_bucket{a=\"b\",le=\"0.00025\"} 1",
            "plugin_runner_call_seconds_bucket{a=\"b\",le=\"30\"} 3",
            "plugin_runner_call_seconds_bucket{a=\"b\",le=\"+Inf\"} 4",
            "plugin_runner_call_seconds_sum{a=\"b\"} 61.500000000",
            "plugin_runner_call_seconds_count{a=\"b\"} 4",
        ];
        assert_eq!(series, expected);
    }
}
