//! Which sprites a sweep deletes: a pure decision, which is told what there is and what time it is.
//!
//! A sprite is deleted only if its installation was missing in the store at two looks at least [`PERIOD`] apart
//! and at every look in between. At most [`MOST`] go at one look, those that were missing first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::id::InstallationId;

/// The time between two looks.
pub(super) const PERIOD: Duration = Duration::from_secs(600);

/// The most sprites that are deleted after one look.
pub(super) const MOST: usize = 5;

/// Since when the installations of sprites are missing, by a clock that cannot be set.
#[derive(Debug, Default)]
pub(super) struct Sightings(BTreeMap<InstallationId, Instant>);

impl Sightings {
    /// Takes in what there is now; returns whose sprites are to be deleted. One that is still there at the next
    /// look comes up again.
    pub(super) fn look(
        &mut self,
        listed: &BTreeSet<InstallationId>,
        installed: &BTreeSet<InstallationId>,
        now: Instant,
    ) -> Vec<InstallationId> {
        self.0.retain(|id, _| listed.contains(id));
        for id in listed {
            if installed.contains(id) {
                self.0.remove(id);
            } else {
                self.0.entry(*id).or_insert(now);
            }
        }
        let mut due: Vec<_> = self
            .0
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(**since) >= PERIOD)
            .map(|(id, since)| (*since, *id))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).take(MOST).collect()
    }

    /// Begins anew with this installation.
    pub(super) fn forget(&mut self, id: InstallationId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ids<const N: usize>() -> [InstallationId; N] {
        let mut ids = [(); N].map(|()| InstallationId::generate());
        // The counter in them may have begun anew.
        ids.sort_unstable();
        ids
    }

    fn set(ids: &[InstallationId]) -> BTreeSet<InstallationId> {
        ids.iter().copied().collect()
    }

    #[test]
    fn what_is_missing_at_two_looks_far_enough_apart_goes_and_nothing_else() {
        let [missing, installed] = ids();
        let listed = set(&[missing, installed]);
        let kept = set(&[installed]);
        let (mut sightings, start) = (Sightings::default(), Instant::now());
        for after in [Duration::ZERO, SECOND, Duration::from_secs(599)] {
            assert_eq!(sightings.look(&listed, &kept, start + after), []);
        }
        assert_eq!(sightings.look(&listed, &kept, start + PERIOD), [missing]);
        // It could not be deleted.
        let later = start + PERIOD + SECOND;
        assert_eq!(sightings.look(&listed, &kept, later), [missing]);
        assert_eq!(sightings.look(&kept, &kept, later), []);
    }

    #[test]
    fn a_first_look_decides_nothing_however_late_it_is() {
        let [missing] = ids();
        let earlier = Instant::now();
        let later = earlier + 100 * PERIOD;
        let mut sightings = Sightings::default();
        assert_eq!(sightings.look(&set(&[missing]), &set(&[]), later), []);
        // An earlier time than before is no time at all.
        assert_eq!(sightings.look(&set(&[missing]), &set(&[]), earlier), []);
    }

    #[test]
    fn a_record_or_a_sprite_that_comes_and_goes_between_the_looks_begins_anew() {
        let [id] = ids();
        let (all, none) = (set(&[id]), set(&[]));
        for (listed, installed) in [(&all, &all), (&none, &none)] {
            let (mut sightings, start) = (Sightings::default(), Instant::now());
            assert_eq!(sightings.look(&all, &none, start), []);
            assert_eq!(sightings.look(listed, installed, start + PERIOD / 2), []);
            assert_eq!(sightings.look(&all, &none, start + PERIOD), []);
            let last = start + 2 * PERIOD;
            assert_eq!(sightings.look(&all, &none, last), [id]);
        }
    }

    #[test]
    fn a_few_go_at_a_time_those_first_that_were_missing_first() {
        let late: [_; 4] = ids();
        let early: [_; 7] = ids();
        let (mut sightings, start) = (Sightings::default(), Instant::now());
        let none = set(&[]);
        assert_eq!(sightings.look(&set(&early), &none, start), []);
        let all: BTreeSet<_> = early.into_iter().chain(late).collect();
        assert_eq!(sightings.look(&all, &none, start + SECOND), []);
        let end = start + 2 * PERIOD;
        assert_eq!(sightings.look(&all, &none, end), early[..5]);
        let rest: BTreeSet<_> = all.difference(&set(&early[..5])).copied().collect();
        let expected = [early[5], early[6], late[0], late[1], late[2]];
        assert_eq!(sightings.look(&rest, &none, end), expected);
    }
}
