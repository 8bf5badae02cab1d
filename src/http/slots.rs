//! The slots of one port: how many connections it serves, and which one makes room for a new one when all
//! slots are taken.
//!
//! **The connection that has waited longest for a whole request head makes room**: idle between two
//! requests, silent from the start, or slow. A client sends its request at once, so one that has not done so
//! while as many others came as there are slots has nothing to say, is slow, or is hostile. Refusing the new
//! connection instead would let a handful of silent ones lock everyone out for a whole timeout, and a
//! supervised plugin that is refused never retries
//! ([Refused or disconnected](crate::protocol#refused-or-disconnected)).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::duplex::websocket::Socket;

pub(crate) struct Slots {
    limit: usize,
    /// What takes them, for the log line.
    what: &'static str,
    taken: Mutex<TakenSlots>,
}

#[derive(Default)]
struct TakenSlots {
    next: u64,
    /// Connections that wait for a whole request head, longest first.
    waiting: BTreeMap<u64, Arc<Socket>>,
    /// Connections with a request; they keep their slots.
    busy: usize,
    /// Connections whose slots were given away, and whose threads have not ended yet. At most as many as
    /// there are slots, so that threads stay bounded however fast connections come.
    leaving: usize,
    /// Whether it was logged that all slots are taken.
    is_full_logged: bool,
}

/// A slot, freed when dropped.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    number: u64,
    is_kept: bool,
}

impl Slots {
    /// Returns so many slots. `what` takes them, in the plural, for a log line.
    pub(crate) fn new(limit: usize, what: &'static str) -> Arc<Self> {
        Arc::new(Self {
            limit,
            what,
            taken: Mutex::default(),
        })
    }

    /// Takes a slot for the connection of this socket; `None` when no other can make room. Never blocks.
    pub(crate) fn take(self: &Arc<Self>, socket: &Arc<Socket>) -> Option<Slot> {
        let mut taken = self.taken.lock();
        let is_full = taken.waiting.len() + taken.busy >= self.limit;
        let first_time = is_full && !std::mem::replace(&mut taken.is_full_logged, true);
        let oldest = if !is_full {
            Ok(None)
        } else if taken.leaving >= self.limit {
            Err(())
        } else {
            taken.waiting.pop_first().map(Some).ok_or(())
        };
        let slot = oldest.map(|oldest| {
            taken.leaving += usize::from(oldest.is_some());
            taken.next += 1;
            let number = taken.next;
            taken.waiting.insert(number, socket.clone());
            let slot = Slot {
                slots: self.clone(),
                number,
                is_kept: false,
            };
            (slot, oldest)
        });
        drop(taken);
        if first_time {
            log::warn!(
                "{} {} are in progress, the limit; the oldest with an incomplete request makes room",
                self.limit,
                self.what
            );
        }
        let (slot, oldest) = slot.ok()?;
        if let Some((_, socket)) = oldest {
            // Wakes its thread, which finds its slot lost.
            socket.end_reading();
        }
        Some(slot)
    }

    /// Returns how many connections wait for a whole request head.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.taken.lock().waiting.len()
    }
}

impl Slot {
    /// Whether the slot was given to another connection before the request was complete.
    pub(crate) fn is_lost(&self) -> bool {
        !self.is_kept && !self.slots.taken.lock().waiting.contains_key(&self.number)
    }

    /// Keeps the slot while a request is served, whose head is complete now. Returns false when it is lost.
    pub(crate) fn keep(&mut self) -> bool {
        let mut taken = self.slots.taken.lock();
        self.is_kept = taken.waiting.remove(&self.number).is_some();
        taken.busy += usize::from(self.is_kept);
        self.is_kept
    }

    /// Begins to wait for the next request: the slot that was kept can be given to another connection.
    pub(crate) fn wait_again(&mut self, socket: &Arc<Socket>) {
        if !std::mem::take(&mut self.is_kept) {
            return;
        }
        let mut taken = self.slots.taken.lock();
        taken.busy -= 1;
        taken.next += 1;
        self.number = taken.next;
        taken.waiting.insert(self.number, socket.clone());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock();
        if self.is_kept {
            taken.busy -= 1;
        } else if taken.waiting.remove(&self.number).is_none() {
            taken.leaving -= 1;
        }
        if taken.waiting.is_empty() && taken.busy == 0 && taken.leaving == 0 {
            taken.is_full_logged = false;
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
        let slots = Slots::new(2, "tests");
        let (decided, _far) = connection();
        let mut decided = slots.take(&decided).unwrap();
        assert!(decided.keep());
        let (slow, _far) = connection();
        let mut lost = slots.take(&slow).unwrap();
        let (quick, _far) = connection();
        let mut newcomer = slots.take(&quick).unwrap();
        assert!(lost.is_lost() && !lost.keep());
        assert_eq!(slow.read(&mut [0]).unwrap(), 0, "its reader is not woken");
        assert!(!newcomer.is_lost() && newcomer.keep());
        // No other is left that could make room.
        let (late, _far) = connection();
        assert!(slots.take(&late).is_none());
        drop(decided);
        assert!(slots.take(&late).is_some());
    }

    #[test]
    fn the_one_that_has_waited_longest_makes_room_whenever_it_came() {
        let slots = Slots::new(2, "tests");
        let (first, _far) = connection();
        let (second, _far) = connection();
        let (third, _far) = connection();
        let mut early = slots.take(&first).unwrap();
        let late = slots.take(&second).unwrap();
        assert!(early.keep());
        early.wait_again(&first);
        let _newcomer = slots.take(&third).unwrap();
        assert!(late.is_lost() && !early.is_lost());
        assert!(early.keep());
        drop(early);
        drop(late);
        assert_eq!(slots.taken.lock().waiting.len(), 1);
    }

    #[test]
    fn those_that_leave_are_bounded_too() {
        let slots = Slots::new(2, "tests");
        let (socket, _far) = connection();
        let taken: Vec<_> = (0..4).map(|_| slots.take(&socket).unwrap()).collect();
        assert!(slots.take(&socket).is_none(), "two slots, two that leave");
        drop(taken);
        let all: Vec<_> = (0..4).map(|_| slots.take(&socket).unwrap()).collect();
        drop(all);
        let taken = slots.taken.lock();
        assert_eq!((taken.waiting.len(), taken.busy, taken.leaving), (0, 0, 0));
        assert!(!taken.is_full_logged);
    }

    #[test]
    fn a_lost_slot_does_not_silence_its_peer() {
        let slots = Slots::new(1, "tests");
        let (socket, mut far) = connection();
        let lost = slots.take(&socket).unwrap();
        let _newcomer = slots.take(&socket).unwrap();
        assert!(lost.is_lost());
        // Only reading has ended: there is a refusal to be written.
        let soon = crate::deadline::Deadline::after(std::time::Duration::from_secs(30));
        socket.write_within(b"busy", soon).unwrap();
        let mut answer = [0; 4];
        far.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"busy");
    }
}
