//! The service: its sprites, and what each request does.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use super::calls::Calls;
use super::clock::Moment;
use super::command::{Asked, Started};
use super::files::Files;
use super::http::{Answer, Request};
use super::place::Place;
use super::session::Session;
use super::sprite::{Sprite, Status};
use super::stream::Socket;
use super::switches::{Switches, Unstartable};
use super::wake::End;
use super::work::Work;

/// How much of a terminal's output is replayed at least.
const SCREEN: usize = 64 * 1024;

/// Everything that the threads of the fake share.
pub(super) struct Service {
    pub(super) token: String,
    root: PathBuf,
    switches: Mutex<Switches>,
    sprites: Mutex<BTreeMap<String, Sprite>>,
    pub(super) calls: Mutex<Calls>,
    pub(super) end: End,
    /// The open connections, by number.
    pub(super) connections: Mutex<BTreeMap<u64, Socket>>,
    pub(super) threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    /// Whether a thread that is over has.
    pub(super) has_panicked: AtomicBool,
    created: AtomicU64,
}

/// What came of an exec.
pub(super) enum Start {
    Session(Arc<Session>, Work),
    /// An answer in place of an upgrade.
    Answer(Answer),
    /// An upgrade, then a text or an exit code.
    Unstartable(Option<String>, Option<u8>),
}

impl Service {
    pub(super) fn new(token: &str, root: PathBuf) -> Self {
        Self {
            token: token.to_owned(),
            root,
            switches: Mutex::default(),
            sprites: Mutex::default(),
            calls: Mutex::default(),
            end: End::default(),
            connections: Mutex::default(),
            threads: Mutex::default(),
            has_panicked: AtomicBool::new(false),
            created: AtomicU64::new(0),
        }
    }

    pub(super) fn switches(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.has_come()
    }

    pub(super) fn now(&self) -> Moment {
        Moment::now(self.switches().clock_offset)
    }

    /// Runs something on a thread that the end of the fake waits for.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let builder = std::thread::Builder::new().name("fake-sprites".to_owned());
        let thread = builder.spawn(work).expect("a thread");
        // Those that are over are forgotten, their panics are not.
        let mut threads = self.threads.lock();
        for over in threads.extract_if(.., |thread| thread.is_finished()) {
            if over.join().is_err() {
                self.has_panicked.store(true, Ordering::SeqCst);
            }
        }
        threads.push(thread);
    }

    /// Does something with a sprite that is there.
    pub(super) fn with<T>(&self, name: &str, act: impl FnOnce(&mut Sprite) -> T) -> Option<T> {
        self.sprites.lock().get_mut(name).map(|sprite| {
            sprite.tidy();
            act(sprite)
        })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.sprites.lock().keys().cloned().collect()
    }

    /// Has every exec socket look at the switches.
    pub(super) fn wake_clients(&self) {
        for sprite in self.sprites.lock().values() {
            for session in sprite.sessions.values() {
                session.wake_clients();
            }
        }
    }

    /// Ends every session, and every connection after them.
    pub(super) fn stop(&self) {
        self.end.come();
        for sprite in self.sprites.lock().values_mut() {
            sprite.go_cold();
        }
        self.cut_connections();
    }

    pub(super) fn cut_connections(&self) {
        for socket in self.connections.lock().values() {
            socket.shut_down();
        }
    }

    /// The answer to a plain request.
    pub(super) fn answer(&self, request: &Request) -> Answer {
        let segments = request.segments();
        let segments: Vec<_> = segments.iter().map(String::as_str).collect();
        let Some(("v1", ["sprites", rest @ ..])) = segments.split_first().map(|(v, r)| (*v, r))
        else {
            return Answer::error(404, "not_found", "no such path");
        };
        match (request.method.as_str(), rest) {
            ("POST", []) => self.create(request),
            ("GET", []) => self.list(request),
            (method, [name]) => self.one(method, name, request),
            (_, [name, rest @ ..]) => self.below(name, rest, request),
            _ => method_not_allowed(),
        }
    }

    fn create(&self, request: &Request) -> Answer {
        let body = request.json();
        let Some(name) = body["name"].as_str().filter(|name| is_name(name)) else {
            return Answer::json(422, &json!({"errors": ["name is invalid"]}));
        };
        let now = self.now();
        let mut sprites = self.sprites.lock();
        if sprites.contains_key(name) {
            return Answer::error(409, "already_exists", "name is taken");
        }
        let id = self.created.fetch_add(1, Ordering::SeqCst);
        // Not by its name: one that is made again has new files.
        let place = Place::make(self.root.join(format!("sprite-{id}")));
        let sprite = Sprite::new(name, id, &body, place, now);
        let shown = sprite.shown();
        sprites.insert(name.to_owned(), sprite);
        Answer::json(201, &shown)
    }

    fn list(&self, request: &Request) -> Answer {
        let count = request
            .query("max_results")
            .map_or(Some(50), |count| count.parse().ok());
        let Some(count @ 1..=500) = count else {
            return Answer::json(400, &json!({"errors": ["max_results is invalid"]}));
        };
        let after = match request
            .query("continuation_token")
            .filter(|token| !token.is_empty())
        {
            Some(token) => match BASE64URL_NOPAD.decode(token.as_bytes()) {
                Ok(name) => String::from_utf8(name).ok(),
                Err(_) => None,
            },
            None => Some(String::new()),
        };
        let Some(after) = after else {
            return Answer::json(400, &json!({"errors": ["continuation_token is invalid"]}));
        };
        let prefix = request.query("prefix").unwrap_or_default();
        let sprites = self.sprites.lock();
        let meant = |sprite: &&Sprite| sprite.name.starts_with(prefix) && sprite.name > after;
        let mut left = sprites.values().filter(meant);
        let page: Vec<_> = left.by_ref().take(count).collect();
        let token = left.next().and(page.last());
        let token = token.map(|last| BASE64URL_NOPAD.encode(last.name.as_bytes()));
        let all: Vec<_> = page.iter().map(|sprite| sprite.shown()).collect();
        let mut body = json!({
            "sprites": all, "has_more": token.is_some(), "next_continuation_token": token,
        });
        let counted = |status| {
            sprites
                .values()
                .filter(|sprite| sprite.status == status)
                .count()
        };
        let counters = json!({
            "name": "fake", "running": counted(Status::Running), "warm": counted(Status::Warm),
            "cold": counted(Status::Cold), "running_limit": 1_000, "warm_limit": 1_000,
        });
        if self.switches().counters_under_org {
            body["org"] = counters;
        } else if let (Value::Object(body), Value::Object(counters)) = (&mut body, counters) {
            body.extend(counters);
        }
        Answer::json(200, &body)
    }

    fn one(&self, method: &str, name: &str, request: &Request) -> Answer {
        match method {
            "GET" => self.with(name, |sprite| Answer::json(200, &sprite.shown())),
            "PUT" => self.with(name, |sprite| {
                sprite.update(
                    request
                        .json()
                        .as_object()
                        .unwrap_or(&serde_json::Map::new()),
                );
                Answer::json(200, &sprite.shown())
            }),
            "DELETE" => self.sprites.lock().remove(name).map(|mut sprite| {
                sprite.go_cold();
                fs::remove_dir_all(sprite.place.root()).expect("a directory of ours");
                Answer::empty(204)
            }),
            _ => return method_not_allowed(),
        }
        .unwrap_or_else(no_sprite)
    }

    /// Anything below a sprite wakes it.
    fn below(&self, name: &str, rest: &[&str], request: &Request) -> Answer {
        let woken = self.with(name, |sprite| {
            sprite.wake();
            sprite.place.clone()
        });
        let Some(place) = woken else {
            return no_sprite();
        };
        let (bare_list, bare_errors, version) = {
            let switches = self.switches();
            let bare = (switches.bare_session_list, switches.bare_file_errors);
            (bare.0, bare.1, switches.version.clone())
        };
        let answer = match (request.method.as_str(), rest) {
            (_, ["fs", operation]) => Files::new(&place, request).answer(operation, bare_errors),
            ("HEAD", ["exec"]) => Answer::empty(200),
            ("GET", ["exec"]) => self.sessions(name, bare_list),
            ("GET", ["exec", id]) => match self.session(name, id) {
                Some(session) => Answer::json(200, &listed(&session)),
                None => no_session(id),
            },
            _ => Answer::error(404, "not_found", "no such path"),
        };
        answer.with("Sprite-Version", &version)
    }

    fn sessions(&self, name: &str, is_bare: bool) -> Answer {
        let all = self.with(name, |sprite| {
            let sessions = sprite.sessions.values();
            sessions.map(|session| listed(session)).collect::<Vec<_>>()
        });
        let all = all.unwrap_or_default();
        if is_bare {
            return Answer::json(200, &all.into());
        }
        let count = all.len();
        Answer::json(200, &json!({"sessions": all, "count": count}))
    }

    /// A session that has not ended.
    pub(super) fn session(&self, name: &str, id: &str) -> Option<Arc<Session>> {
        let id = id.parse::<u32>().ok()?;
        self.with(name, |sprite| sprite.sessions.get(&id).cloned())?
    }

    /// Whether a session was there once, and is not any more.
    pub(super) fn was_there(&self, name: &str, id: &str) -> bool {
        let Ok(id) = id.parse::<u32>() else {
            return false;
        };
        let was = self.with(name, |sprite| sprite.ended.contains(&id));
        was == Some(true)
    }

    /// Starts a command on a sprite that is there. Its session is listed at once.
    pub(super) fn start(&self, name: &str, request: &Request) -> Start {
        let (max_run, replay, unstartable) = {
            let switches = self.switches();
            (switches.max_run, switches.replay, switches.unstartable)
        };
        let Some(asked) = Asked::read(request, max_run) else {
            return Start::Answer(Answer::error(400, "bad_request", "invalid parameters"));
        };
        let now = self.now();
        let started = self.with(name, |sprite| {
            if self.has_ended() {
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            sprite.wake();
            let started: Started = asked.start(&sprite.place)?;
            let tail = if asked.tty {
                replay.max(SCREEN)
            } else {
                replay
            };
            let (session, work) = Session::new(asked, started, tail, now);
            sprite.add(session.clone());
            Ok::<_, std::io::Error>((session, work))
        });
        match (started, unstartable) {
            (None, _) => Start::Answer(no_sprite()),
            (Some(Ok((session, work))), _) => Start::Session(session, work),
            (Some(Err(error)), Unstartable::ErrorText) => {
                Start::Unstartable(Some(format!("failed to start: {error}")), None)
            }
            (Some(Err(_)), Unstartable::Close) => Start::Unstartable(None, None),
            (Some(Err(_)), Unstartable::Exit127) => Start::Unstartable(None, Some(127)),
            (Some(Err(error)), Unstartable::Refused) => {
                Start::Answer(Answer::error(400, "bad_request", &error.to_string()))
            }
        }
    }

    /// Waits, unless the fake ends.
    pub(super) fn pause(&self, time: Duration) {
        self.end.wait(time);
    }
}

fn listed(session: &Session) -> Value {
    json!({
        "id": session.id, "command": session.asked.text(), "workdir": session.asked.dir,
        "created": session.created.rfc3339(), "bytes_per_second": 0.0,
        "is_active": session.clients() > 0, "tty": session.asked.tty,
    })
}

/// What can be part of a host's name.
fn is_name(name: &str) -> bool {
    let is_part = |next: char| next.is_ascii_lowercase() || next.is_ascii_digit() || next == '-';
    (1..=63).contains(&name.len()) && name.chars().all(is_part)
}

pub(super) fn no_sprite() -> Answer {
    Answer::json(404, &json!({"error": "sprite not found"}))
}

pub(super) fn no_session(id: &str) -> Answer {
    Answer::json(404, &json!({"error": format!("session not found: {id}")}))
}

fn method_not_allowed() -> Answer {
    Answer::error(405, "method_not_allowed", "no such method here")
}
