//! Fetching from a real server on loopback, which misbehaves as each test says. Pure rules (addresses,
//! URLs) are tested beside them.

mod failures;
mod hosts;
mod packages;
mod server;

use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use self::server::Server;
use super::{FetchRequest, FetchSettings, Fetcher};
use crate::deadline::Deadline;
use crate::error::{Error, FailureCause, FetchError, Result};
use crate::testing::LONG;
use crate::thread::Threads;

/// Waited out by the tests of what takes too long.
const SHORT: Duration = Duration::from_millis(300);

const LIMIT: u64 = 1_000_000;

fn settings(allowed: &[&Server]) -> FetchSettings {
    let allowed = allowed.iter().map(|server| server.host_port().clone());
    FetchSettings {
        connect: LONG,
        ..FetchSettings::new(LONG, allowed.collect())
    }
}

fn fetcher(settings: FetchSettings) -> Fetcher {
    Fetcher::new(settings, Threads::with_limit(2)).unwrap()
}

/// A fetcher that knows no names but those that `look_up` knows.
fn with_names(
    settings: FetchSettings,
    look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
) -> Fetcher {
    Fetcher {
        look_up: Arc::new(look_up),
        ..fetcher(settings)
    }
}

fn request(url: &str) -> FetchRequest<'_> {
    FetchRequest {
        url,
        sha256: None,
        limit: LIMIT,
        deadline: Deadline::after(LONG),
    }
}

fn read_all(reader: &mut dyn Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("read the package", error))?;
    Ok(bytes)
}

#[track_caller]
fn fetch_request(fetcher: &Fetcher, request: &FetchRequest<'_>) -> Result<Vec<u8>> {
    let fetched = fetcher.fetch(request, &|| false, read_all);
    assert_no_thread_is_left(fetcher);
    fetched
}

#[track_caller]
fn fetch(server: &Server, path: &str) -> Result<Vec<u8>> {
    fetch_request(&fetcher(settings(&[server])), &request(&server.url(path)))
}

#[track_caller]
fn fetched(answer: &str) -> Vec<u8> {
    fetch(&Server::with(answer), "/package.zip").unwrap()
}

#[track_caller]
fn failure<T>(fetched: Result<T>) -> Error {
    match fetched {
        Err(error) => error,
        Ok(_) => panic!("did not fail"),
    }
}

#[track_caller]
fn cause(error: &Error) -> &FetchError {
    match error.cause() {
        Some(FailureCause::Fetch(cause)) => cause,
        _ => panic!("failed otherwise: {error}"),
    }
}

#[track_caller]
fn assert_no_thread_is_left(fetcher: &Fetcher) {
    let left = fetcher.threads.join_all(Deadline::after(LONG));
    assert_eq!(left, 0, "the thread that fetches did not end");
}
