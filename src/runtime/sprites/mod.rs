//! The client of Sprites, a service that runs programs in remote sandboxes: a small blocking one, for what
//! plugins need of it.
//!
//! Every call is bounded by a [`Within`]: it ends at a deadline, or soon after its [`Interrupt`] is
//! cancelled from another thread. It blocks the calling thread alone, which polls the connection together with
//! the interrupt; only the look-up of the service's name runs on a thread of its own, since nothing ends that.
//! What the service decides the size of is read with a bound. Redirects are not followed. The token is in the
//! `Authorization` header and nowhere else, and no error has a part of it or of a file's content.
//!
//! Calls that may be made twice are: see `retry`. A failure of the service or of the network is never a
//! failure of a plugin.
//!
//! `program` is how a plugin is started, and `run` follows it to its end.
//!
//! `endpoint` reads the base URL, `link` is one connection, `transport` puts it under the HTTP client,
//! `client` makes requests, `answer` judges what comes back, `sprite`, `files` and `exec` are the calls, and
//! `interrupt` ends them. `release` is what a plugin's files are on a sprite; `deploy` brings them there, with
//! `upload`, `lanes`, `room`, `script` and `deploy.sh`. `cleanup` deletes the sprites that are not needed any more.

mod answer;
mod cleanup;
mod client;
mod deploy;
mod endpoint;
mod exec;
mod files;
mod interrupt;
mod lanes;
mod link;
mod program;
mod release;
mod retry;
mod room;
mod run;
mod runtime;
mod script;
mod settings;
mod sprite;
#[cfg(test)]
mod tests;
mod transport;
mod upload;

pub(crate) use client::{Client, ClientSettings};
pub(crate) use interrupt::Within;
pub(crate) use runtime::{Sprites, SpritesHost};
pub use settings::SpritesSettings;
