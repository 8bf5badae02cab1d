//! `SqliteSettings`: what can be set about a store in a database of its own. No behaviour.

use std::time::Duration;

use crate::settings::settings;

settings! {
    /// How a [`SqliteStore`](super::SqliteStore) is opened.
    pub struct SqliteSettings {
        /// How long a write waits for another program that has locked the database, such as a `sqlite3`
        /// in which somebody has begun a transaction; and a store that is only read, for the owner's
        /// recovery from a crash. Default 5 s.
        busy_timeout, with_busy_timeout: Duration = Duration::from_secs(5);
    }
}
