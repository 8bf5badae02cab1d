//! A sprite: its description, its files and its sessions.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::clock::Moment;
use super::place::Place;
use super::session::Session;

/// How long a killed session may take to have ended.
const ENDED: Duration = Duration::from_secs(30);

/// How awake a sprite is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// No process, the files alone.
    Cold,
    /// Processes stand still.
    Warm,
    Running,
}

/// One sprite.
#[derive(Debug)]
pub(super) struct Sprite {
    pub(super) name: String,
    id: u64,
    created: Moment,
    labels: Vec<Value>,
    auth: String,
    pub(super) place: Place,
    pub(super) status: Status,
    /// By the process id: old ids may come again.
    pub(super) sessions: BTreeMap<u32, Arc<Session>>,
    /// The ids of sessions that have ended.
    pub(super) ended: HashSet<u32>,
    /// The most sessions that were there at once.
    pub(super) most_sessions: usize,
}

impl Sprite {
    /// A new one, from the body of a create.
    pub(super) fn new(name: &str, id: u64, body: &Value, place: Place, now: Moment) -> Self {
        let labels = body["labels"].as_array().cloned();
        let auth = body["url_settings"]["auth"].as_str().unwrap_or("sprite");
        Self {
            name: name.to_owned(),
            id,
            created: now,
            labels: labels.unwrap_or_default(),
            auth: auth.to_owned(),
            place,
            status: Status::Cold,
            sessions: BTreeMap::new(),
            ended: HashSet::new(),
            most_sessions: 0,
        }
    }

    /// As the API shows it.
    pub(super) fn shown(&self) -> Value {
        let created = self.created.rfc3339();
        let mut shown = json!({
            "id": format!("sprite-{:08x}", self.id), "name": self.name, "organization": "fake",
            "url": format!("https://{}-fake.sprites.app", self.name),
            "status": match self.status {
                Status::Cold => "cold",
                Status::Warm => "warm",
                Status::Running => "running",
            },
            "created_at": created, "updated_at": created, "last_running_at": null,
            "url_settings": {"auth": self.auth}, "version": null, "environment_version": null,
        });
        if !self.labels.is_empty() {
            shown["labels"] = Value::Array(self.labels.clone());
        }
        shown
    }

    pub(super) fn update(&mut self, body: &Map<String, Value>) {
        if let Some(labels) = body.get("labels").and_then(Value::as_array) {
            self.labels.clone_from(labels);
        }
        if body.get("clear_labels") == Some(&Value::Bool(true)) {
            self.labels.clear();
        }
        if let Some(auth) = body
            .get("url_settings")
            .and_then(|all| all["auth"].as_str())
        {
            auth.clone_into(&mut self.auth);
        }
    }

    /// Forgets the sessions that have ended.
    pub(super) fn tidy(&mut self) {
        let ended = &mut self.ended;
        self.sessions.retain(|&id, session| {
            let has_ended = session.code().is_some();
            if has_ended {
                ended.insert(id);
            }
            !has_ended
        });
    }

    pub(super) fn add(&mut self, session: Arc<Session>) {
        self.tidy();
        let id = session.id.parse().expect("a process id");
        self.ended.remove(&id);
        self.sessions.insert(id, session);
        self.most_sessions = self.most_sessions.max(self.sessions.len());
    }

    /// Any use wakes it.
    pub(super) fn wake(&mut self) {
        self.status = Status::Running;
        for session in self.sessions.values() {
            session.freeze(false);
        }
    }

    /// Its processes stand still, and its connections end.
    pub(super) fn go_warm(&mut self) {
        self.status = Status::Warm;
        for session in self.sessions.values() {
            session.freeze(true);
            session.drop_clients();
        }
    }

    /// Its processes and connections end, and its sessions are forgotten. Returns when that is so.
    pub(super) fn go_cold(&mut self) {
        self.status = Status::Cold;
        for session in self.sessions.values() {
            session.lose();
        }
        for (_, session) in std::mem::take(&mut self.sessions) {
            let code = session.wait(ENDED);
            assert!(code.is_some(), "session {} does not end", session.id);
        }
    }
}
