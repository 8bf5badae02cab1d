//! What one round of one case gave.

use std::time::Duration;

/// What the figures of a row are. The larger the better holds for [`Unit::PerSecond`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Microseconds,
    Milliseconds,
    PerSecond,
    KibiBytes,
    Count,
}

impl Unit {
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::PerSecond => "/s",
            Self::KibiBytes => " KiB",
            Self::Count => "",
        }
    }

    /// A duration in this unit.
    pub(crate) fn of(self, duration: Duration) -> f64 {
        match self {
            Self::Milliseconds => duration.as_secs_f64() * 1e3,
            _ => duration.as_secs_f64() * 1e6,
        }
    }
}

/// The figures of one round, in the unit of its case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Microseconds of processor that this process used for one operation.
    pub(crate) cpu: Option<f64>,
}

impl Sample {
    /// A round that gave one figure.
    pub(crate) fn single(value: f64) -> Self {
        Self {
            p50: value,
            p90: value,
            p99: value,
            min: value,
            max: value,
            cpu: None,
        }
    }

    /// A round of several figures of one kind; at least one.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at =
            |hundredths: usize| values[(values.len() * hundredths / 100).min(values.len() - 1)];
        Self {
            p50: at(50),
            p90: at(90),
            p99: at(99),
            min: at(0),
            max: at(100),
            cpu: None,
        }
    }

    /// A round that did so many operations in this time: how many in a second.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    pub(crate) fn rate(operations: usize, took: Duration) -> Self {
        Self::single(operations as f64 / took.as_secs_f64())
    }

    /// A round of several durations.
    pub(crate) fn of_times(unit: Unit, times: &[Duration]) -> Self {
        Self::of(times.iter().map(|time| unit.of(*time)).collect())
    }

    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    pub(crate) fn with_cpu(mut self, total: Duration, operations: usize) -> Self {
        self.cpu = Some(total.as_secs_f64() * 1e6 / operations as f64);
        self
    }
}
