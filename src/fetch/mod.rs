//! Fetching a package by URL ([Archive](crate::protocol#archive)).
//!
//! The request is made on a thread of its own, and the caller waits for the chunks of the package on a
//! channel: so the deadline holds and the fetch can be cancelled, whatever the network does. That thread
//! ends at once when its connection is shut down, with two exceptions: a look-up of a name cannot be
//! interrupted and takes as long as the system's resolver is configured to take (by default five seconds
//! for each server and attempt), and opening a connection takes at most ten seconds.
//!
//! `address` judges addresses, `look_up` finds those of a host and has them judged, `target` decides which
//! URLs may be fetched, `client` makes one request, and `worker` is the thread. The caller decides where the
//! package goes.

mod address;
mod client;
mod look_up;
mod settings;
mod target;
#[cfg(test)]
mod tests;
mod worker;

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

pub(crate) use settings::FetchSettings;

use crate::deadline::Deadline;
use crate::error::{FetchError, Result};
use crate::thread::Threads;
use client::Client;
use look_up::LookUp;
use target::{HostPort, Target};
use worker::{Chunk, Worker};

/// Stack of the thread that fetches: the system's resolver and a TLS handshake.
const STACK: usize = 1024 * 1024;

/// The most chunks that wait to be read. When there are as many, the thread that fetches waits, and so
/// does the peer.
const CHUNKS: usize = 4;

/// How often `cancel` is called while waiting.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// Fetches packages.
pub(crate) struct Fetcher {
    settings: FetchSettings,
    allowed: Arc<[HostPort]>,
    threads: Threads,
    look_up: Arc<LookUp>,
}

/// Which package to fetch, and within which limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchRequest<'a> {
    pub(crate) url: &'a str,
    /// The SHA-256 that the package must have, if that is known.
    pub(crate) sha256: Option<[u8; 32]>,
    /// The most bytes that the package may have.
    pub(crate) limit: u64,
    /// The end of the caller's time; the time for the whole fetch may end before.
    pub(crate) deadline: Deadline,
}

impl Fetcher {
    /// Creates a fetcher. Each fetch runs on one of `threads`.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting): a setting that cannot work.
    pub(crate) fn new(settings: FetchSettings, threads: Threads) -> Result<Self> {
        Ok(Self {
            allowed: settings.validate()?.into(),
            settings,
            threads,
            look_up: Arc::new(look_up::ask_system),
        })
    }

    /// Fetches a package and passes it to `receive`, which reads it to its end. The reader fails when
    /// fetching does, and in place of the end when the SHA-256 is not the expected one. Such a failure
    /// is returned as it is, whatever `receive` makes of it.
    ///
    /// Blocks for the time for the whole fetch or until the deadline of the request, whichever is
    /// nearer, besides the time that `receive` takes for itself. It ends soon after `cancel` returns
    /// true, which is called before each chunk and every 50 ms while waiting.
    ///
    /// # Errors
    /// - See [`FetchError`].
    /// - [`Error::ThreadLimit`](crate::Error::ThreadLimit) and [`Error::Io`](crate::Error::Io): no thread
    ///   can be started.
    /// - What `receive` returns.
    pub(crate) fn fetch<T>(
        &self,
        request: &FetchRequest<'_>,
        cancel: &dyn Fn() -> bool,
        receive: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        let target = Target::parse(request.url)?;
        let deadline = request.deadline.min(Deadline::after(self.settings.timeout));
        let time = request.deadline.remaining().min(self.settings.timeout);
        let client = Client::new(&self.settings, time, target.name());
        let (sender, chunks) = bounded(CHUNKS);
        let mut download = Download {
            chunks,
            client: client.clone(),
            deadline,
            cancel,
            digest: request.sha256.map(|expected| (Sha256::new(), expected)),
            chunk: io::Cursor::default(),
            ended: false,
            failure: None,
        };
        let worker = Worker {
            client,
            target,
            redirects: self.settings.redirects,
            allowed: self.allowed.clone(),
            look_up: self.look_up.clone(),
            digest_known: request.sha256.is_some(),
            limit: request.limit,
            deadline,
            chunks: sender,
        };
        self.threads.spawn("fetch", STACK, || worker.run())?;
        let received = receive(&mut download);
        if let Some(failure) = download.failure.take() {
            return Err(failure.into());
        }
        let received = received?;
        // What `receive` did not read counts for the digest.
        while !download.ended {
            download.advance()?;
        }
        Ok(received)
    }
}

/// The package while it is received. Dropping it ends the thread that fetches.
struct Download<'a> {
    chunks: Receiver<Chunk>,
    client: Client,
    deadline: Deadline,
    cancel: &'a dyn Fn() -> bool,
    digest: Option<(Sha256, [u8; 32])>,
    /// The last chunk, as far as it is not read yet.
    chunk: io::Cursor<Vec<u8>>,
    ended: bool,
    failure: Option<FetchError>,
}

impl Download<'_> {
    /// Waits for the next chunk.
    fn next(&mut self) -> Chunk {
        loop {
            let cancelled = (self.cancel)();
            // Before `cancelled`: a caller that cancels because the time is over learns of the time.
            if self.deadline.has_passed() {
                return Err(self.client.timeout());
            }
            if cancelled {
                return Err(FetchError::Cancelled {
                    host: self.client.progress.host(),
                });
            }
            let ask = self.deadline.min(Deadline::after(CANCEL_INTERVAL));
            match self.chunks.recv_deadline(ask.instant()) {
                Ok(chunk) => return chunk,
                Err(RecvTimeoutError::Timeout) => {}
                // The thread has the same deadline and may have ended at it first.
                Err(RecvTimeoutError::Disconnected) if self.deadline.has_passed() => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(FetchError::Broken {
                        host: self.client.progress.host(),
                        step: self.client.progress.step(),
                        source: io::Error::other("its thread ended"),
                    });
                }
            }
        }
    }

    /// Takes the next chunk; returns false at the end.
    fn advance(&mut self) -> Result<bool, FetchError> {
        let chunk = self.next()?;
        if !chunk.is_empty() {
            if let Some((digest, _)) = &mut self.digest {
                digest.update(&chunk);
            }
            self.chunk = io::Cursor::new(chunk);
            return Ok(true);
        }
        if let Some((digest, expected)) = self.digest.take() {
            let found = digest.finalize();
            if found[..] != expected {
                return Err(FetchError::Digest {
                    host: self.client.progress.host(),
                    expected: HEXLOWER.encode(&expected),
                    found: HEXLOWER.encode(&found),
                });
            }
        }
        self.ended = true;
        Ok(false)
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.chunk.read(buffer)?;
            if count > 0 || buffer.is_empty() || self.ended {
                return Ok(count);
            }
            if let Some(failure) = &self.failure {
                return Err(io::Error::other(failure.to_string()));
            }
            if let Err(failure) = self.advance() {
                let shown = io::Error::other(failure.to_string());
                self.failure = Some(failure);
                return Err(shown);
            }
        }
    }
}

impl Drop for Download<'_> {
    fn drop(&mut self) {
        self.client.shut_down();
    }
}
