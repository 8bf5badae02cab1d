//! A fake of the Sprites service: the documented API on this machine, with real child processes.
//!
//! ```ignore
//! let fake = Fake::start();
//! fake.set(|switches| {
//!     let limited = Answer::rate_limited("sprite_creation_rate_limited", Some(1), None);
//!     switches.next(2, "POST /v1/sprites", Fault::Answer(limited));
//! });
//! // A client with `fake.url()` and `fake.token()` makes a sprite.
//! assert_eq!(fake.calls().count("POST /v1/sprites"), 3);
//! fake.finish();
//! ```
//!
//! A sprite's files are in a directory of this machine, and its commands are ordinary children; see `place` for what
//! they are told. What is left of a process group when its leader has ended is killed. What has left the
//! group is not seen.

mod calls;
mod clock;
mod command;
mod exec;
mod files;
mod http;
mod kill;
mod place;
mod serve;
mod service;
mod session;
mod sprite;
mod stream;
mod switches;
mod tls;
mod wake;
mod work;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustls::ServerConfig;

pub(crate) use calls::{Call, Calls};
pub(crate) use files::LARGEST;
pub(crate) use http::Answer;
pub(crate) use sprite::Status;
pub(crate) use switches::{Exit, Fault, Info, SocketFault, Switches, Unstartable, frame};
pub(crate) use tls::{Certificate, Root};

use service::Service;

/// A service of one's own. Its end waits for its threads and children, and removes its files.
pub(crate) struct Fake {
    service: Arc<Service>,
    address: SocketAddr,
    scheme: &'static str,
    root: PathBuf,
    accepting: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        Self::with("http", None)
    }

    /// The same over TLS, and the root to trust. Its URL is for `localhost`.
    pub(crate) fn over_tls(certificate: Certificate) -> (Self, Root) {
        let (root, config) = tls::make(certificate);
        (Self::with("https", Some(config)), root)
    }

    fn with(scheme: &'static str, tls: Option<Arc<ServerConfig>>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let above =
            option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let root = above.join(format!("fake-sprites-{}-{count}", std::process::id()));
        fs::create_dir_all(&root).expect("a directory");
        let root = root.canonicalize().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        // With slashes, as the real ones.
        let token = format!("fake-org/{count}/tok-1/secret-{}", std::process::id());
        let service = Arc::new(Service::new(&token, root.clone()));
        let serving = service.clone();
        let accepting = std::thread::spawn(move || accept(&serving, &listener, tls.as_ref()));
        Self {
            service,
            address,
            scheme,
            root,
            accepting: Some(accepting),
        }
    }

    /// The base URL, as for `SPRITES_API_URL`.
    pub(crate) fn url(&self) -> String {
        let host = if self.scheme == "https" {
            "localhost"
        } else {
            "127.0.0.1"
        };
        format!("{}://{host}:{}", self.scheme, self.address.port())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The only token that is good.
    pub(crate) fn token(&self) -> &str {
        &self.service.token
    }

    /// Sets switches. Those about sockets that are open hold at once.
    pub(crate) fn set(&self, set: impl FnOnce(&mut Switches)) {
        let is_away = {
            let mut switches = self.service.switches();
            set(&mut switches);
            switches.away
        };
        if is_away {
            self.service.cut_connections();
        }
        self.service.wake_clients();
    }

    /// Everything that was asked so far.
    pub(crate) fn calls(&self) -> Calls {
        self.service.calls.lock().clone()
    }

    /// Forgets what was asked so far. Not while a request is being answered.
    pub(crate) fn forget_calls(&self) {
        self.service.calls.lock().0.clear();
    }

    /// The names of all sprites, sorted.
    pub(crate) fn sprites(&self) -> Vec<String> {
        self.service.names()
    }

    pub(crate) fn status(&self, sprite: &str) -> Option<Status> {
        self.service.with(sprite, |sprite| sprite.status)
    }

    /// The ids of a sprite's sessions, which are those of their processes.
    pub(crate) fn sessions(&self, sprite: &str) -> Vec<u32> {
        let ids = self
            .service
            .with(sprite, |sprite| sprite.sessions.keys().copied().collect());
        ids.unwrap_or_default()
    }

    /// The most sessions that a sprite has had at once.
    pub(crate) fn most_sessions(&self, sprite: &str) -> usize {
        let most = self.service.with(sprite, |sprite| sprite.most_sessions);
        most.unwrap_or(0)
    }

    /// How many sockets are attached to a sprite's sessions.
    pub(crate) fn attached(&self, sprite: &str) -> usize {
        let clients = self.service.with(sprite, |sprite| {
            sprite
                .sessions
                .values()
                .map(|session| session.clients())
                .sum()
        });
        clients.unwrap_or(0)
    }

    /// Where a path of a sprite is on this machine.
    pub(crate) fn path(&self, sprite: &str, path: &str) -> Option<PathBuf> {
        self.service.with(sprite, |sprite| sprite.place.of(path))
    }

    /// Ends the exec connections of a sprite without a close frame; its sessions go on.
    pub(crate) fn cut(&self, sprite: &str) {
        self.service.with(sprite, |sprite| {
            sprite
                .sessions
                .values()
                .for_each(|session| session.drop_clients());
        });
    }

    /// Stops a sprite's processes where they are and ends its connections, until it is next used.
    pub(crate) fn go_warm(&self, sprite: &str) {
        self.service.with(sprite, sprite::Sprite::go_warm);
    }

    /// Ends a sprite's processes, sessions and connections; its files stay.
    pub(crate) fn go_cold(&self, sprite: &str) {
        self.service.with(sprite, sprite::Sprite::go_cold);
    }

    /// Ends it; asserts that nothing is left, and that nothing of it panicked.
    pub(crate) fn finish(self) {
        drop(self);
    }

    fn end(&mut self) -> std::thread::Result<()> {
        self.service.stop();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        let mut ended = self.accepting.take().map_or(Ok(()), JoinHandle::join);
        // Those that were accepted meanwhile.
        self.service.stop();
        loop {
            let threads = std::mem::take(&mut *self.service.threads.lock());
            if threads.is_empty() {
                break;
            }
            for thread in threads {
                ended = ended.and(thread.join());
            }
        }
        let removed = fs::remove_dir_all(&self.root);
        ended.map(|()| removed.expect("a directory of ours"))
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let ended = self.end();
        if !std::thread::panicking() {
            let has_panicked = self.service.has_panicked.load(Ordering::SeqCst);
            assert!(
                ended.is_ok() && !has_panicked,
                "a thread of the fake panicked: see above"
            );
            assert!(
                self.service.connections.lock().is_empty(),
                "connections are left"
            );
        }
    }
}

fn accept(service: &Arc<Service>, listener: &TcpListener, tls: Option<&Arc<ServerConfig>>) {
    for number in 0_u64.. {
        let accepted = listener.accept();
        if service.has_ended() {
            return;
        }
        // Whoever has gone already is nobody.
        let Ok((stream, _)) = accepted else { continue };
        let (serving, tls) = (service.clone(), tls.cloned());
        service.spawn(move || serve::serve(&serving, number, stream, tls));
    }
}
