//! `Client`: makes requests to the service, each within its time, bounded, cancellable, and again where that
//! may help. The calls themselves are in `sprite`, `files` and `exec`.

use std::fmt;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use ureq::http::{HeaderValue, Method};
use ureq::{Agent, BodyReader};
use zeroize::Zeroizing;

use super::answer::{self, FAILURE_LIMIT, FailedAnswer};
use super::endpoint::{self, Endpoint};
use super::interrupt::Within;
use super::link::Link;
use super::retry;
use super::room::Room;
use super::transport::{CallSlot, LinkConnector, NoResolver, TOKEN_PLACE};
use crate::error::{Error, Result, SpritesError, SpritesProblem};
use crate::thread::Threads;

pub(super) const USER_AGENT: &str = concat!("plugin-runner/", env!("CARGO_PKG_VERSION"));

/// The most bytes of JSON in an answer.
pub(super) const JSON_LIMIT: usize = 1024 * 1024;

/// The time for one attempt of an ordinary request: a server that says nothing is asked again while the
/// caller has time left.
pub(super) const ATTEMPT: Duration = Duration::from_secs(30);

/// The same where the service may have to make a sprite or take a large file.
pub(super) const LONG_ATTEMPT: Duration = Duration::from_secs(120);

/// The time for the rest of an answer that is a failure anyway.
const FAILURE_TIME: Duration = Duration::from_secs(5);

/// The most idle connections that are kept, and for how long.
const IDLE_LANES: usize = 4;
const IDLE_TIME: Duration = Duration::from_secs(15);

/// A failure that lasts for so many attempts is logged as a warning.
const LASTING: u32 = 2;

const LONGEST_TOKEN: usize = 4096;

/// Where the service is, and the account.
pub(crate) struct ClientSettings {
    /// Such as `https://api.sprites.dev`.
    pub(crate) base_url: String,
    pub(crate) token: String,
    /// The authorities that the service's certificate may be from, in place of the well-known ones; those
    /// if there are none.
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

/// A client of the service. A clone is another handle to the same one; any number of threads may use it.
#[derive(Clone)]
pub(crate) struct Client {
    shared: Arc<ClientShared>,
}

struct ClientShared {
    endpoint: Endpoint,
    token: Arc<Zeroizing<String>>,
    tls: Arc<ClientConfig>,
    threads: Threads,
    /// Agents that are not in use, each with at most one idle connection.
    lanes: Mutex<Vec<Lane>>,
    upload_room: Room,
}

/// An agent for one call at a time, so that its connection knows which call it is for.
struct Lane {
    agent: Agent,
    slot: CallSlot,
}

/// A request, which may be made any number of times.
pub(super) struct Request<'a> {
    /// For errors, such as `create a sprite`.
    pub(super) action: &'static str,
    pub(super) method: Method,
    pub(super) segments: &'a [&'a str],
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) body: RequestBody<'a>,
    /// The most bytes of the answer.
    pub(super) limit: usize,
    /// The time for one attempt.
    pub(super) attempt: Duration,
}

pub(super) enum RequestBody<'a> {
    None,
    Json(Vec<u8>),
    /// A file, which may be secret.
    File(&'a [u8]),
}

/// The answer to a request that was successful, its body not yet read.
pub(super) struct Reply<'a> {
    body: Option<BodyReader<'static>>,
    lane: Option<Lane>,
    client: &'a ClientShared,
}

impl<'a> Request<'a> {
    pub(super) fn new(action: &'static str, method: Method, segments: &'a [&'a str]) -> Self {
        Self {
            action,
            method,
            segments,
            query: &[],
            body: RequestBody::None,
            limit: JSON_LIMIT,
            attempt: ATTEMPT,
        }
    }

    fn is_of_files(&self) -> bool {
        self.segments.contains(&"fs")
    }
}

impl Client {
    /// # Errors
    /// [`Error::Setting`]: the base URL or the token cannot be used. The text repeats neither.
    pub(crate) fn new(settings: ClientSettings, threads: Threads) -> Result<Self> {
        let token = Zeroizing::new(settings.token.trim().to_owned());
        if token.is_empty() {
            let problem =
                "it is missing or empty; give the key of the account with `HostBuilder::sprites`";
            return Err(Error::setting("SPRITES_API_KEY", problem));
        }
        if token.len() > LONGEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = "it has a space or another character that no token has, or is too long";
            return Err(Error::setting("SPRITES_API_KEY", problem));
        }
        let endpoint = Endpoint::parse(&settings.base_url)
            .map_err(|problem| Error::setting("SPRITES_API_URL", problem))?;
        let shared = ClientShared {
            endpoint,
            token: Arc::new(token),
            tls: Arc::new(tls_config(settings.roots)?),
            threads,
            lanes: Mutex::default(),
            upload_room: Room::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Makes a request until it succeeds, cannot succeed, or the time is over; returns the body.
    pub(super) fn ask(
        &self,
        request: &Request<'_>,
        within: Within<'_>,
    ) -> Result<Vec<u8>, SpritesError> {
        let sprite = request.segments.get(1).copied().unwrap_or_default();
        repeat((request.action, sprite), within, |within| {
            let reply = self.open(request, within.at_most(request.attempt))?;
            reply.read_all(request.limit)
        })
    }

    /// As [`ask`](Self::ask), for an answer in JSON.
    pub(super) fn ask_json<T: DeserializeOwned>(
        &self,
        request: &Request<'_>,
        within: Within<'_>,
    ) -> Result<T, SpritesError> {
        let body = self.ask(request, within)?;
        let action = request.action;
        answer::json(&body).map_err(|problem| SpritesError { action, problem })
    }

    /// Makes a request once; returns when the head of its answer is there and says that it succeeded.
    pub(super) fn open(
        &self,
        request: &Request<'_>,
        within: Within<'_>,
    ) -> Result<Reply<'_>, SpritesProblem> {
        let shared = &*self.shared;
        if !request
            .segments
            .iter()
            .all(|segment| endpoint::is_segment(segment))
        {
            return Err(SpritesProblem::Input(
                "a name or an id is empty or too long",
            ));
        }
        let target = shared.endpoint.target(request.segments, request.query);
        let lane = shared.lanes.lock().pop();
        let lane = lane.unwrap_or_else(|| shared.lane());
        lane.slot.begin(within);
        let built = ureq::http::Request::builder()
            .method(request.method.clone())
            .uri(shared.endpoint.url(&target))
            .header(AUTHORIZATION, TOKEN_PLACE);
        let input = |_| SpritesProblem::Input("no request can be made of it");
        let sent = match &request.body {
            RequestBody::None if request.method == Method::POST => {
                lane.agent.run(built.body::<&[u8]>(&[]).map_err(input)?)
            }
            RequestBody::None => lane.agent.run(built.body(()).map_err(input)?),
            RequestBody::Json(body) => {
                let built = built.header(CONTENT_TYPE, "application/json");
                lane.agent.run(built.body(&**body).map_err(input)?)
            }
            RequestBody::File(body) => {
                let built = built.header(CONTENT_TYPE, "application/octet-stream");
                lane.agent.run(built.body(*body).map_err(input)?)
            }
        };
        let response = sent.map_err(|error| lane.slot.problem(error))?;
        let (head, body) = response.into_parts();
        let mut reply = Reply {
            body: Some(body.into_reader()),
            lane: Some(lane),
            client: shared,
        };
        if head.status.is_success() {
            return Ok(reply);
        }
        let body = reply.failure(within);
        let failed = FailedAnswer {
            status: head.status.as_u16(),
            retry_after: head.headers.get(RETRY_AFTER).map(HeaderValue::as_bytes),
            body: &body,
            token: &shared.token,
            secret_body: matches!(request.body, RequestBody::File(_)),
        };
        if request.is_of_files() && failed.is_missing_file() {
            return Err(SpritesProblem::NotFound);
        }
        Err(failed.problem())
    }

    /// Connects, for what is not HTTP once it has begun.
    pub(super) fn link(&self, within: Within<'_>) -> Result<Link, SpritesProblem> {
        let shared = &*self.shared;
        Link::connect(&shared.endpoint, &shared.tls, &shared.threads, within)
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Lets this time pass.
    ///
    /// # Errors
    /// The time is over, or the call was cancelled.
    pub(super) fn pause(
        action: &'static str,
        time: Duration,
        within: Within<'_>,
    ) -> Result<(), SpritesError> {
        let paused = within.pause(time);
        paused.map_err(|problem| SpritesError { action, problem })
    }

    /// Whether the service is a program on this machine.
    pub(super) fn is_on_this_machine(&self) -> bool {
        endpoint::is_loopback(&self.endpoint().host)
    }

    pub(super) fn token(&self) -> &str {
        &self.shared.token
    }

    /// Returns what the service says as it may be shown: it may repeat what it was sent.
    pub(super) fn without_token(&self, said: &str) -> String {
        said.replace(self.token(), "[token]")
    }

    /// Memory for files that are being uploaded, by whomever.
    pub(super) fn upload_room(&self) -> &Room {
        &self.shared.upload_room
    }

    pub(super) fn threads(&self) -> &Threads {
        &self.shared.threads
    }
}

impl ClientShared {
    fn lane(&self) -> Lane {
        let config = Agent::config_builder()
            // By default it is the environment's proxy, which would read the token of an http:// service.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(IDLE_TIME)
            .user_agent(USER_AGENT)
            .accept_encoding("identity")
            .build();
        let slot = CallSlot::default();
        let connector = LinkConnector {
            endpoint: self.endpoint.clone(),
            tls: self.tls.clone(),
            token: self.token.clone(),
            threads: self.threads.clone(),
            slot: slot.clone(),
        };
        Lane {
            agent: Agent::with_parts(config, connector, NoResolver),
            slot,
        }
    }
}

impl Reply<'_> {
    /// Reads the whole body.
    ///
    /// # Errors
    /// [`TooLarge`](SpritesProblem::TooLarge): it is over the limit. Those of a connection.
    pub(super) fn read_all(mut self, limit: usize) -> Result<Vec<u8>, SpritesProblem> {
        let mut body = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let count = self.read(&mut chunk)?;
            if count == 0 {
                return Ok(body);
            }
            if body.len() + count > limit {
                return Err(SpritesProblem::TooLarge { limit });
            }
            body.extend_from_slice(&chunk[..count]);
        }
    }

    /// Reads a part of the body; 0 is its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SpritesProblem> {
        let (Some(body), Some(lane)) = (&mut self.body, &self.lane) else {
            return Ok(0);
        };
        loop {
            match body.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lane.slot.problem(error.into())),
                Ok(count) => return Ok(count),
            }
        }
    }

    /// Reads what can be had of the body of a failure. That it cannot be had changes nothing.
    fn failure(&mut self, within: Within<'_>) -> Vec<u8> {
        if let Some(lane) = &self.lane {
            lane.slot.set_bounds(within.at_most(FAILURE_TIME));
        }
        let mut body = vec![0; FAILURE_LIMIT];
        let mut length = 0;
        while let Ok(count @ 1..) = self.read(&mut body[length..]) {
            length += count;
        }
        body.truncate(length);
        body
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        // First, since only then the connection is idle again, or closed.
        self.body = None;
        let mut lanes = self.client.lanes.lock();
        if lanes.len() < IDLE_LANES {
            lanes.extend(self.lane.take());
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSettings").finish_non_exhaustive()
    }
}

/// Makes attempts at something as [`retry::wait`] says.
pub(super) fn repeat<T>(
    action: (&'static str, &str),
    within: Within<'_>,
    attempt: impl FnMut(Within<'_>) -> Result<T, SpritesProblem>,
) -> Result<T, SpritesError> {
    repeat_after(|_| true, action, within, attempt)
}

/// As [`repeat`], but only after the problems that `may_repeat` accepts.
pub(super) fn repeat_after<T>(
    may_repeat: impl Fn(&SpritesProblem) -> bool,
    (action, sprite): (&'static str, &str),
    within: Within<'_>,
    mut attempt: impl FnMut(Within<'_>) -> Result<T, SpritesProblem>,
) -> Result<T, SpritesError> {
    let error = |problem| SpritesError { action, problem };
    let mut attempts = 0;
    within.check().map_err(error)?;
    loop {
        attempts += 1;
        let problem = match attempt(within) {
            Ok(done) => return Ok(done),
            Err(problem) => problem,
        };
        let remaining = within.deadline.remaining();
        let wait = retry::wait(&problem, attempts, remaining, retry::jitter());
        let Some(wait) = wait.filter(|_| may_repeat(&problem)) else {
            // An attempt has less time than the call, which is what the caller knows of.
            let is_late = matches!(problem, SpritesProblem::Timeout { .. });
            let call = is_late.then(|| within.check().err()).flatten();
            return Err(error(call.unwrap_or(problem)));
        };
        // One failure passes; of those that last, the caller hears much later.
        let level = if attempts == LASTING {
            log::Level::Warn
        } else {
            log::Level::Debug
        };
        let at = if sprite.is_empty() { "" } else { ": " };
        log::log!(
            level,
            "{sprite}{at}cannot {action}: {problem}; again in {wait:.1?}"
        );
        match within.pause(wait) {
            Ok(()) => {}
            // It ran out between attempts: what was wrong is worth more than that.
            Err(SpritesProblem::Timeout { .. }) => return Err(error(problem)),
            Err(problem) => return Err(error(problem)),
        }
    }
}

/// Trusts the authorities given, or else the well-known ones.
fn tls_config(roots: Vec<CertificateDer<'static>>) -> Result<ClientConfig> {
    let tls = |error: rustls::Error| Error::io("prepare TLS", io::Error::other(error));
    let mut store = RootCertStore::empty();
    if roots.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for root in roots {
        store.add(root).map_err(tls)?;
    }
    // Named, or rustls would take what another crate of the program has installed.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(tls)?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}
