//! The thread that fetches: it follows the redirects, checks every host, and passes the body on in
//! chunks. Everything that may block past a deadline blocks here; see the head of the module.

use std::io::{self, Read as _};
use std::sync::Arc;

use crossbeam_channel::Sender;
use ureq::Body;
use ureq::http::header::LOCATION;
use ureq::http::{HeaderValue, Response};

use super::client::Client;
use super::look_up::{LookUp, addresses};
use super::target::{HostPort, Target};
use crate::deadline::Deadline;
use crate::error::FetchError;

/// The most bytes in a chunk.
const CHUNK_SIZE: usize = 64 * 1024;

/// A chunk of the body; an empty one is its end.
pub(super) type Chunk = Result<Vec<u8>, FetchError>;

pub(super) struct Worker {
    pub(super) client: Client,
    pub(super) target: Target,
    pub(super) redirects: usize,
    pub(super) allowed: Arc<[HostPort]>,
    pub(super) look_up: Arc<LookUp>,
    /// Whether the SHA-256 is known, so that nothing else can be put in on the way.
    pub(super) digest_known: bool,
    /// The most bytes of the body.
    pub(super) limit: u64,
    pub(super) deadline: Deadline,
    pub(super) chunks: Sender<Chunk>,
}

impl Worker {
    /// Fetches the package. Returns when all of it is sent, or soon after its reader has gone.
    pub(super) fn run(mut self) {
        if let Err(error) = self.fetch() {
            self.send(Err(error));
        }
    }

    fn fetch(&mut self) -> Result<(), FetchError> {
        let response = self.response()?;
        let too_large = || FetchError::TooLarge {
            host: self.client.progress.host(),
            limit: self.limit,
        };
        let length = response.body().content_length();
        if length.is_some_and(|length| length > self.limit) {
            return Err(too_large());
        }
        let mut body = response.into_body().into_reader();
        let mut received = 0;
        loop {
            let mut chunk = vec![0; CHUNK_SIZE];
            let count = body
                .read(&mut chunk)
                .map_err(|error| self.body_failure(error, received, length))?;
            received += count as u64;
            if received > self.limit {
                return Err(too_large());
            }
            chunk.truncate(count);
            if !self.send(Ok(chunk)) || count == 0 {
                return Ok(());
            }
        }
    }

    /// Follows the redirects to the response that has the package.
    fn response(&mut self) -> Result<Response<Body>, FetchError> {
        let mut followed = 0;
        loop {
            self.client.progress.begin(self.target.name());
            let addresses = addresses(&self.target, &self.allowed, &*self.look_up)?;
            let response = self.client.get(&self.target, addresses, self.deadline)?;
            let host = self.target.name().to_owned();
            match response.status().as_u16() {
                200 => return Ok(response),
                301 | 302 | 303 | 307 | 308 if followed == self.redirects => {
                    let limit = self.redirects;
                    return Err(FetchError::TooManyRedirects { host, limit });
                }
                301 | 302 | 303 | 307 | 308 => {
                    let location = response.headers().get(LOCATION);
                    let location = location.map(HeaderValue::as_bytes);
                    self.target =
                        next(&self.target, location, self.digest_known).map_err(|problem| {
                            let problem = Box::new(problem);
                            FetchError::Redirect { host, problem }
                        })?;
                    followed += 1;
                }
                status => return Err(FetchError::Status { host, status }),
            }
        }
    }

    fn body_failure(&self, error: io::Error, received: u64, expected: Option<u64>) -> FetchError {
        // The client's reader wraps the client's own errors.
        match ureq::Error::from(error) {
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                FetchError::EndedEarly {
                    host: self.client.progress.host(),
                    received,
                    expected,
                }
            }
            error => self.client.failure(error),
        }
    }

    /// Sends a chunk; returns whether it was taken. Blocks at most until the deadline.
    fn send(&self, chunk: Chunk) -> bool {
        // The channel is full while the reader is slower than the network.
        let sent = self.chunks.send_deadline(chunk, self.deadline.instant());
        if sent.is_err() {
            let host = self.client.progress.host();
            log::debug!("fetching from {host} was given up");
        }
        sent.is_ok()
    }
}

/// Returns where a redirect leads.
fn next(from: &Target, location: Option<&[u8]>, digest_known: bool) -> Result<Target, FetchError> {
    let target = from.redirected(location.ok_or(FetchError::NoLocation)?)?;
    if from.secure() && !target.secure() && !digest_known {
        return Err(FetchError::Downgrade);
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_matches;

    #[test]
    fn from_https_to_http_only_with_the_digest_known() {
        let go = |from: &str, location: &[u8], digest_known| {
            next(&Target::parse(from).unwrap(), Some(location), digest_known)
        };
        let (https, http) = ("https://a/", "http://a/");
        let error = go(https, b"http://b/", false).unwrap_err();
        assert_matches!(error, FetchError::Downgrade);
        assert!(go(https, b"http://b/", true).is_ok());
        assert!(go(https, b"//b/", false).unwrap().secure());
        assert!(go(http, b"https://b/", false).unwrap().secure());
        assert!(go(http, b"http://b/", false).is_ok());
    }
}
