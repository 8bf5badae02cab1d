//! Connections in a plugin's name that are refused: why, how often, and reporting that in the plugin's log.
//! `listener` and `attach` decide which are refused.
//!
//! Tokens that were good once are known by their digests, in memory alone: enough to tell a plugin that
//! reconnects with a spent token from a peer that guesses. Only the plugin's log and counters show the
//! difference, never the answer to the refused peer.

use std::collections::HashMap;
use std::fmt;
use std::mem::{self, Discriminant};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::counters::LiveCounters;
use super::shared::SharedSession;
use crate::auth::TokenDigest;
use crate::state::ReportedState;
use crate::store::Record;

/// A reason is reported at most once in this time, so that a peer that keeps trying does not fill the log.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Why a connection that names a plugin is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    /// Its token was the plugin's, and is spent or replaced.
    SpentToken,
    /// Its token is not the plugin's, or the plugin is not the one it names besides.
    WrongToken,
    /// It does not ask for a WebSocket; the text says what is missing.
    Malformed(&'static str),
    /// The plugin is not wanted, not started, or going away.
    NotWanted(ReportedState),
    /// The plugin has a connection.
    AlreadyConnected,
    /// The host shuts down.
    ShuttingDown,
}

impl RefusalReason {
    fn counter(self, counters: &LiveCounters) -> &AtomicU64 {
        match self {
            Self::SpentToken => &counters.refused_spent_token,
            Self::WrongToken => &counters.refused_wrong_token,
            Self::Malformed(_) => &counters.refused_malformed,
            Self::NotWanted(_) => &counters.refused_not_wanted,
            Self::AlreadyConnected => &counters.refused_already_connected,
            Self::ShuttingDown => &counters.refused_shutting_down,
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpentToken => f.write_str("its token is spent or was rotated"),
            Self::WrongToken => f.write_str("its token is wrong, or another plugin's"),
            Self::Malformed(problem) => f.write_str(problem),
            Self::NotWanted(state) => write!(f, "the plugin is not wanted now; it is {state}"),
            Self::AlreadyConnected => f.write_str("the plugin is already connected"),
            Self::ShuttingDown => f.write_str("the host is shutting down"),
        }
    }
}

/// What one session keeps of refused connections.
#[derive(Default)]
pub(super) struct Refusals(Mutex<RefusalLog>);

#[derive(Default)]
struct RefusalLog {
    tokens: Tokens,
    reported: HashMap<Discriminant<RefusalReason>, ReportTimes>,
}

/// The last two tokens that were the plugin's. The newer may be good still.
#[derive(Default)]
struct Tokens {
    newest: Option<TokenDigest>,
    former: Option<TokenDigest>,
}

impl Tokens {
    fn add(&mut self, token: TokenDigest) {
        if self.newest != Some(token) {
            self.former = self.newest.replace(token);
        }
    }

    fn has(&self, token: TokenDigest) -> bool {
        [self.newest, self.former].contains(&Some(token))
    }
}

/// When a reason was last reported, and how many refusals there were since.
#[derive(Clone, Copy, Default)]
struct ReportTimes {
    at: Option<Instant>,
    since: u64,
}

impl ReportTimes {
    /// Counts one more. Returns how many there are to report, if it is time for that.
    fn add(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        let is_due = self.at.is_none_or(|at| now >= at + REPORT_INTERVAL);
        is_due.then(|| {
            self.at = Some(now);
            mem::take(&mut self.since)
        })
    }
}

impl SharedSession {
    /// Remembers a token as the plugin's.
    pub(crate) fn learn_token(&self, token: TokenDigest) {
        self.refusals.0.lock().tokens.add(token);
    }

    /// [`learn_token`](Self::learn_token) for the token of this record, if it has one.
    pub(super) fn learn_token_of(&self, record: &Record) {
        if let Some(digest) = record.kind.token_digest() {
            self.learn_token(digest);
        }
    }

    /// Returns whether this token is one of the last two that were the plugin's.
    pub(crate) fn knew_token(&self, token: TokenDigest) -> bool {
        self.refusals.0.lock().tokens.has(token)
    }

    /// Returns why a token that does not count is refused.
    pub(crate) fn judge_refused_token(&self, token: TokenDigest) -> RefusalReason {
        if self.knew_token(token) {
            RefusalReason::SpentToken
        } else {
            RefusalReason::WrongToken
        }
    }

    /// Counts a refusal. Called before the answer is sent.
    pub(crate) fn count_refusal(&self, reason: RefusalReason) {
        let counter = reason.counter(&self.counters);
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Reports a refusal with this status, unless its reason was reported just before: in the plugin's log,
    /// which its own thread writes, or in the host's if the plugin's has no writer. Never waits for the disk.
    pub(crate) fn report_refusal(&self, reason: RefusalReason, status: u16, address: &str) {
        let kind = mem::discriminant(&reason);
        let told = {
            let mut refusals = self.refusals.0.lock();
            let told = refusals.reported.entry(kind).or_default();
            told.add(Instant::now())
        };
        let Some(count) = told else { return };
        let since = match count {
            1 => String::new(),
            _ => format!(", {count} times since it was last reported"),
        };
        // The peer, and so its address, may be gone already.
        let from = if address.is_empty() { "" } else { " from " };
        let text =
            format!("a connection{from}{address} was refused with {status}: {reason}{since}");
        let log = self.log.lock().clone();
        if !log.is_some_and(|log| log.note(&text)) {
            log::warn!("plugin {}: {text}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{SealedToken, Secret};
    use crate::id::InstallationId;

    #[test]
    fn a_reason_is_told_at_once_and_then_once_a_minute_with_the_number_since() {
        let mut told = ReportTimes::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(told.add(at(0)), Some(1));
        assert_eq!(told.add(at(1)), None);
        assert_eq!(told.add(at(59)), None);
        assert_eq!(told.add(at(60)), Some(3));
        assert_eq!(told.add(at(61)), None);
        assert_eq!(told.add(at(3600)), Some(2));
        assert_eq!(told.add(at(7200)), Some(1));
    }

    #[test]
    fn the_last_two_tokens_are_known() {
        let token = || {
            let secret = Secret::generate().unwrap();
            let sealed = SealedToken::seal(&secret, InstallationId::generate());
            sealed.unwrap().digest()
        };
        let (first, second, third) = (token(), token(), token());
        let mut tokens = Tokens::default();
        assert!(!tokens.has(first));
        tokens.add(first);
        tokens.add(second);
        // Found again, which is nothing new.
        tokens.add(second);
        assert!(tokens.has(first) && tokens.has(second) && !tokens.has(third));
        tokens.add(third);
        assert!(!tokens.has(first) && tokens.has(second) && tokens.has(third));
    }
}
