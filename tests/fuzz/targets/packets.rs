//! A stream whose reader gets exactly the pieces that were written, so that one thread can test
//! every way of cutting the same bytes.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

/// Each piece costs several system calls, and many more would fill the socket, which nobody is
/// reading yet.
const MOST_PIECES: usize = 32;

/// Gives the reading end of a connection on which these bytes have arrived in pieces, and the
/// other end, whose writing direction is closed.
pub(crate) fn arrived(bytes: &[u8], cut: Cut) -> (OwnedFd, OwnedFd) {
    let kind = match cut {
        Cut::Whole => SocketType::STREAM,
        // Keeps the borders of what was written.
        Cut::Pieces(_) => SocketType::SEQPACKET,
    };
    let flags = SocketFlags::CLOEXEC;
    let (reader, writer) =
        rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None).expect("socket pair");
    let piece = match cut {
        Cut::Whole => bytes.len().max(1),
        Cut::Pieces(length) => length.max(1).max(bytes.len().div_ceil(MOST_PIECES)),
    };
    for piece in bytes.chunks(piece) {
        let sent = rustix::net::send(&writer, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        assert_eq!(sent, Ok(piece.len()), "the input fits the socket");
    }
    rustix::net::shutdown(&writer, rustix::net::Shutdown::Write).expect("shutdown");
    (reader, writer)
}

/// How bytes are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Not at all.
    Whole,
    /// Into pieces of so many bytes.
    Pieces(usize),
}

impl From<u8> for Cut {
    /// The cut that a byte of the input stands for.
    fn from(byte: u8) -> Self {
        match byte.checked_sub(64) {
            None => Self::Whole,
            Some(length) => Self::Pieces(usize::from(length) + 1),
        }
    }
}
