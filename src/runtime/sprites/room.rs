//! `Room`: memory for files that are being uploaded, shared by all deployments of a host.

use std::time::Duration;

use parking_lot::Mutex;

use super::interrupt::Within;
use crate::error::SpritesProblem;

/// The most bytes at once: eight of the largest files that the service takes.
pub(super) const MOST: u64 = 128 * 1024 * 1024;

/// Files up to here need none: what others of them take is little, and a sprite that keeps uploads waiting does not
/// hold up small plugins on others.
const SMALL: u64 = 1024 * 1024;

/// The wait before it is looked again whether there is room.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
pub(super) struct Room(Mutex<u64>);

/// A part of it, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    room: &'a Room,
    bytes: u64,
}

impl Room {
    /// Takes so many bytes, or all there are if that is less; waits until they are there. A small file takes none.
    ///
    /// # Errors
    /// Those of [`Within::check`].
    pub(super) fn take(&self, bytes: u64, within: Within<'_>) -> Result<Taken<'_>, SpritesProblem> {
        let bytes = if bytes > SMALL { bytes.min(MOST) } else { 0 };
        loop {
            {
                let mut taken = self.0.lock();
                if *taken + bytes <= MOST {
                    *taken += bytes;
                    return Ok(Taken { room: self, bytes });
                }
            }
            within.pause(LOOK)?;
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.room.0.lock() -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::interrupt::Interrupt;
    use crate::testing::{LONG, assert_matches};

    #[test]
    fn what_does_not_fit_waits_until_there_is_room_or_it_is_cancelled() {
        let (room, interrupt) = (Room::default(), Interrupt::new().unwrap());
        let within = |limit| Within::new(limit, &interrupt);
        let large = SMALL + 1;
        let most = room.take(MOST - large, within(LONG)).unwrap();
        let least = room.take(large, within(LONG)).unwrap();
        let _small = room.take(SMALL, within(LONG)).unwrap();
        let short = within(Duration::from_millis(50));
        let full = room.take(large, short);
        assert_matches!(full, Err(SpritesProblem::Timeout { .. }));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| room.take(u64::MAX, within(LONG)).map(drop));
            drop(most);
            // Not enough for that one.
            drop(room.take(MOST - large, within(LONG)).unwrap());
            drop(least);
            waiting.join().unwrap().unwrap();
        });
        let _all = room.take(MOST, within(LONG)).unwrap();
        interrupt.cancel();
        let cancelled = room.take(large, within(LONG));
        assert_matches!(cancelled, Err(SpritesProblem::Cancelled));
    }
}
