//! The places for handshakes of one listener: how many may be in progress, and who makes room for a
//! newcomer when all are taken.
//!
//! **The oldest whose request is not whole makes room.** A plugin sends its request at once, so one
//! that is still without a whole one when as many others have come as there are places is slow, or
//! up to no good. Refusing the newcomer instead would let a handful of silent connections lock every
//! plugin out for the whole handshake timeout, and a supervised plugin that is refused never tries
//! again (protocol file, section 7).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::duplex::websocket::Socket;

pub(super) struct Places {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    /// Those whose request is not whole, oldest first.
    reading: BTreeMap<u64, Arc<Socket>>,
    /// Those that are being decided on; they keep their places.
    deciding: usize,
    /// Those whose places were given away, and whose threads have not ended yet. As many as there are
    /// places at most, so that threads stay bounded however fast connections come.
    leaving: usize,
    /// It was said that all places are taken.
    told: bool,
}

/// A place. Dropping it gives it back.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    is_kept: bool,
}

impl Places {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            inner: Mutex::default(),
        })
    }

    /// A place for the handshake on this socket; nothing when nobody can make room. Never blocks.
    pub(super) fn take(self: &Arc<Self>, socket: &Arc<Socket>) -> Option<Place> {
        let mut inner = self.inner.lock();
        let is_full = inner.reading.len() + inner.deciding >= self.limit;
        let first_time = is_full && !std::mem::replace(&mut inner.told, true);
        let oldest = if !is_full {
            Ok(None)
        } else if inner.leaving >= self.limit {
            Err(())
        } else {
            inner.reading.pop_first().map(Some).ok_or(())
        };
        let place = oldest.map(|oldest| {
            inner.leaving += usize::from(oldest.is_some());
            inner.next += 1;
            let number = inner.next;
            inner.reading.insert(number, socket.clone());
            let place = Place {
                places: self.clone(),
                number,
                is_kept: false,
            };
            (place, oldest)
        });
        drop(inner);
        if first_time {
            log::warn!(
                "{} handshakes are in progress, the limit; whose request is not whole makes room",
                self.limit
            );
        }
        let (place, oldest) = place.ok()?;
        if let Some((_, socket)) = oldest {
            // Wakes its thread, which finds its place gone.
            socket.end_reading();
        }
        Some(place)
    }
}

impl Place {
    /// Whether the place was given to another before the request was whole.
    pub(super) fn is_lost(&self) -> bool {
        !self.is_kept && !self.places.inner.lock().reading.contains_key(&self.number)
    }

    /// The request is whole: from now on the place is kept to the end. False when it is lost.
    pub(super) fn keep(&mut self) -> bool {
        let mut inner = self.places.inner.lock();
        self.is_kept = inner.reading.remove(&self.number).is_some();
        inner.deciding += usize::from(self.is_kept);
        self.is_kept
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.places.inner.lock();
        if self.is_kept {
            inner.deciding -= 1;
        } else if inner.reading.remove(&self.number).is_none() {
            inner.leaving -= 1;
        }
        if inner.reading.is_empty() && inner.deciding == 0 && inner.leaving == 0 {
            inner.told = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Our end of a connection, and the other.
    fn connection() -> (Arc<Socket>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(ours.into()), theirs)
    }

    #[test]
    fn the_oldest_without_a_whole_request_makes_room() {
        let places = Places::new(2);
        let (decided, _far) = connection();
        let mut decided = places.take(&decided).unwrap();
        assert!(decided.keep());
        let (slow, _far) = connection();
        let mut lost = places.take(&slow).unwrap();
        let (quick, _far) = connection();
        let mut newcomer = places.take(&quick).unwrap();
        assert!(lost.is_lost() && !lost.keep());
        assert_eq!(slow.read(&mut [0]).unwrap(), 0, "its reader is not woken");
        assert!(!newcomer.is_lost() && newcomer.keep());
        // Nobody is left who could make room.
        let (late, _far) = connection();
        assert!(places.take(&late).is_none());
        drop(decided);
        assert!(places.take(&late).is_some());
    }

    #[test]
    fn those_that_leave_are_bounded_too() {
        let places = Places::new(2);
        let (socket, _far) = connection();
        let taken: Vec<_> = (0..4).map(|_| places.take(&socket).unwrap()).collect();
        assert!(places.take(&socket).is_none(), "two places, two that leave");
        drop(taken);
        let all: Vec<_> = (0..4).map(|_| places.take(&socket).unwrap()).collect();
        drop(all);
        let inner = places.inner.lock();
        assert_eq!(
            (inner.reading.len(), inner.deciding, inner.leaving),
            (0, 0, 0)
        );
        assert!(!inner.told);
    }

    #[test]
    fn a_lost_place_does_not_silence_its_peer() {
        let places = Places::new(1);
        let (socket, mut far) = connection();
        let lost = places.take(&socket).unwrap();
        let _newcomer = places.take(&socket).unwrap();
        assert!(lost.is_lost());
        // Only reading has ended: there is a refusal to be written.
        let soon = crate::deadline::Deadline::after(std::time::Duration::from_secs(30));
        socket.write_within(b"busy", soon).unwrap();
        let mut answer = [0; 4];
        far.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"busy");
    }
}
