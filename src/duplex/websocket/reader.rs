//! The reading half of a WebSocket.
//!
//! tungstenite decodes; it sees the socket through an [`ReadOnlyStream`], which reads and never writes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tungstenite::Message as Frame;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::{Role as Side, WebSocket, WebSocketConfig};

use super::read_only_stream::ReadOnlyStream;
use super::{Role, Socket, frame};
use crate::duplex::halves::{OwnReader, beginning};
use crate::duplex::outgoing::Outgoing;
use crate::duplex::{DuplexReader, DuplexSettings, Message, Received, WaitPolicy, close_code};
use crate::error::Disconnect;

/// Bytes read from the socket at a time. Each connection owns such a buffer for as long as it
/// lives; longer messages grow it while they are read.
const READ_BUFFER: usize = 8 * 1024;

pub(in crate::duplex) struct WebSocketReader {
    frames: WebSocket<ReadOnlyStream>,
    outgoing: Outgoing<Socket>,
    role: Role,
    limit: usize,
    /// What a timed read left to the next blocking one, because handling it may take longer.
    left: Option<Result<Frame, Error>>,
}

impl WebSocketReader {
    pub(super) fn new(
        outgoing: Outgoing<Socket>,
        role: Role,
        already_read: Vec<u8>,
        settings: &DuplexSettings,
    ) -> Self {
        let configuration = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(settings.inbound_message))
            .max_frame_size(Some(settings.inbound_message));
        let side = match role {
            Role::Server => Side::Server,
            Role::Client => Side::Client,
        };
        let stream = ReadOnlyStream::new(outgoing.clone());
        let frames =
            WebSocket::from_partially_read(stream, already_read, side, Some(configuration));
        Self {
            frames,
            outgoing,
            role,
            limit: settings.inbound_message,
            left: None,
        }
    }

    /// Returns what a frame that is not the last means.
    fn received(&self, frame: Frame) -> Received {
        match frame {
            // Copied: the frame is a piece of the buffer that it was read into, which a message kept
            // for long would keep with it, however large the one before it was.
            Frame::Text(text) => Received::Message(Message::from(text.as_str())),
            Frame::Ping(payload) => {
                self.outgoing.pong(frame::pong(self.role, &payload));
                Received::Alive
            }
            Frame::Binary(payload) => Received::Binary {
                bytes: payload.len(),
                beginning: beginning(&payload),
            },
            Frame::Pong(_) | Frame::Close(_) | Frame::Frame(_) => Received::Alive,
        }
    }

    /// Turns the end of the frames into the cause, and tells the peer if that was its fault.
    fn ended(&self, error: Error) -> Disconnect {
        let (cause, code) = match error {
            Error::Capacity(_) => {
                let limit = self.limit;
                (Disconnect::TooLarge { limit }, close_code::TOO_LARGE)
            }
            Error::Utf8(_) => (Disconnect::NotUtf8, close_code::NOT_UTF8),
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                return self.finished(Disconnect::Lost);
            }
            Error::Io(error) => return self.finished(error.into()),
            other => {
                let text = other.to_string();
                (
                    Disconnect::Violation(text.into()),
                    close_code::PROTOCOL_ERROR,
                )
            }
        };
        let close = frame::close(self.role, Some(code), &cause.to_string());
        self.outgoing.close_from_reader(cause.clone(), close);
        self.see_out(cause)
    }

    /// Ends a stream that can be read no further. If that is because the connection is
    /// closing, the close frame has its chance first.
    fn finished(&self, cause: Disconnect) -> Disconnect {
        if self.outgoing.is_over() {
            return self.see_out(cause);
        }
        self.outgoing.end_from_reader(cause)
    }

    /// Discards what the peer still sends, until its stream ends or its time is over; a reset
    /// that unread bytes provoke could overtake our close frame.
    fn see_out(&self, cause: Disconnect) -> Disconnect {
        let until = self.outgoing.shut_down_at();
        let mut buffer = [0; 4096];
        while !self.outgoing.is_shut_down() {
            match self.outgoing.sink().wait_readable(until) {
                Ok(true) => {}
                Ok(false) | Err(_) => break,
            }
            match self.outgoing.sink().read(&mut buffer) {
                Ok(0) | Err(_) => {
                    self.outgoing.await_close();
                    break;
                }
                // A peer that floods is always readable.
                Ok(_) if until.has_passed() => break,
                Ok(_) => {}
            }
        }
        self.outgoing.end_from_reader(cause)
    }
}

impl DuplexReader for WebSocketReader {
    fn receive(&mut self) -> Result<Option<Arc<str>>, Disconnect> {
        Ok(match self.receive_any()? {
            Received::Message(message) => Some(message.into_text()),
            _ => None,
        })
    }
}

impl OwnReader for WebSocketReader {
    fn receive_any(&mut self) -> Result<Received, Disconnect> {
        let frame = match self.left.take() {
            Some(frame) => frame,
            None => self.frames.read(),
        };
        if self.outgoing.is_over() {
            return Err(self.see_out(Disconnect::Lost));
        }
        match frame {
            Ok(Frame::Close(close)) => {
                let code = close.as_ref().map(|close| u16::from(close.code));
                let reason = close.map(|close| close.reason.to_string());
                let reason = reason.unwrap_or_default();
                // The answer repeats the code (RFC 6455, section 5.5.1).
                let answer = frame::close(self.role, code, &reason);
                let cause = Disconnect::ByPeer { code, reason };
                self.outgoing.close_from_reader(cause.clone(), answer);
                Err(self.see_out(cause))
            }
            Ok(frame) => Ok(self.received(frame)),
            Err(error) => Err(self.ended(error)),
        }
    }

    fn set_timed(&mut self, limit: Option<Duration>) -> bool {
        self.frames.get_mut().set_limit(limit)
    }

    fn receive_within(&mut self, policy: WaitPolicy) -> Option<Received> {
        if self.left.is_some() || self.outgoing.is_over() {
            return None;
        }
        self.frames.get_mut().policy = Some(policy);
        let frame = self.frames.read();
        self.frames.get_mut().policy = None;
        match frame {
            // It goes on where it was.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            Ok(frame) if !matches!(frame, Frame::Close(_)) && !self.outgoing.is_over() => {
                Some(self.received(frame))
            }
            last => {
                self.left = Some(last);
                None
            }
        }
    }
}

impl Drop for WebSocketReader {
    fn drop(&mut self) {
        // Nothing is read any more, so the connection is of no use to its writers.
        self.outgoing.end_from_reader(Disconnect::Lost);
    }
}
