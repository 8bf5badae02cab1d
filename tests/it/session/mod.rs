//! Sessions and hosts, with plugins that the tests play themselves. Child processes and listeners
//! are tested elsewhere, with real ones.

/// The protocol's traps, as far as they are a session's business.
mod traps;

/// Calls to plugins that are answered.
mod calls;

/// Calls to plugins that fail, each with its own error.
mod failures;

/// What becomes of calls when the connection ends.
mod endings;

/// Calls from plugins.
mod inbound;

/// Transports of an embedder's that panic.
mod transports;

/// How many messages a plugin may send in a second.
mod rates;

/// The protocol's own calls from plugins: `access_get`, `get_config`, `robot_run`.
mod services;

/// One connection at a time.
mod connections;

/// Events.
mod events;

/// Waiting for the delivery of events.
mod delivery;

/// The hook on calls.
mod call_hook;

/// States, waiting for them, and hearing of them.
mod states;

/// Loading, unloading, draining, shutting down.
mod hosts;

/// Health checks over transports in memory and of embedders.
mod health;

/// Settings that cannot work, and runtimes that are not there.
mod settings;
