//! The tables, and the steps that make them.

use rusqlite::{Connection, TransactionBehavior};

/// Marks a database as this crate's, in its header: the bytes `pRun`.
pub(super) const APPLICATION: u32 = 0x7052_756e;

/// Each step makes the schema of its position, counted from one, out of the one before. A released step
/// is never changed; new ones are added. What a new column needs besides is in `row`: `COLUMNS`, `since`,
/// `encode` and `decode`.
const MIGRATIONS: [&str; 5] = [
    // Times are nanoseconds since 1970, which `datetime(added_at / 1000000000, 'unixepoch')` shows. Paths
    // need not be UTF-8. A record that names an archive has the archive's size as well.
    "CREATE TABLE archive (
        sha256 TEXT NOT NULL PRIMARY KEY,
        size INTEGER NOT NULL,
        added_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE installation (
        id TEXT NOT NULL PRIMARY KEY,
        mode TEXT NOT NULL,
        manifest TEXT NOT NULL,
        active_state TEXT NOT NULL,
        active_state_changed_at INTEGER NOT NULL,
        added_at INTEGER NOT NULL,
        configuration TEXT NOT NULL,
        overrides TEXT NOT NULL,
        source_kind TEXT,
        source_path BLOB,
        archive_sha256 TEXT REFERENCES archive (sha256),
        archive_size INTEGER,
        token_digest TEXT,
        token TEXT
    ) STRICT;
    CREATE INDEX installation_archive ON installation (archive_sha256);
    CREATE INDEX installation_token_digest ON installation (token_digest);",
    "ALTER TABLE installation ADD COLUMN unsettled_configuration TEXT;",
    // The labels are an object of JSON; `labels ->> 'tenant'` shows one.
    "ALTER TABLE installation ADD COLUMN added_by TEXT;
    ALTER TABLE installation ADD COLUMN labels TEXT;",
    "CREATE TABLE note (
        key TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;",
    // A list of JSON objects. In the record's row, since which releases are kept changes with the one in use.
    "ALTER TABLE installation ADD COLUMN releases TEXT;",
];

/// The first schema that has notes.
pub(super) const WITH_NOTES: u32 = 4;

/// The newest known schema.
#[expect(clippy::cast_possible_truncation, reason = "there are few")]
pub(super) const SUPPORTED: u32 = MIGRATIONS.len() as u32;

/// Returns the version of a database's schema; 0 if it has none.
///
/// # Errors
/// What the database reports.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Migrates the schema from any older version to the newest, or changes nothing.
///
/// # Errors
/// What the database reports.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    // Immediate, so that no other program migrates between the check and the first step.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    if found < SUPPORTED {
        for migration in &MIGRATIONS[found as usize..] {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "user_version", SUPPORTED)?;
        log::debug!("brought the store's schema from {found} to {SUPPORTED}");
    }
    transaction.commit()
}
