//! The session's thread: it owns the reading half of the connection and waits for one when there is
//! none. It only reads; whatever must be written or run goes to others.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::inbound;
use super::problem::Problem;
use super::shared::SharedSession;
use crate::duplex::ReadingHalf;
use crate::error::Disconnect;
use crate::reaper::RunId;
use crate::rpc::Connection;
use crate::state::{ActiveState, PluginMode, ReportedState};
use crate::thread::panic_text;

/// A connection for the session's thread to read from.
pub(crate) struct NewConnection {
    pub(super) connection: Arc<Connection>,
    pub(super) reader: ReadingHalf,
    pub(super) run: RunId,
}

/// The body of the thread; ends when the session lets go of the sender.
pub(super) fn run(shared: &Arc<SharedSession>, readings: &Receiver<NewConnection>) {
    for reading in readings {
        let NewConnection {
            connection,
            reader,
            run,
        } = reading;
        let dispatch = {
            let (shared, connection) = (shared.clone(), connection.clone());
            Box::new(move |request| inbound::dispatch(&shared, &connection, request))
        };
        let read = AssertUnwindSafe(|| connection.read_until_end(reader, dispatch));
        // An embedder's transport or logger may panic: that ends this connection, not the session.
        let cause = panic::catch_unwind(read).unwrap_or_else(|panic| {
            let text = panic_text(&*panic);
            connection.abort(Disconnect::Violation(
                format!("reading panicked: {text}").into(),
            ))
        });
        shared.context.services.health.forget(&connection);
        disconnected(shared, &connection, run, cause.clone());
        // Last, and guarded for the same reason.
        let log = AssertUnwindSafe(|| log::info!("plugin {}: {cause}", shared.name));
        let _ = panic::catch_unwind(log);
    }
}

/// Updates the session at the end of a connection. Calls in flight have failed already.
fn disconnected(
    shared: &Arc<SharedSession>,
    connection: &Arc<Connection>,
    run: RunId,
    cause: Arc<Disconnect>,
) {
    // Before anybody can see that the connection has ended.
    shared.counters.rpc.count_end(&cause);
    let mut state = shared.state.lock();
    let is_current = state
        .connection
        .as_ref()
        .is_some_and(|current| Arc::ptr_eq(current, connection));
    if is_current {
        state.connection = None;
        if state.reported == ReportedState::Active && state.wanted == ActiveState::Active {
            let problem = Problem::lost(cause.to_string());
            shared.enter(&mut state, ReportedState::Connecting, Some(problem));
        }
        shared.drop_events();
    }
    if shared.mode == PluginMode::Supervised {
        // Under the lock, so that the reaper learns of it before it learns of a next connection.
        shared
            .context
            .services
            .reaper
            .disconnected(shared.child, run, cause);
    }
}
