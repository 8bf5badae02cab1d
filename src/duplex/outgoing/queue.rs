//! What waits to be written: data frames in order, the line of callers that wait for room, and the few
//! control frames that go ahead of both. Plain data; locks and threads are not here.

use std::collections::VecDeque;

use crate::duplex::Ticket;

/// Posts that may wait, in frames and in bytes.
const POSTS: usize = 8 * 1024;
const POST_BYTES: usize = 1024 * 1024;

/// Data frames, whole and not begun, in the order of their tickets.
#[derive(Default)]
pub(super) struct FrameQueue {
    frames: VecDeque<Frame>,
    bytes: usize,
    last_ticket: u64,
    /// Callers that wait for room, in the order in which they came. Only the first may enter, so
    /// that a large message is not overtaken forever by small ones.
    line: VecDeque<u64>,
    last_place: u64,
}

/// One frame, encoded.
pub(super) struct Frame {
    pub(super) ticket: Ticket,
    pub(super) bytes: Vec<u8>,
}

impl FrameQueue {
    /// Returns whether a frame of this length may enter now. A frame larger than the limit enters an
    /// empty queue.
    pub(super) fn admits(&self, length: usize, limit: usize, place: Option<u64>) -> bool {
        self.line.front().copied() == place
            && (self.frames.is_empty() || self.bytes.saturating_add(length) <= limit)
    }

    /// Takes a place in the line for room.
    pub(super) fn join_line(&mut self) -> u64 {
        self.last_place += 1;
        self.line.push_back(self.last_place);
        self.last_place
    }

    /// Leaves the line, whether served or not.
    pub(super) fn leave_line(&mut self, place: u64) {
        self.line.retain(|other| *other != place);
    }

    pub(super) fn push(&mut self, bytes: Vec<u8>) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.bytes += bytes.len();
        self.frames.push_back(Frame { ticket, bytes });
        ticket
    }

    /// Takes a frame back out; false when it is no longer here.
    pub(super) fn remove(&mut self, ticket: Ticket) -> bool {
        let found = self
            .frames
            .binary_search_by_key(&ticket.0, |frame| frame.ticket.0);
        let Some(frame) = found.ok().and_then(|index| self.frames.remove(index)) else {
            return false;
        };
        self.bytes -= frame.bytes.len();
        true
    }

    /// Moves frames into `into` until those make up `target` bytes; at least one, if there is one.
    pub(super) fn take(&mut self, into: &mut Vec<Frame>, target: usize) {
        let mut total = 0;
        while let Some(next) = self.frames.front() {
            if total > 0 && total + next.bytes.len() > target {
                break;
            }
            total += next.bytes.len();
            self.bytes -= next.bytes.len();
            into.extend(self.frames.pop_front());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }
}

/// Frames from the reading thread and about the connection itself. Bounded: there is one place for
/// a pong and one for a ping, and the posts have two limits.
#[derive(Default)]
pub(super) struct ControlQueue {
    pong: Option<Vec<u8>>,
    ping: Option<Vec<u8>>,
    posts: VecDeque<Vec<u8>>,
    post_bytes: usize,
}

impl ControlQueue {
    /// Replaces a pong that has not gone out: the newest answers all the pings before it.
    pub(super) fn set_pong(&mut self, frame: Vec<u8>) {
        self.pong = Some(frame);
    }

    pub(super) fn set_ping(&mut self, frame: Vec<u8>) {
        self.ping = Some(frame);
    }

    /// Queues a post; false when the queue is full. A post of any size enters an empty queue.
    #[must_use]
    pub(super) fn post(&mut self, frame: Vec<u8>) -> bool {
        let bytes = self.post_bytes.saturating_add(frame.len());
        if self.posts.len() >= POSTS || (!self.posts.is_empty() && bytes > POST_BYTES) {
            return false;
        }
        self.post_bytes = bytes;
        self.posts.push_back(frame);
        true
    }

    /// Moves everything into `into`; pongs first, because the peer may be timing them.
    pub(super) fn take(&mut self, into: &mut Vec<Frame>) {
        let ahead = self.pong.take().into_iter().chain(self.ping.take());
        let frames = ahead.chain(self.posts.drain(..)).map(|bytes| Frame {
            ticket: Ticket(0),
            bytes,
        });
        into.extend(frames);
        self.post_bytes = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pong.is_none() && self.ping.is_none() && self.posts.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(queue: &mut FrameQueue, target: usize) -> Vec<u64> {
        let mut frames = Vec::new();
        queue.take(&mut frames, target);
        frames.iter().map(|frame| frame.ticket.0).collect()
    }

    #[test]
    fn frames_leave_in_order_and_never_in_pieces() {
        let mut queue = FrameQueue::default();
        for length in [10, 10, 500, 10] {
            queue.push(vec![0; length]);
        }
        assert_eq!(taken(&mut queue, 100), [1, 2]);
        // Larger than the target, so it goes alone.
        assert_eq!(taken(&mut queue, 100), [3]);
        assert_eq!(taken(&mut queue, 100), [4]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_frame_is_withdrawn_once_and_only_while_it_waits() {
        let mut queue = FrameQueue::default();
        let first = queue.push(vec![0; 10]);
        let second = queue.push(vec![0; 10]);
        let third = queue.push(vec![0; 10]);
        assert_eq!(taken(&mut queue, 10), [1]);
        assert!(!queue.remove(first));
        assert!(queue.remove(second));
        assert!(!queue.remove(second));
        assert_eq!(taken(&mut queue, 100), [3]);
        assert!(!queue.remove(third));
        assert!(queue.admits(100, 100, None));
    }

    #[test]
    fn a_large_frame_is_not_overtaken_while_it_waits_for_room() {
        let mut queue = FrameQueue::default();
        queue.push(vec![0; 60]);
        assert!(queue.admits(40, 100, None));
        assert!(!queue.admits(1_000, 100, None));
        let place = queue.join_line();
        assert!(!queue.admits(40, 100, None), "there is a line");
        taken(&mut queue, 1);
        assert!(queue.admits(1_000, 100, Some(place)));
        queue.leave_line(place);
        assert!(queue.admits(40, 100, None));
    }

    #[test]
    fn posts_are_bounded_in_number_and_in_bytes() {
        let mut control = ControlQueue::default();
        assert!(control.post(vec![0; 2 * POST_BYTES]), "the queue was empty");
        assert!(!control.post(vec![0; 1]));
        control.clear();
        for _ in 0..POSTS {
            assert!(control.post(vec![0; 10]));
        }
        assert!(!control.post(vec![0; 10]));
        // Pings and pongs have places of their own.
        control.set_pong(vec![1]);
        control.set_pong(vec![2]);
        let mut frames = Vec::new();
        control.take(&mut frames);
        assert_eq!(frames.len(), POSTS + 1);
        assert_eq!(frames[0].bytes, [2]);
        assert!(control.is_empty());
    }
}
