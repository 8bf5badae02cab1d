//! A session: one command with its process group, whoever is attached to it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process_group};

use super::clock::Moment;
use super::command::{Asked, Started};
use super::wake::{self, Sleeper, Waker};
use super::work::Work;

pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;

/// With so many bytes waiting for a client, the command's output is not read on.
const BACKLOG: usize = 1024 * 1024;

/// One command that runs, or has just ended.
#[derive(Debug)]
pub(super) struct Session {
    /// The process id in decimal.
    pub(super) id: String,
    pub(super) asked: Asked,
    pub(super) created: Moment,
    pub(super) group: Pid,
    waker: Waker,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) clients: Vec<Arc<Client>>,
    /// When the last client went.
    pub(super) alone_since: Option<Instant>,
    /// What the command has yet to read.
    pub(super) input: VecDeque<u8>,
    pub(super) input_ends: bool,
    /// The end of what it printed, each byte with its stream.
    pub(super) tail: VecDeque<(u8, u8)>,
    pub(super) tail_size: usize,
    pub(super) size: Option<(u16, u16)>,
    /// The process has ended, and may not be signalled any more.
    pub(super) leader_ended: bool,
    pub(super) is_frozen: bool,
    /// Its end is to be told to nobody: its machine is gone.
    pub(super) is_lost: bool,
    /// Everything of it has ended, with this code.
    pub(super) code: Option<u8>,
}

/// What a client is told.
#[derive(Debug)]
pub(super) enum Event {
    Output(u8, Vec<u8>),
    Ended(u8),
    /// The connection is to end: the machine stands still or is gone.
    Dropped,
}

/// An attached socket, as the session sees it.
#[derive(Debug)]
pub(super) struct Client {
    events: Sender<Event>,
    backlog: AtomicUsize,
    waker: Waker,
}

/// An attached socket's own end.
pub(super) struct Attached {
    pub(super) session: Arc<Session>,
    client: Arc<Client>,
    events: Receiver<Event>,
    pub(super) sleeper: Sleeper,
}

impl Session {
    /// The session of a process that has been started, and what it still needs.
    pub(super) fn new(
        asked: Asked,
        started: Started,
        tail_size: usize,
        now: Moment,
    ) -> (Arc<Self>, Work) {
        let (waker, sleeper) = wake::pair();
        let group = Pid::from_child(&started.child);
        let session = Arc::new(Self {
            id: group.to_string(),
            asked,
            created: now,
            group,
            waker,
            state: Mutex::new(State {
                clients: Vec::new(),
                alone_since: Some(Instant::now()),
                input: VecDeque::new(),
                input_ends: false,
                tail: VecDeque::new(),
                tail_size,
                size: None,
                leader_ended: false,
                is_frozen: false,
                is_lost: false,
                code: None,
            }),
            changed: Condvar::new(),
        });
        let work = Work::new(session.clone(), started, sleeper);
        (session, work)
    }

    /// Attaches a client, with what is replayed to it.
    pub(super) fn attach(self: &Arc<Self>) -> (Attached, Vec<(u8, u8)>) {
        let (waker, sleeper) = wake::pair();
        let (sender, events) = unbounded();
        let client = Arc::new(Client {
            events: sender,
            backlog: AtomicUsize::new(0),
            waker,
        });
        let mut state = self.state.lock();
        let tail = state.tail.iter().copied().collect();
        if let Some(code) = state.code {
            client.tell(Event::Ended(code));
        }
        state.clients.push(client.clone());
        state.alone_since = None;
        drop(state);
        self.waker.wake();
        let attached = Attached {
            session: self.clone(),
            client,
            events,
            sleeper,
        };
        (attached, tail)
    }

    pub(super) fn clients(&self) -> usize {
        self.state.lock().clients.len()
    }

    pub(super) fn code(&self) -> Option<u8> {
        self.state.lock().code
    }

    pub(super) fn input(&self, bytes: &[u8]) {
        self.state.lock().input.extend(bytes);
        self.waker.wake();
    }

    pub(super) fn end_input(&self) {
        self.state.lock().input_ends = true;
        self.waker.wake();
    }

    pub(super) fn resize(&self, size: (u16, u16)) {
        self.state.lock().size = Some(size);
        self.waker.wake();
    }

    /// Signals the process group, if the process has not ended.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        let state = self.state.lock();
        // Not yet reaped, so the id is nobody else's.
        !state.leader_ended && kill_process_group(self.group, signal).is_ok()
    }

    /// Stops or continues the process group.
    pub(super) fn freeze(&self, is_frozen: bool) {
        let mut state = self.state.lock();
        if state.is_frozen != is_frozen && !state.leader_ended {
            state.is_frozen = is_frozen;
            let signal = if is_frozen {
                Signal::STOP
            } else {
                Signal::CONT
            };
            let _ = kill_process_group(self.group, signal);
        }
    }

    /// Has the clients look at the switches.
    pub(super) fn wake_clients(&self) {
        for client in &self.state.lock().clients {
            client.waker.wake();
        }
    }

    /// Ends the connections of all clients.
    pub(super) fn drop_clients(&self) {
        for client in &self.state.lock().clients {
            client.tell(Event::Dropped);
        }
    }

    /// Whether a client has so much to read that no more is to come.
    pub(super) fn is_full(&self) -> bool {
        let is_full = |client: &Arc<Client>| client.backlog.load(Ordering::SeqCst) >= BACKLOG;
        self.state.lock().clients.iter().any(is_full)
    }

    /// Hands output to every client, and keeps its end for those to come.
    pub(super) fn tell(&self, stream: u8, bytes: &[u8]) {
        let mut state = self.state.lock();
        for client in &state.clients {
            client.tell(Event::Output(stream, bytes.to_vec()));
        }
        state.tail.extend(bytes.iter().map(|&byte| (stream, byte)));
        let over = state.tail.len().saturating_sub(state.tail_size);
        state.tail.drain(..over);
    }

    /// Kills it without a word to its clients, as when the machine goes.
    pub(super) fn lose(&self) {
        self.state.lock().is_lost = true;
        self.drop_clients();
        self.signal(Signal::KILL);
    }

    /// Waits until everything of it has ended; gives the code.
    pub(super) fn wait(&self, time: Duration) -> Option<u8> {
        let until = Instant::now() + time;
        let mut state = self.state.lock();
        while state.code.is_none() {
            if self.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.code
    }
}

impl Client {
    pub(super) fn tell(&self, event: Event) {
        if let Event::Output(_, bytes) = &event {
            self.backlog.fetch_add(bytes.len(), Ordering::SeqCst);
        }
        let _ = self.events.send(event);
        self.waker.wake();
    }
}

impl Attached {
    /// The next thing that the client is to be told.
    pub(super) fn next(&self) -> Option<Event> {
        let event = self.events.try_recv().ok()?;
        if let Event::Output(_, bytes) = &event {
            let before = self.client.backlog.fetch_sub(bytes.len(), Ordering::SeqCst);
            if before >= BACKLOG {
                self.session.waker.wake();
            }
        }
        Some(event)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.session.state.lock();
        state
            .clients
            .retain(|client| !Arc::ptr_eq(client, &self.client));
        if state.clients.is_empty() {
            state.alone_since = Some(Instant::now());
        }
        drop(state);
        self.session.waker.wake();
    }
}
