//! One row of a table: how to measure it, and what to hold it against.

use super::{Sample, Unit};

/// A thing that is measured in rounds.
pub(crate) struct Case<'a> {
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) comparisons: Vec<Comparison>,
    /// Makes what measures, when the row is wanted; what that holds is dropped after the last round.
    pub(super) setup: Box<dyn FnOnce() -> Box<dyn FnMut() -> Sample + 'a> + 'a>,
}

/// Which figures of two rows are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The ratio of the medians.
    P50,
    /// The ratio of the 90th percentiles.
    P90,
    /// The ratio of the processor times of this process.
    Cpu,
    /// How much more the median is, in the row's unit.
    Difference,
}

/// What a comparison is meant to give.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    None,
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) by: By,
    /// The name of another row of the same group; none for the row's own figure.
    pub(super) with: Option<String>,
    pub(super) target: Target,
}

impl<'a> Case<'a> {
    /// `setup` gives what runs one round. Its first round warms up and is not counted.
    pub(crate) fn new<R: FnMut() -> Sample + 'a>(
        name: impl Into<String>,
        setup: impl FnOnce() -> R + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            unit: Unit::Microseconds,
            comparisons: Vec::new(),
            setup: Box::new(move || Box::new(setup())),
        }
    }

    #[must_use]
    pub(crate) fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// Compares this row with another of the same group.
    #[must_use]
    pub(crate) fn against(mut self, with: &str, by: By, target: Target) -> Self {
        let with = Some(with.to_owned());
        self.comparisons.push(Comparison { by, with, target });
        self
    }

    /// Holds this row's own median against a target.
    #[must_use]
    pub(crate) fn absolute(mut self, target: Target) -> Self {
        self.comparisons.push(Comparison {
            by: By::P50,
            with: None,
            target,
        });
        self
    }
}

impl Target {
    pub(super) fn is_met(self, figure: f64) -> Option<bool> {
        match self {
            Self::None => None,
            Self::AtMost(limit) => Some(figure <= limit),
            Self::AtLeast(limit) => Some(figure >= limit),
        }
    }
}
