//! The pulse of one connection: when it is asked for a sign of life, when the answer is overdue, and
//! when it has missed too many. Pure: what happened and what time it is come from outside.

use std::time::{Duration, Instant};

use crate::health::Health;

#[derive(Debug)]
pub(super) struct Pulse {
    health: Health,
    /// It is not even asked while it handles a call: its answers would only pile up.
    spares_called: bool,
    phase: Phase,
    /// Pings in a row without a sign of life.
    misses: u32,
    /// Since when a call has excused that there is no sign of life.
    excused_since: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    Resting {
        until: Instant,
    },
    Asked {
        at: Instant,
        /// When it is looked for an answer next: every interval, where that is shorter than the time
        /// for it. Who answers sooner is asked again sooner.
        look: Instant,
        until: Instant,
        /// There was a sign of life since.
        heard: bool,
    },
}

/// What is known of the peer when its pulse is felt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signs {
    /// There was a sign of life since the last look.
    pub(super) heard: bool,
    /// It handles a call of ours, and may not be able to answer before that is done. Excuses it for
    /// [`Health::busy_limit`] without a sign of life, and no longer.
    pub(super) called: bool,
    /// It waits for us, so it is ours to end that. It is neither asked nor blamed meanwhile.
    pub(super) waits: bool,
    /// It has not answered the last ping itself, whatever else was heard. It is not asked again
    /// while that may still come.
    pub(super) owes_answer: bool,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Rest,
    /// The ping is to be sent.
    Ask,
    /// Nothing, but that one more ping was missed.
    Missed,
    /// The connection is to be given up; this ping was missed too.
    GiveUp,
}

impl Pulse {
    /// That of a connection that begins now.
    pub(super) fn new(health: Health, spares_called: bool, now: Instant) -> Self {
        let until = later(now, health.interval);
        Self {
            health,
            spares_called,
            phase: Phase::Resting { until },
            misses: 0,
            excused_since: None,
        }
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// When [`attend`](Self::attend) is to be called next.
    pub(super) fn due(&self) -> Instant {
        match self.phase {
            Phase::Resting { until } => until,
            Phase::Asked { look, .. } => look,
        }
    }

    /// Whether the peer is to be asked next, which may be done a little early as well.
    pub(super) fn is_resting(&self) -> bool {
        matches!(self.phase, Phase::Resting { .. })
    }

    /// Looks at the clock when it is due.
    pub(super) fn attend(&mut self, now: Instant, signs: Signs) -> Step {
        if signs.heard {
            self.misses = 0;
            self.excused_since = None;
        }
        let excused = signs.called && self.is_excused_by_call(now);
        if let Phase::Asked { heard, .. } = &mut self.phase {
            *heard |= signs.heard;
        }
        match &mut self.phase {
            Phase::Resting { .. } if signs.waits || excused && self.spares_called => {
                self.rest(now, now);
                Step::Rest
            }
            Phase::Resting { .. } => self.ask(now),
            Phase::Asked {
                at, until, heard, ..
            } if signs.waits || excused || *heard && (!signs.owes_answer || *until <= now) => {
                let at = *at;
                self.rest(at, now);
                Step::Rest
            }
            Phase::Asked { look, until, .. } if now < *until => {
                *look = later(now, self.health.interval).min(*until);
                Step::Rest
            }
            // We were held up ourselves, so what the peer sent may not have been read yet.
            Phase::Asked { until, .. } if later(*until, self.health.timeout) <= now => {
                self.ask(now)
            }
            Phase::Asked { at, .. } => {
                let at = *at;
                self.misses = self.misses.saturating_add(1);
                if self.misses > self.health.misses_allowed {
                    return Step::GiveUp;
                }
                self.rest(at, now);
                Step::Missed
            }
        }
    }

    /// Whether a call still excuses that there is no sign of life. Counts from the first time that it
    /// did since there was one, so that one call after the other excuses no longer than a single one.
    fn is_excused_by_call(&mut self, now: Instant) -> bool {
        let since = *self.excused_since.get_or_insert(now);
        now < later(since, self.health.busy_limit)
    }

    /// The ping that was to be sent could not be, for want of room: that is the peer's fault only if
    /// it stays so, which the writer sees.
    pub(super) fn not_asked(&mut self, now: Instant) {
        self.rest(now, now);
    }

    fn ask(&mut self, now: Instant) -> Step {
        let until = later(now, self.health.timeout);
        let look = later(now, self.health.interval).min(until);
        self.phase = Phase::Asked {
            at: now,
            look,
            until,
            heard: false,
        };
        Step::Ask
    }

    /// Until an interval after `since`.
    fn rest(&mut self, since: Instant, now: Instant) {
        let until = later(since, self.health.interval).max(now);
        self.phase = Phase::Resting { until };
    }
}

/// `since` and so much later; anything over a year is a year, so that no setting can overflow.
fn later(since: Instant, wait: Duration) -> Instant {
    since + wait.min(Duration::from_secs(365 * 24 * 60 * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection under a clock of the test's own, pinged every 30 s with 10 s for an answer.
    struct Patient {
        begin: Instant,
        pulse: Pulse,
    }

    const NOTHING: Signs = Signs {
        heard: false,
        called: false,
        waits: false,
        owes_answer: false,
    };
    const HEARD: Signs = Signs {
        heard: true,
        ..NOTHING
    };
    const CALLED: Signs = Signs {
        called: true,
        ..NOTHING
    };
    const WAITS: Signs = Signs {
        waits: true,
        ..NOTHING
    };
    const UNANSWERED: Signs = Signs {
        owes_answer: true,
        ..NOTHING
    };
    const HEARD_SOMETHING_ELSE: Signs = Signs {
        heard: true,
        ..UNANSWERED
    };

    impl Patient {
        fn new(misses_allowed: u32) -> Self {
            Self::with(Health::default().with_misses_allowed(misses_allowed))
        }

        fn with(health: Health) -> Self {
            let begin = Instant::now();
            Self {
                begin,
                pulse: Pulse::new(health, true, begin),
            }
        }

        /// One that is asked also while it handles a call.
        fn always_asked(health: Health) -> Self {
            let mut patient = Self::with(health);
            patient.pulse.spares_called = false;
            patient
        }

        /// Goes on to the next look; gives when that is, in seconds, and what is to be done.
        fn next(&mut self, signs: Signs) -> (u64, Step) {
            let due = self.pulse.due();
            let step = self.pulse.attend(due, signs);
            ((due - self.begin).as_secs(), step)
        }

        fn expect(&mut self, steps: &[(Signs, u64, Step)]) {
            for (seen, at, step) in steps {
                let next = self.next(*seen);
                assert_eq!((&next.0, &next.1), (at, step));
            }
        }
    }

    #[test]
    fn one_that_answers_is_asked_once_in_an_interval() {
        Patient::new(0).expect(&[
            (NOTHING, 30, Step::Ask),
            (HEARD, 40, Step::Rest),
            (NOTHING, 60, Step::Ask),
            (HEARD, 70, Step::Rest),
            (NOTHING, 90, Step::Ask),
        ]);
    }

    #[test]
    fn the_one_after_those_allowed_is_the_last() {
        Patient::new(2).expect(&[
            (NOTHING, 30, Step::Ask),
            (NOTHING, 40, Step::Missed),
            (NOTHING, 60, Step::Ask),
            (NOTHING, 70, Step::Missed),
            (NOTHING, 90, Step::Ask),
            (NOTHING, 100, Step::GiveUp),
        ]);
        Patient::new(0).expect(&[(NOTHING, 30, Step::Ask), (NOTHING, 40, Step::GiveUp)]);
    }

    #[test]
    fn a_sign_of_life_at_any_time_starts_the_counting_over() {
        let mut patient = Patient::new(1);
        patient.expect(&[
            (NOTHING, 30, Step::Ask),
            (NOTHING, 40, Step::Missed),
            // The answer came late, before the next ping.
            (HEARD, 60, Step::Ask),
            (NOTHING, 70, Step::Missed),
            (NOTHING, 90, Step::Ask),
            (HEARD, 100, Step::Rest),
            (NOTHING, 120, Step::Ask),
            (NOTHING, 130, Step::Missed),
            (NOTHING, 150, Step::Ask),
            (NOTHING, 160, Step::GiveUp),
        ]);
    }

    #[test]
    fn one_that_is_busy_is_neither_asked_nor_blamed_nor_forgiven() {
        for busy in [CALLED, WAITS] {
            Patient::new(1).expect(&[
                (busy, 30, Step::Rest),
                (NOTHING, 60, Step::Ask),
                (busy, 70, Step::Rest),
                (busy, 90, Step::Rest),
                (NOTHING, 120, Step::Ask),
                (NOTHING, 130, Step::Missed),
                (busy, 150, Step::Rest),
                (NOTHING, 180, Step::Ask),
                (NOTHING, 190, Step::GiveUp),
            ]);
        }
    }

    #[test]
    fn one_that_may_be_asked_is_asked_while_it_is_called_and_not_blamed() {
        let mut patient = Patient::always_asked(Health::default().with_misses_allowed(1));
        patient.expect(&[
            (CALLED, 30, Step::Ask),
            (CALLED, 40, Step::Rest),
            (CALLED, 60, Step::Ask),
            (CALLED, 70, Step::Rest),
            (NOTHING, 90, Step::Ask),
            (NOTHING, 100, Step::Missed),
            (CALLED, 120, Step::Ask),
            (CALLED, 130, Step::Rest),
            (NOTHING, 150, Step::Ask),
            (NOTHING, 160, Step::GiveUp),
        ]);
    }

    #[test]
    fn a_call_excuses_for_the_busy_limit_from_the_first_silence_on() {
        let health = Health::default()
            .with_misses_allowed(1)
            .with_busy_limit(Duration::from_secs(100));
        // Not called for a while, with nothing heard: that is no new beginning.
        Patient::with(health.clone()).expect(&[
            (CALLED, 30, Step::Rest),
            (CALLED, 60, Step::Rest),
            (NOTHING, 90, Step::Ask),
            (CALLED, 100, Step::Rest),
            (CALLED, 120, Step::Rest),
            (CALLED, 150, Step::Ask),
            (CALLED, 160, Step::Missed),
            (CALLED, 180, Step::Ask),
            (CALLED, 190, Step::GiveUp),
        ]);
        // A sign of life is one.
        Patient::with(health.clone()).expect(&[
            (CALLED, 30, Step::Rest),
            (
                Signs {
                    heard: true,
                    ..CALLED
                },
                60,
                Step::Rest,
            ),
            (CALLED, 90, Step::Rest),
            (CALLED, 120, Step::Rest),
            (CALLED, 150, Step::Rest),
            (CALLED, 180, Step::Ask),
            (
                Signs {
                    heard: true,
                    ..CALLED
                },
                190,
                Step::Rest,
            ),
            (CALLED, 210, Step::Rest),
        ]);
        Patient::always_asked(health.clone()).expect(&[
            (CALLED, 30, Step::Ask),
            (CALLED, 40, Step::Rest),
            (CALLED, 60, Step::Ask),
            (CALLED, 70, Step::Rest),
            (CALLED, 90, Step::Ask),
            (CALLED, 100, Step::Rest),
            (CALLED, 120, Step::Ask),
            (CALLED, 130, Step::Missed),
            (CALLED, 150, Step::Ask),
            (CALLED, 160, Step::GiveUp),
        ]);
        // Who waits for us is excused for as long as we take.
        Patient::with(health.with_busy_limit(Duration::ZERO)).expect(&[
            (WAITS, 30, Step::Rest),
            (WAITS, 60, Step::Rest),
            (CALLED, 90, Step::Ask),
            (CALLED, 100, Step::Missed),
        ]);
    }

    #[test]
    fn with_a_short_interval_the_next_ping_waits_for_a_sign_of_life_or_its_time() {
        let health = Health::default()
            .with_interval(Duration::from_secs(6))
            .with_misses_allowed(1);
        Patient::with(health).expect(&[
            (NOTHING, 6, Step::Ask),
            (HEARD, 12, Step::Rest),
            (NOTHING, 12, Step::Ask),
            (NOTHING, 18, Step::Rest),
            (NOTHING, 22, Step::Missed),
            (NOTHING, 22, Step::Ask),
            (NOTHING, 28, Step::Rest),
            (HEARD, 32, Step::Rest),
            (NOTHING, 32, Step::Ask),
            (NOTHING, 38, Step::Rest),
            (NOTHING, 42, Step::Missed),
            (NOTHING, 42, Step::Ask),
            (NOTHING, 48, Step::Rest),
            (NOTHING, 52, Step::GiveUp),
        ]);
    }

    #[test]
    fn one_that_says_other_things_has_time_for_the_answer_before_it_is_asked_again() {
        let health = Health::default()
            .with_interval(Duration::from_secs(4))
            .with_misses_allowed(0);
        Patient::with(health).expect(&[
            (NOTHING, 4, Step::Ask),
            (HEARD_SOMETHING_ELSE, 8, Step::Rest),
            // Heard before, so this is no miss.
            (UNANSWERED, 12, Step::Rest),
            (UNANSWERED, 14, Step::Rest),
            (UNANSWERED, 14, Step::Ask),
            (HEARD_SOMETHING_ELSE, 18, Step::Rest),
            (HEARD, 22, Step::Rest),
            (NOTHING, 22, Step::Ask),
            (UNANSWERED, 26, Step::Rest),
            (UNANSWERED, 30, Step::Rest),
            (UNANSWERED, 32, Step::GiveUp),
        ]);
    }

    #[test]
    fn one_is_not_blamed_for_a_host_that_was_held_up() {
        let mut patient = Patient::new(0);
        patient.expect(&[(NOTHING, 30, Step::Ask)]);
        let slept = patient.begin + Duration::from_secs(3600);
        assert_eq!(patient.pulse.attend(slept, NOTHING), Step::Ask);
        patient.expect(&[(NOTHING, 3610, Step::GiveUp)]);
        // A little late is no excuse.
        let mut patient = Patient::new(0);
        patient.expect(&[(NOTHING, 30, Step::Ask)]);
        let late = patient.begin + Duration::from_secs(45);
        assert_eq!(patient.pulse.attend(late, NOTHING), Step::GiveUp);
    }

    #[test]
    fn a_ping_that_could_not_be_sent_is_not_missed() {
        let mut patient = Patient::new(0);
        for at in [30, 60, 90] {
            patient.expect(&[(NOTHING, at, Step::Ask)]);
            patient
                .pulse
                .not_asked(patient.begin + Duration::from_secs(at));
        }
    }

    #[test]
    fn no_setting_overflows() {
        let health = Health::default()
            .with_interval(Duration::MAX)
            .with_timeout(Duration::MAX);
        let mut patient = Patient::with(health);
        assert_eq!(patient.next(NOTHING).1, Step::Ask);
        assert_eq!(patient.next(HEARD).1, Step::Rest);
    }
}
