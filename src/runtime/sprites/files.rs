//! Files on a sprite: read, write, list. Paths are absolute.

use serde::Deserialize;
use ureq::http::Method;

use super::client::{Client, LONG_ATTEMPT, Request, RequestBody};
use super::interrupt::Within;
use crate::error::{SpritesError, SpritesProblem};

/// The most bytes of a file that the service takes.
pub(crate) const FILE_LIMIT: usize = 16 * 1024 * 1024;

/// What relative paths would be relative to; the service wants to be told.
const ROOT: (&str, &str) = ("workingDir", "/");

/// An entry of a directory; other members are not looked at.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FileEntry {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) is_dir: bool,
}

#[derive(Deserialize)]
struct Listing {
    /// Null for an empty directory.
    #[serde(default)]
    entries: Option<Vec<FileEntry>>,
}

impl Client {
    /// Returns what the file holds. Fails with [`NotFound`](SpritesProblem::NotFound) if there is no such
    /// file, or no such sprite.
    pub(crate) fn read_file(
        &self,
        sprite: &str,
        path: &str,
        within: Within<'_>,
    ) -> Result<Vec<u8>, SpritesError> {
        let segments = ["sprites", sprite, "fs", "read"];
        let query = [("path", path), ROOT];
        let read = Request {
            query: &query,
            limit: FILE_LIMIT,
            attempt: LONG_ATTEMPT,
            ..Request::new("read a file on the sprite", Method::GET, &segments)
        };
        self.ask(&read, within)
    }

    /// Writes a file, and the directories above it. What was in it is replaced.
    pub(crate) fn write_file(
        &self,
        sprite: &str,
        path: &str,
        content: &[u8],
        mode: u32,
        within: Within<'_>,
    ) -> Result<(), SpritesError> {
        let segments = ["sprites", sprite, "fs", "write"];
        let mode = format!("{:04o}", mode & 0o777);
        // The service's documentation has one name for making directories, and its clients the other.
        let query = [
            ("path", path),
            ROOT,
            ("mode", &*mode),
            ("mkdirParents", "true"),
            ("mkdir", "true"),
        ];
        let write = Request {
            query: &query,
            body: RequestBody::File(content),
            attempt: LONG_ATTEMPT,
            ..Request::new("write a file on the sprite", Method::PUT, &segments)
        };
        if content.len() > FILE_LIMIT {
            let (size, limit) = (content.len(), FILE_LIMIT);
            let problem = SpritesProblem::FileTooLarge { size, limit };
            let action = write.action;
            return Err(SpritesError { action, problem });
        }
        self.ask(&write, within).map(drop)
    }

    /// Returns what is in a directory; for a file, the file alone.
    pub(crate) fn list_files(
        &self,
        sprite: &str,
        path: &str,
        within: Within<'_>,
    ) -> Result<Vec<FileEntry>, SpritesError> {
        let segments = ["sprites", sprite, "fs", "list"];
        let query = [("path", path), ROOT];
        let list = Request {
            query: &query,
            ..Request::new("list files on the sprite", Method::GET, &segments)
        };
        let listing: Listing = self.ask_json(&list, within)?;
        Ok(listing.entries.unwrap_or_default())
    }
}
