//! `SqliteSettings`: the settings of an SQLite store. No behaviour.

use std::time::Duration;

use crate::settings::settings;

settings! {
    /// The settings of a [`SqliteStore`](super::SqliteStore).
    pub struct SqliteSettings {
        /// How long a write, and opening, waits for another program that has locked the database, such as
        /// a `sqlite3` with an open transaction. Default 5 s.
        busy_timeout: Duration = Duration::from_secs(5);
    }
}
