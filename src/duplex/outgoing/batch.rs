//! The batch: bytes that have been begun. They are written to the end, by whichever thread has the role of
//! the writer, or the connection ends.

use std::time::Instant;

use super::queue::Frame;
use crate::duplex::Ticket;

/// Buffers larger than this are not kept for the next batch.
const KEPT: usize = 64 * 1024;

/// Begun bytes, contiguous, so that one system call can take many frames.
#[derive(Default)]
pub(super) struct FrameBatch {
    bytes: Vec<u8>,
    position: usize,
    /// When the transport stopped taking bytes; none while it takes them.
    pub(super) blocked_since: Option<Instant>,
    /// This batch is the close: nothing follows it.
    pub(super) last: bool,
}

impl FrameBatch {
    /// Starts over with these frames, leaving `frames` empty. Returns where the frame with the ticket `mine`
    /// ends.
    ///
    /// A single frame is taken as it is; several are copied together.
    pub(super) fn fill(
        &mut self,
        frames: &mut Vec<Frame>,
        mine: Option<Ticket>,
        last: bool,
    ) -> Option<usize> {
        self.position = 0;
        self.blocked_since = None;
        self.last = last;
        let is_mine = |frame: &Frame| mine == Some(frame.ticket);
        if frames.len() == 1 {
            let frame = frames.pop()?;
            let end = is_mine(&frame).then_some(frame.bytes.len());
            self.bytes = frame.bytes;
            return end;
        }
        let mut end = None;
        self.bytes.clear();
        self.bytes
            .reserve(frames.iter().map(|frame| frame.bytes.len()).sum());
        for frame in frames.drain(..) {
            self.bytes.extend_from_slice(&frame.bytes);
            if is_mine(&frame) {
                end = Some(self.bytes.len());
            }
        }
        end
    }

    /// Returns what has not been written yet.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// Notes that the transport took this many bytes.
    pub(super) fn advance(&mut self, count: usize) {
        self.position += count;
        self.blocked_since = None;
    }

    /// Returns how many bytes have been written.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn is_done(&self) -> bool {
        self.position >= self.bytes.len()
    }

    /// Frees a large buffer; for when nothing more is to be written for now.
    pub(super) fn shrink(&mut self) {
        if self.is_done() && self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
            self.position = 0;
        }
    }
}
