//! The heartbeat of one connection: when to ping it, when the answer is overdue, and when too many pings were
//! missed. Pure: what happened and what time it is are arguments.

use std::time::{Duration, Instant};

use crate::health::Health;

#[derive(Debug)]
pub(super) struct Heartbeat {
    health: Health,
    /// The peer is not pinged while it handles a call: its answers would only pile up.
    spares_called: bool,
    phase: HeartbeatPhase,
    /// Pings in a row without a sign of life.
    misses: u32,
    /// Since when a call has excused that there is no sign of life.
    excused_since: Option<Instant>,
}

#[derive(Debug)]
enum HeartbeatPhase {
    Resting {
        until: Instant,
    },
    Asked {
        at: Instant,
        /// When to check for an answer next: every interval, if that is shorter than the timeout, so that a
        /// peer that answers sooner is pinged again sooner.
        look: Instant,
        until: Instant,
        /// There was a sign of life since.
        heard: bool,
    },
}

/// What was observed of the peer since the last tick.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Observed {
    /// There was a sign of life.
    pub(super) heard: bool,
    /// It handles a call of ours, and may not be able to answer before that is done. Excuses it for
    /// [`Health::busy_limit`] without a sign of life, and no longer.
    pub(super) called: bool,
    /// It waits for an answer of ours. It is neither pinged nor given up meanwhile.
    pub(super) waits: bool,
    /// It has not answered the last ping itself, whatever else was received. It is not pinged again while
    /// that may still come.
    pub(super) owes_answer: bool,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    None,
    /// The ping is to be sent.
    Ask,
    /// Nothing, but that one more ping was missed.
    Missed,
    /// The connection is to be given up; this ping was missed too.
    GiveUp,
}

impl Heartbeat {
    /// Returns the heartbeat of a connection that begins now.
    pub(super) fn new(health: Health, spares_called: bool, now: Instant) -> Self {
        let until = later(now, health.interval);
        Self {
            health,
            spares_called,
            phase: HeartbeatPhase::Resting { until },
            misses: 0,
            excused_since: None,
        }
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Returns when [`tick`](Self::tick) is to be called next.
    pub(super) fn due(&self) -> Instant {
        match self.phase {
            HeartbeatPhase::Resting { until } => until,
            HeartbeatPhase::Asked { look, .. } => look,
        }
    }

    /// Returns whether a ping is due next, which may be sent a little early.
    pub(super) fn is_resting(&self) -> bool {
        matches!(self.phase, HeartbeatPhase::Resting { .. })
    }

    /// Decides what to do at `now`.
    pub(super) fn tick(&mut self, now: Instant, observed: Observed) -> Action {
        if observed.heard {
            self.misses = 0;
            self.excused_since = None;
        }
        let excused = observed.called && self.is_excused_by_call(now);
        if let HeartbeatPhase::Asked { heard, .. } = &mut self.phase {
            *heard |= observed.heard;
        }
        match &mut self.phase {
            HeartbeatPhase::Resting { .. } if observed.waits || excused && self.spares_called => {
                self.rest(now, now);
                Action::None
            }
            HeartbeatPhase::Resting { .. } => self.ask(now),
            HeartbeatPhase::Asked {
                at, until, heard, ..
            } if observed.waits
                || excused
                || *heard && (!observed.owes_answer || *until <= now) =>
            {
                let at = *at;
                self.rest(at, now);
                Action::None
            }
            HeartbeatPhase::Asked { look, until, .. } if now < *until => {
                *look = later(now, self.health.interval).min(*until);
                Action::None
            }
            // This process was held up, so what the peer sent may not have been read yet.
            HeartbeatPhase::Asked { until, .. } if later(*until, self.health.timeout) <= now => {
                self.ask(now)
            }
            HeartbeatPhase::Asked { at, .. } => {
                let at = *at;
                self.misses = self.misses.saturating_add(1);
                if self.misses > self.health.misses_allowed {
                    return Action::GiveUp;
                }
                self.rest(at, now);
                Action::Missed
            }
        }
    }

    /// Returns whether a call still excuses a missing sign of life. The time counts from the first call that
    /// did, so that a series of calls excuses no longer than a single one.
    fn is_excused_by_call(&mut self, now: Instant) -> bool {
        let since = *self.excused_since.get_or_insert(now);
        now < later(since, self.health.busy_limit)
    }

    /// The ping could not be sent for want of room: that is the peer's fault only if it lasts, which the
    /// writer notices.
    pub(super) fn not_asked(&mut self, now: Instant) {
        self.rest(now, now);
    }

    fn ask(&mut self, now: Instant) -> Action {
        let until = later(now, self.health.timeout);
        let look = later(now, self.health.interval).min(until);
        self.phase = HeartbeatPhase::Asked {
            at: now,
            look,
            until,
            heard: false,
        };
        Action::Ask
    }

    /// Rests until an interval after `since`.
    fn rest(&mut self, since: Instant, now: Instant) {
        let until = later(since, self.health.interval).max(now);
        self.phase = HeartbeatPhase::Resting { until };
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
    struct Watched {
        begin: Instant,
        heartbeat: Heartbeat,
    }

    const NOTHING: Observed = Observed {
        heard: false,
        called: false,
        waits: false,
        owes_answer: false,
    };
    const HEARD: Observed = Observed {
        heard: true,
        ..NOTHING
    };
    const CALLED: Observed = Observed {
        called: true,
        ..NOTHING
    };
    const WAITS: Observed = Observed {
        waits: true,
        ..NOTHING
    };
    const UNANSWERED: Observed = Observed {
        owes_answer: true,
        ..NOTHING
    };
    const HEARD_SOMETHING_ELSE: Observed = Observed {
        heard: true,
        ..UNANSWERED
    };

    impl Watched {
        fn new(misses_allowed: u32) -> Self {
            Self::with(Health::default().misses_allowed(misses_allowed))
        }

        fn with(health: Health) -> Self {
            let begin = Instant::now();
            Self {
                begin,
                heartbeat: Heartbeat::new(health, true, begin),
            }
        }

        /// One that is asked also while it handles a call.
        fn always_asked(health: Health) -> Self {
            let mut watched = Self::with(health);
            watched.heartbeat.spares_called = false;
            watched
        }

        /// Goes on to the next look; gives when that is, in seconds, and what is to be done.
        fn next(&mut self, observed: Observed) -> (u64, Action) {
            let due = self.heartbeat.due();
            let step = self.heartbeat.tick(due, observed);
            ((due - self.begin).as_secs(), step)
        }

        fn expect(&mut self, steps: &[(Observed, u64, Action)]) {
            for (seen, at, step) in steps {
                let next = self.next(*seen);
                assert_eq!((&next.0, &next.1), (at, step));
            }
        }
    }

    #[test]
    fn one_that_answers_is_asked_once_in_an_interval() {
        Watched::new(0).expect(&[
            (NOTHING, 30, Action::Ask),
            (HEARD, 40, Action::None),
            (NOTHING, 60, Action::Ask),
            (HEARD, 70, Action::None),
            (NOTHING, 90, Action::Ask),
        ]);
    }

    #[test]
    fn the_one_after_those_allowed_is_the_last() {
        Watched::new(2).expect(&[
            (NOTHING, 30, Action::Ask),
            (NOTHING, 40, Action::Missed),
            (NOTHING, 60, Action::Ask),
            (NOTHING, 70, Action::Missed),
            (NOTHING, 90, Action::Ask),
            (NOTHING, 100, Action::GiveUp),
        ]);
        Watched::new(0).expect(&[(NOTHING, 30, Action::Ask), (NOTHING, 40, Action::GiveUp)]);
    }

    #[test]
    fn a_sign_of_life_at_any_time_starts_the_counting_over() {
        let mut watched = Watched::new(1);
        watched.expect(&[
            (NOTHING, 30, Action::Ask),
            (NOTHING, 40, Action::Missed),
            // The answer came late, before the next ping.
            (HEARD, 60, Action::Ask),
            (NOTHING, 70, Action::Missed),
            (NOTHING, 90, Action::Ask),
            (HEARD, 100, Action::None),
            (NOTHING, 120, Action::Ask),
            (NOTHING, 130, Action::Missed),
            (NOTHING, 150, Action::Ask),
            (NOTHING, 160, Action::GiveUp),
        ]);
    }

    #[test]
    fn one_that_is_busy_is_neither_asked_nor_blamed_nor_forgiven() {
        for busy in [CALLED, WAITS] {
            Watched::new(1).expect(&[
                (busy, 30, Action::None),
                (NOTHING, 60, Action::Ask),
                (busy, 70, Action::None),
                (busy, 90, Action::None),
                (NOTHING, 120, Action::Ask),
                (NOTHING, 130, Action::Missed),
                (busy, 150, Action::None),
                (NOTHING, 180, Action::Ask),
                (NOTHING, 190, Action::GiveUp),
            ]);
        }
    }

    #[test]
    fn one_that_may_be_asked_is_asked_while_it_is_called_and_not_blamed() {
        let mut watched = Watched::always_asked(Health::default().misses_allowed(1));
        watched.expect(&[
            (CALLED, 30, Action::Ask),
            (CALLED, 40, Action::None),
            (CALLED, 60, Action::Ask),
            (CALLED, 70, Action::None),
            (NOTHING, 90, Action::Ask),
            (NOTHING, 100, Action::Missed),
            (CALLED, 120, Action::Ask),
            (CALLED, 130, Action::None),
            (NOTHING, 150, Action::Ask),
            (NOTHING, 160, Action::GiveUp),
        ]);
    }

    #[test]
    fn a_call_excuses_for_the_busy_limit_from_the_first_silence_on() {
        let health = Health::default()
            .misses_allowed(1)
            .busy_limit(Duration::from_secs(100));
        // Not called for a while, with nothing heard: that is no new beginning.
        Watched::with(health.clone()).expect(&[
            (CALLED, 30, Action::None),
            (CALLED, 60, Action::None),
            (NOTHING, 90, Action::Ask),
            (CALLED, 100, Action::None),
            (CALLED, 120, Action::None),
            (CALLED, 150, Action::Ask),
            (CALLED, 160, Action::Missed),
            (CALLED, 180, Action::Ask),
            (CALLED, 190, Action::GiveUp),
        ]);
        // A sign of life is one.
        Watched::with(health.clone()).expect(&[
            (CALLED, 30, Action::None),
            (
                Observed {
                    heard: true,
                    ..CALLED
                },
                60,
                Action::None,
            ),
            (CALLED, 90, Action::None),
            (CALLED, 120, Action::None),
            (CALLED, 150, Action::None),
            (CALLED, 180, Action::Ask),
            (
                Observed {
                    heard: true,
                    ..CALLED
                },
                190,
                Action::None,
            ),
            (CALLED, 210, Action::None),
        ]);
        Watched::always_asked(health.clone()).expect(&[
            (CALLED, 30, Action::Ask),
            (CALLED, 40, Action::None),
            (CALLED, 60, Action::Ask),
            (CALLED, 70, Action::None),
            (CALLED, 90, Action::Ask),
            (CALLED, 100, Action::None),
            (CALLED, 120, Action::Ask),
            (CALLED, 130, Action::Missed),
            (CALLED, 150, Action::Ask),
            (CALLED, 160, Action::GiveUp),
        ]);
        // Who waits for us is excused for as long as we take.
        Watched::with(health.busy_limit(Duration::ZERO)).expect(&[
            (WAITS, 30, Action::None),
            (WAITS, 60, Action::None),
            (CALLED, 90, Action::Ask),
            (CALLED, 100, Action::Missed),
        ]);
    }

    #[test]
    fn with_a_short_interval_the_next_ping_waits_for_a_sign_of_life_or_its_time() {
        let health = Health::default()
            .interval(Duration::from_secs(6))
            .misses_allowed(1);
        Watched::with(health).expect(&[
            (NOTHING, 6, Action::Ask),
            (HEARD, 12, Action::None),
            (NOTHING, 12, Action::Ask),
            (NOTHING, 18, Action::None),
            (NOTHING, 22, Action::Missed),
            (NOTHING, 22, Action::Ask),
            (NOTHING, 28, Action::None),
            (HEARD, 32, Action::None),
            (NOTHING, 32, Action::Ask),
            (NOTHING, 38, Action::None),
            (NOTHING, 42, Action::Missed),
            (NOTHING, 42, Action::Ask),
            (NOTHING, 48, Action::None),
            (NOTHING, 52, Action::GiveUp),
        ]);
    }

    #[test]
    fn one_that_says_other_things_has_time_for_the_answer_before_it_is_asked_again() {
        let health = Health::default()
            .interval(Duration::from_secs(4))
            .misses_allowed(0);
        Watched::with(health).expect(&[
            (NOTHING, 4, Action::Ask),
            (HEARD_SOMETHING_ELSE, 8, Action::None),
            // Heard before, so this is no miss.
            (UNANSWERED, 12, Action::None),
            (UNANSWERED, 14, Action::None),
            (UNANSWERED, 14, Action::Ask),
            (HEARD_SOMETHING_ELSE, 18, Action::None),
            (HEARD, 22, Action::None),
            (NOTHING, 22, Action::Ask),
            (UNANSWERED, 26, Action::None),
            (UNANSWERED, 30, Action::None),
            (UNANSWERED, 32, Action::GiveUp),
        ]);
    }

    #[test]
    fn one_is_not_blamed_for_a_host_that_was_held_up() {
        let mut watched = Watched::new(0);
        watched.expect(&[(NOTHING, 30, Action::Ask)]);
        let slept = watched.begin + Duration::from_secs(3600);
        assert_eq!(watched.heartbeat.tick(slept, NOTHING), Action::Ask);
        watched.expect(&[(NOTHING, 3610, Action::GiveUp)]);
        // A little late is no excuse.
        let mut watched = Watched::new(0);
        watched.expect(&[(NOTHING, 30, Action::Ask)]);
        let late = watched.begin + Duration::from_secs(45);
        assert_eq!(watched.heartbeat.tick(late, NOTHING), Action::GiveUp);
    }

    #[test]
    fn a_ping_that_could_not_be_sent_is_not_missed() {
        let mut watched = Watched::new(0);
        for at in [30, 60, 90] {
            watched.expect(&[(NOTHING, at, Action::Ask)]);
            watched
                .heartbeat
                .not_asked(watched.begin + Duration::from_secs(at));
        }
    }

    #[test]
    fn no_setting_overflows() {
        let health = Health::default()
            .interval(Duration::MAX)
            .timeout(Duration::MAX);
        let mut watched = Watched::with(health);
        assert_eq!(watched.next(NOTHING).1, Action::Ask);
        assert_eq!(watched.next(HEARD).1, Action::None);
    }
}
