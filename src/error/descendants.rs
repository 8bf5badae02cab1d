//! The processes that a plugin started and that outlive it.

use std::fmt;

/// What is known about the processes that a plugin left behind in process groups or sessions of
/// their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descendants {
    /// Processes that were found and are not known to be dead.
    pub(crate) left: usize,
    /// Processes that were seen and ended before they could be stopped. Processes that they started
    /// meanwhile may still run.
    pub(crate) escaped: usize,
    /// Whether every process of the system was examined. If not, there may be more.
    pub(crate) finished: bool,
}

impl Descendants {
    /// Whether it is certain that no process is left.
    pub(crate) fn is_clear(&self) -> bool {
        self.left == 0 && self.escaped == 0 && self.finished
    }
}

impl fmt::Display for Descendants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processes = |count: usize| match count {
            1 => "1 process".to_owned(),
            _ => format!("{count} processes"),
        };
        match self.left {
            0 => f.write_str("no process of it was found")?,
            left => write!(f, "{} of it left", processes(left))?,
        }
        if self.escaped > 0 {
            let escaped = processes(self.escaped);
            write!(f, ", {escaped} got away while being looked at")?;
        }
        if !self.finished {
            f.write_str(", and the look is not finished")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_and_what_is_not_known_too() {
        let text = |left, escaped, finished| {
            let found = Descendants {
                left,
                escaped,
                finished,
            };
            assert_eq!(found.is_clear(), (left, escaped, finished) == (0, 0, true));
            found.to_string()
        };
        assert_eq!(text(0, 0, true), "no process of it was found");
        assert_eq!(
            text(0, 0, false),
            "no process of it was found, and the look is not finished"
        );
        assert_eq!(text(12, 0, true), "12 processes of it left");
        assert_eq!(
            text(1, 1, true),
            "1 process of it left, 1 process got away while being looked at"
        );
    }
}
