//! The thread that fetches: it follows the redirects, checks every host, and hands the body over in
//! pieces. Everything that may block without regard to a deadline blocks here; see the module's head.

use std::io::{self, Read as _};
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::client::{Client, Progress, Response};
use super::look_up::{LookUp, addresses};
use super::target::{Place, Target};
use crate::deadline::Deadline;
use crate::error::FetchError;

/// Bytes of a piece, at most.
const PIECE: usize = 64 * 1024;

/// A piece of the body; none is its end.
pub(super) type Piece = Option<Vec<u8>>;

pub(super) struct Worker {
    pub(super) client: Client,
    pub(super) progress: Arc<Progress>,
    pub(super) target: Target,
    pub(super) redirects: usize,
    pub(super) allowed: Arc<[Place]>,
    pub(super) look_up: Arc<LookUp>,
    /// Whether the SHA-256 is known, so that nobody on the way can put in something else.
    pub(super) digest_known: bool,
    /// Bytes of the body, at most.
    pub(super) limit: u64,
    pub(super) deadline: Deadline,
    pub(super) pieces: Sender<Result<Piece, FetchError>>,
}

/// Whoever waited has gone.
struct Gone;

impl Worker {
    /// Ends when everything is handed over, or soon after nobody wants it any more.
    pub(super) fn run(mut self) {
        let outcome = match self.response() {
            Ok(response) => self.hand_over(response),
            Err(error) => self.hand(Err(error)),
        };
        if outcome.is_err() {
            log::debug!("fetching from {} was given up", self.progress.host());
        }
    }

    /// Follows the redirects to the response that has the package.
    fn response(&mut self) -> Result<Response, FetchError> {
        let mut followed = 0;
        loop {
            self.progress.begin(self.target.name());
            let addresses = addresses(&self.target, &self.allowed, &*self.look_up)?;
            let response = self.client.get(&self.target, addresses, self.deadline)?;
            let host = || self.target.name().to_owned();
            match response.status {
                200 => return Ok(response),
                301 | 302 | 303 | 307 | 308 if followed == self.redirects => {
                    return Err(FetchError::TooManyRedirects {
                        host: host(),
                        limit: self.redirects,
                    });
                }
                301 | 302 | 303 | 307 | 308 => {
                    let target = next(&self.target, response.location, self.digest_known).map_err(
                        |problem| FetchError::Redirect {
                            host: host(),
                            problem: Box::new(problem),
                        },
                    )?;
                    self.target = target;
                    followed += 1;
                }
                status => {
                    return Err(FetchError::Status {
                        host: host(),
                        status,
                    });
                }
            }
        }
    }

    fn hand_over(&self, mut response: Response) -> Result<(), Gone> {
        let too_large = || FetchError::TooLarge {
            host: self.progress.host(),
            limit: self.limit,
        };
        if response.length.is_some_and(|length| length > self.limit) {
            return self.hand(Err(too_large()));
        }
        let mut received = 0;
        loop {
            let mut piece = vec![0; PIECE];
            let count = match response.body.read(&mut piece) {
                Ok(0) => return self.hand(Ok(None)),
                Ok(count) => count,
                Err(error) => {
                    let failure = self.body_failure(error, received, response.length);
                    return self.hand(Err(failure));
                }
            };
            received += count as u64;
            if received > self.limit {
                return self.hand(Err(too_large()));
            }
            piece.truncate(count);
            self.hand(Ok(Some(piece)))?;
        }
    }

    fn body_failure(&self, error: io::Error, received: u64, expected: Option<u64>) -> FetchError {
        // A reader of the client wraps the client's own errors.
        match ureq::Error::from(error) {
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                FetchError::EndedEarly {
                    host: self.progress.host(),
                    received,
                    expected,
                }
            }
            error => self.client.failure(error),
        }
    }

    fn hand(&self, piece: Result<Piece, FetchError>) -> Result<(), Gone> {
        // Full means that whoever reads it is slower than the network.
        self.pieces
            .send_deadline(piece, self.deadline.instant())
            .map_err(|_| Gone)
    }
}

/// Where a redirect leads.
fn next(
    from: &Target,
    location: Option<Vec<u8>>,
    digest_known: bool,
) -> Result<Target, FetchError> {
    let target = from.redirected(&location.ok_or(FetchError::NoLocation)?)?;
    if from.secure() && !target.secure() && !digest_known {
        return Err(FetchError::Downgrade);
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_https_to_http_only_with_the_digest_known() {
        let go = |from: &str, location: &[u8], digest_known| {
            next(
                &Target::parse(from).unwrap(),
                Some(location.to_vec()),
                digest_known,
            )
        };
        let (https, http) = ("https://a/", "http://a/");
        let error = go(https, b"http://b/", false).unwrap_err();
        assert!(matches!(error, FetchError::Downgrade), "{error}");
        assert!(go(https, b"http://b/", true).is_ok());
        assert!(go(https, b"//b/", false).unwrap().secure());
        assert!(go(http, b"https://b/", false).unwrap().secure());
        assert!(go(http, b"http://b/", false).is_ok());
    }
}
