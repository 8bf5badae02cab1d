//! Whether and when a request is made again: pure functions.

use std::time::Duration;

use crate::error::SpritesProblem;

/// The waits between attempts where the service does not say how long to wait.
const LADDER: [u64; 7] = [250, 500, 1_000, 2_000, 4_000, 8_000, 8_000];

/// The code of a limit that no waiting lifts: as many sprites run as the account may have.
const CONCURRENT: &str = "concurrent_sprite_limit_exceeded";

/// Returns how long to wait before the next attempt; `None` if there is to be none.
///
/// `attempts` is how many were made. `jitter` adds up to a quarter, so that what failed together does not
/// come back together. A wait that would not end within `remaining` is not begun: the caller learns of the
/// failure while there is time left to act on it.
pub(super) fn wait(
    problem: &SpritesProblem,
    attempts: u32,
    remaining: Duration,
    jitter: u8,
) -> Option<Duration> {
    let step = LADDER.get(usize::try_from(attempts).ok()?.checked_sub(1)?);
    let step = Duration::from_millis(*step?);
    let asked = match problem {
        SpritesProblem::RateLimited {
            wait: None,
            code: Some(code),
            ..
        } if **code == *CONCURRENT => return None,
        SpritesProblem::RateLimited { wait, .. } | SpritesProblem::Unavailable { wait, .. } => {
            *wait
        }
        problem if is_passing(problem) => None,
        _ => return None,
    };
    let wait = asked.unwrap_or(step).max(step);
    let wait = wait.saturating_add(wait.saturating_mul(jitter.into()) / (4 * u32::from(u8::MAX)));
    (wait < remaining).then_some(wait)
}

/// Whether the same request may succeed later. None of these says whether the service has acted on it.
pub(crate) fn is_passing(problem: &SpritesProblem) -> bool {
    matches!(
        problem,
        SpritesProblem::RateLimited { .. }
            | SpritesProblem::Unavailable { .. }
            | SpritesProblem::Unreachable(_)
            | SpritesProblem::Broken(_)
            | SpritesProblem::Timeout { .. }
            | SpritesProblem::Gone
            | SpritesProblem::Damaged
    )
}

/// Whether it is certain that the service has not acted on a request that failed so.
pub(super) fn is_without_effect(problem: &SpritesProblem) -> bool {
    matches!(
        problem,
        SpritesProblem::RateLimited { .. } | SpritesProblem::Unreachable(_)
    )
}

/// Returns a number for [`wait`]; the same one each time on a system without random numbers.
pub(super) fn jitter() -> u8 {
    getrandom::u32().map_or(0, |random| random.to_ne_bytes()[0])
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn unavailable(wait: Option<u64>) -> SpritesProblem {
        SpritesProblem::Unavailable {
            status: 503,
            wait: wait.map(Duration::from_secs),
            message: "".into(),
        }
    }

    fn limited(wait: Option<u64>, code: Option<&str>) -> SpritesProblem {
        SpritesProblem::RateLimited {
            wait: wait.map(Duration::from_secs),
            code: code.map(Into::into),
            message: "".into(),
        }
    }

    #[test]
    fn passing_failures_climb_the_ladder_to_its_end() {
        let waits = |problem: &SpritesProblem| -> Vec<u128> {
            let waits = (1..).map_while(|attempts| wait(problem, attempts, MINUTE, 0));
            waits.map(|wait| wait.as_millis()).collect()
        };
        let ladder = LADDER.map(u128::from);
        for problem in [
            unavailable(None),
            limited(None, None),
            SpritesProblem::Unreachable(io::ErrorKind::ConnectionRefused.into()),
            SpritesProblem::Broken(io::ErrorKind::UnexpectedEof.into()),
            SpritesProblem::Timeout { limit: MINUTE },
        ] {
            assert_eq!(waits(&problem), ladder, "{problem:?}");
        }
        for problem in [
            SpritesProblem::NotFound,
            SpritesProblem::Cancelled,
            SpritesProblem::Redirect { status: 302 },
            SpritesProblem::Insecure(io::ErrorKind::InvalidData.into()),
            SpritesProblem::TooLarge { limit: 1 },
            SpritesProblem::Protocol("".into()),
            SpritesProblem::Refused {
                status: 401,
                message: "".into(),
            },
            limited(None, Some(CONCURRENT)),
        ] {
            assert_eq!(waits(&problem), [], "{problem:?}");
        }
    }

    #[test]
    fn a_wait_that_the_service_asks_for_is_kept_if_there_is_time() {
        let seconds = Duration::from_secs;
        assert_eq!(
            wait(&limited(Some(7), None), 1, MINUTE, 0),
            Some(seconds(7))
        );
        assert_eq!(wait(&unavailable(Some(7)), 1, MINUTE, 0), Some(seconds(7)));
        assert_eq!(wait(&limited(Some(7), None), 1, seconds(7), 0), None);
        assert_eq!(
            wait(&limited(Some(u64::MAX), None), 1, MINUTE, u8::MAX),
            None
        );
        // It is longer than nothing, however little is asked for.
        assert_eq!(
            wait(&limited(Some(0), None), 2, MINUTE, 0),
            Some(Duration::from_millis(500))
        );
        let code = Some(CONCURRENT);
        assert_eq!(
            wait(&limited(Some(7), code), 1, MINUTE, 0),
            Some(seconds(7))
        );
    }

    #[test]
    fn jitter_adds_up_to_a_quarter() {
        let at = |jitter| wait(&limited(Some(8), None), 1, MINUTE, jitter).unwrap();
        assert_eq!(at(0), Duration::from_secs(8));
        assert_eq!(at(u8::MAX), Duration::from_secs(10));
        assert!(at(100) < at(101));
    }
}
