//! External plugins: the SDK on threads of the test, over memory and over real sockets.

use std::time::Duration;

use parking_lot::Mutex;
use plugin_runner::duplex::Duplex;
use plugin_runner::protocol::ResultObject;
use plugin_runner::sdk::{HostHandle, Plugin};
use serde_json::{Value, json};

use crate::oracle::Verdict;
use crate::random::Random;

/// So many live at once at most.
const MOST: usize = 12;

/// The peers that were begun and have not been seen to end.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<Vec<Peer>>);

#[derive(Debug)]
struct Peer {
    handle: HostHandle,
    thread: std::thread::JoinHandle<()>,
}

impl Peers {
    /// Whether there is room for one more.
    pub(crate) fn has_room(&self) -> bool {
        let mut peers = self.0.lock();
        peers.retain(|peer| !peer.thread.is_finished());
        peers.len() < MOST
    }

    /// Serves over this connection, on a thread of its own, until it ends.
    pub(crate) fn serve(&self, duplex: impl Duplex) {
        let plugin = Plugin::over(duplex).method_raw("echo", |_, params| {
            let params: Value = params.read()?;
            Ok(ResultObject::from_serialize(&json!({ "echo": params }))?)
        });
        let handle = plugin.host();
        let thread = std::thread::spawn(move || drop(plugin.run()));
        self.0.lock().push(Peer { handle, thread });
    }

    /// Ends one of them, if there are any.
    pub(crate) fn close_one(&self, random: &mut Random) -> bool {
        let handle = {
            let peers = self.0.lock();
            (!peers.is_empty()).then(|| peers[random.below(peers.len())].handle.clone())
        };
        handle.as_ref().map(HostHandle::close).is_some()
    }

    /// Ends all of them.
    pub(crate) fn close_all(&self, verdict: &Verdict) {
        let peers = std::mem::take(&mut *self.0.lock());
        for Peer { handle, thread } in peers {
            handle.close();
            if thread.join().is_err() {
                verdict.violate("an external plugin panicked");
            }
        }
    }
}

/// For connecting to a host that may be shutting down.
pub(crate) const CONNECT: Duration = Duration::from_secs(15);
