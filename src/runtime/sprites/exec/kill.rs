//! What the service says while it kills a session: one JSON object on each line. Pure.

use serde::Deserialize;

use crate::error::SpritesProblem;

/// The most bytes of a line, and of all of them.
const LINE_LIMIT: usize = 64 * 1024;
const TOTAL_LIMIT: usize = 1024 * 1024;

/// How a session was killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KillReport {
    /// Whether there was such a session.
    pub(crate) was_there: bool,
    /// Whether it outlived its grace and was ended by SIGKILL.
    pub(crate) was_forced: bool,
    /// The status with which it ended, if the service says.
    pub(crate) exit_code: Option<i32>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    exit_code: Option<i32>,
    #[serde(default)]
    message: Option<String>,
}

/// Gathers the lines.
#[derive(Default)]
pub(super) struct KillLines {
    report: KillReport,
    /// Whether it is known that the session has ended.
    has_ended: bool,
    line: Vec<u8>,
    total: usize,
}

impl KillLines {
    /// Takes a part of the body; returns the report once the service has said that all is done.
    pub(super) fn take(&mut self, part: &[u8]) -> Result<Option<KillReport>, SpritesProblem> {
        self.total += part.len();
        for piece in part.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + piece.len() > LINE_LIMIT {
                return Err(SpritesProblem::TooLarge { limit: LINE_LIMIT });
            }
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") && self.end_line()? {
                return Ok(Some(self.report));
            }
        }
        if self.total > TOTAL_LIMIT {
            return Err(SpritesProblem::TooLarge { limit: TOTAL_LIMIT });
        }
        Ok(None)
    }

    /// Takes the end of the body.
    pub(super) fn end(mut self) -> Result<KillReport, SpritesProblem> {
        if self.end_line()? || self.has_ended {
            return Ok(self.report);
        }
        // Nobody knows whether the session has ended. Asked again, the service does.
        let cut = std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "it ended before the session was said to be killed",
        );
        Err(SpritesProblem::Broken(cut))
    }

    /// Judges the line that is complete; returns whether it is the last.
    fn end_line(&mut self) -> Result<bool, SpritesProblem> {
        let line = std::mem::take(&mut self.line);
        // What is no object with a type says nothing; empty lines keep a connection alive.
        let Ok(line) = serde_json::from_slice::<Line>(&line) else {
            return Ok(false);
        };
        self.report.was_there = true;
        match &*line.kind {
            "exited" => self.has_ended = true,
            "killed" => {
                self.has_ended = true;
                self.report.was_forced = true;
            }
            "complete" => {
                self.report.exit_code = line.exit_code;
                return Ok(true);
            }
            "error" => {
                // With a status of 200, so only the text says what it is; the next attempt will tell more.
                return Err(SpritesProblem::Unavailable {
                    status: 200,
                    wait: None,
                    message: line.message.unwrap_or_default().into(),
                });
            }
            _ => {}
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_matches;

    const ENDED: &str = "{\"type\":\"signal\",\"message\":\"sent\",\"signal\":\"INT\",\"pid\":7}\n\
         {\"type\":\"exited\",\"message\":\"gone\"}\n{\"type\":\"complete\",\"exit_code\":130}\n";

    #[test]
    fn the_report_is_there_with_the_last_line_however_it_comes() {
        for size in 1..=ENDED.len() {
            let mut lines = KillLines::default();
            let mut parts = ENDED.as_bytes().chunks(size);
            let report = parts.find_map(|part| lines.take(part).unwrap()).unwrap();
            assert_eq!(report.exit_code, Some(130));
            assert!(report.was_there && !report.was_forced);
        }
    }

    #[test]
    fn a_cut_is_passing_until_the_end_of_the_session_is_known() {
        let known = ENDED.find("{\"type\":\"complete").unwrap() - 1;
        for length in 0..ENDED.len() - 1 {
            let mut lines = KillLines::default();
            assert_eq!(lines.take(&ENDED.as_bytes()[..length]).unwrap(), None);
            let ended = lines.end();
            if length < known {
                assert_matches!(ended, Err(SpritesProblem::Broken(_)), "{length}");
            } else {
                assert!(ended.unwrap().was_there, "{length}");
            }
        }
    }

    #[test]
    fn a_kill_by_force_and_a_failure_are_told() {
        let mut lines = KillLines::default();
        let forced =
            b"\n{\"type\":\"timeout\"}\n[1]\n{\"type\":\"killed\"}\n{\"type\":\"complete\"}\n";
        let report = lines.take(forced).unwrap().unwrap();
        assert!(report.was_forced);
        assert_eq!(report.exit_code, None);
        let failed = KillLines::default().take(b"{\"type\":\"error\",\"message\":\"no\"}\n");
        assert_matches!(failed, Err(SpritesProblem::Unavailable { .. }));
    }

    #[test]
    fn lines_and_all_of_them_are_bounded() {
        let long = vec![b'x'; LINE_LIMIT + 1];
        assert_matches!(
            KillLines::default().take(&long),
            Err(SpritesProblem::TooLarge { limit: LINE_LIMIT })
        );
        let mut lines = KillLines::default();
        let many = "{\"type\":\"signal\"}\n".repeat(1_000);
        let mut taken = std::iter::repeat_with(|| lines.take(many.as_bytes()));
        let end = taken.find_map(Result::err).unwrap();
        assert_matches!(end, SpritesProblem::TooLarge { limit: TOTAL_LIMIT });
    }
}
