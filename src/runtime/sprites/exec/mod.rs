//! Programs on a sprite: start one, attach to one, list them, kill one.
//!
//! `upgrade` opens the socket on which a program's output comes, `socket` is that socket in use, `frame` is
//! what goes over it, and `kill` what the service says while it ends a program.

mod frame;
mod kill;
mod socket;
mod upgrade;

use std::time::Duration;

use serde::Deserialize;
use ureq::http::Method;
use zeroize::Zeroizing;

pub(crate) use self::frame::ExecEvent;
pub(crate) use self::kill::KillReport;
pub(crate) use self::socket::{ExecReader, ExecWriter};

use self::kill::KillLines;
use super::client::{ATTEMPT, Client, Request, repeat, repeat_after};
use super::endpoint;
use super::interrupt::Within;
use super::retry::is_without_effect;
use crate::duplex::websocket::client_binary;
use crate::error::{SpritesError, SpritesProblem};

/// The time for one attempt at opening a socket. A sprite that has slept for long takes a while to wake.
const OPEN_ATTEMPT: Duration = Duration::from_secs(60);

/// The most bytes of standard input in one message while a socket is opened.
const INPUT_PIECE: usize = 64 * 1024;

/// A program to start. All of it is in the URL of the request, so none of it may be secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExecCommand<'a> {
    /// The program and its arguments; no shell reads them.
    pub(crate) command: &'a [&'a str],
    /// Its whole environment; nothing is added where there is something in it.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    pub(crate) directory: &'a str,
    /// Whether it reads what [`ExecWriter`] writes. If not, its standard input is at its end.
    pub(crate) has_stdin: bool,
    /// How long it may run on without a connection.
    pub(crate) detached_limit: Duration,
}

/// A program that runs on a sprite; other members are not looked at.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct ExecSession {
    #[serde(deserialize_with = "frame::id")]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) command: String,
}

/// The service has had both shapes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Sessions {
    Bare(Vec<ExecSession>),
    Named {
        #[serde(default)]
        sessions: Option<Vec<ExecSession>>,
    },
}

impl Client {
    /// Starts a program. It is tried again only if it is certain that it was not started: after any other
    /// failure it may run.
    pub(crate) fn start(
        &self,
        sprite: &str,
        command: &ExecCommand<'_>,
        within: Within<'_>,
    ) -> Result<(ExecReader, ExecWriter), SpritesError> {
        let (reader, writer) = self.start_with(sprite, command, &[], within)?;
        if !command.has_stdin {
            writer.end_stdin(within)?;
        }
        Ok((reader, writer))
    }

    /// Starts a program and writes what its standard input begins with, which is in no log. If the connection
    /// ends meanwhile, the reading half tells what the service has said.
    pub(crate) fn start_with(
        &self,
        sprite: &str,
        command: &ExecCommand<'_>,
        input: &[u8],
        within: Within<'_>,
    ) -> Result<(ExecReader, ExecWriter), SpritesError> {
        let segments = ["sprites", sprite, "exec"];
        let query = start_query(command);
        let query: Vec<_> = query.iter().map(|(key, value)| (*key, &**value)).collect();
        let action = "start a program on the sprite";
        repeat_after(is_without_effect, (action, sprite), within, |within| {
            self.open_socket(&segments, &query, input, within)
        })
    }

    /// Connects to a program that runs. What it printed without a connection may be missing. Fails
    /// with [`NotFound`](SpritesProblem::NotFound) if it has ended.
    pub(crate) fn attach(
        &self,
        sprite: &str,
        session: &str,
        has_stdin: bool,
        within: Within<'_>,
    ) -> Result<(ExecReader, ExecWriter), SpritesError> {
        let segments = ["sprites", sprite, "exec", session];
        let stdin = if has_stdin { "true" } else { "false" };
        let action = "attach to a program on the sprite";
        repeat((action, sprite), within, |within| {
            self.open_socket(&segments, &[("stdin", stdin)], &[], within)
        })
    }

    /// Returns the programs that run on the sprite.
    pub(crate) fn sessions(
        &self,
        sprite: &str,
        within: Within<'_>,
    ) -> Result<Vec<ExecSession>, SpritesError> {
        let segments = ["sprites", sprite, "exec"];
        let list = Request::new("list the programs on the sprite", Method::GET, &segments);
        let sessions: Sessions = self.ask_json(&list, within)?;
        Ok(match sessions {
            Sessions::Bare(sessions) => sessions,
            Sessions::Named { sessions } => sessions.unwrap_or_default(),
        })
    }

    /// Sends a program's process group a signal such as `INT`, waits until it has ended, and after `grace`
    /// ends it by SIGKILL; the service does all three. That there is no such program is no failure.
    pub(crate) fn kill(
        &self,
        sprite: &str,
        session: &str,
        signal: &str,
        grace: Duration,
        within: Within<'_>,
    ) -> Result<KillReport, SpritesError> {
        let segments = ["sprites", sprite, "exec", session, "kill"];
        let timeout = whole_seconds(grace);
        let query = [("signal", signal), ("timeout", &*timeout)];
        let kill = Request {
            query: &query,
            attempt: grace.saturating_add(ATTEMPT),
            ..Request::new("kill a program on the sprite", Method::POST, &segments)
        };
        let shown = |mut problem| {
            if let SpritesProblem::Unavailable { message, .. } = &mut problem {
                *message = self.without_token(message).into();
            }
            problem
        };
        repeat((kill.action, sprite), within, |within| {
            let mut reply = match self.open(&kill, within.at_most(kill.attempt)) {
                Ok(reply) => reply,
                Err(SpritesProblem::NotFound) => return Ok(KillReport::default()),
                Err(problem) => return Err(problem),
            };
            let mut lines = KillLines::default();
            let mut part = [0; 4096];
            loop {
                let count = reply.read(&mut part)?;
                if count == 0 {
                    return lines.end().map_err(shown);
                }
                if let Some(report) = lines.take(&part[..count]).map_err(shown)? {
                    return Ok(report);
                }
            }
        })
    }

    fn open_socket(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
        input: &[u8],
        within: Within<'_>,
    ) -> Result<(ExecReader, ExecWriter), SpritesProblem> {
        if !segments.iter().all(|segment| endpoint::is_segment(segment)) {
            return Err(SpritesProblem::Input(
                "a name or an id is empty or too long",
            ));
        }
        let target = self.endpoint().target(segments, query);
        let within = within.at_most(OPEN_ATTEMPT);
        let (mut link, already_read) = upgrade::upgrade(self, &target, within)?;
        // Before tungstenite has the connection: it logs what it writes.
        for piece in input.chunks(INPUT_PIECE) {
            let frame = Zeroizing::new(client_binary(&Zeroizing::new(frame::stdin(piece))));
            match link.write_within(&frame, within) {
                Ok(()) => {}
                // What has come before the end is yet to be read.
                Err(SpritesProblem::Broken(_)) => break,
                Err(problem) => return Err(problem),
            }
        }
        socket::open(self.clone(), link, already_read).map_err(SpritesProblem::Unreachable)
    }
}

fn start_query(command: &ExecCommand<'_>) -> Vec<(&'static str, String)> {
    let words = command.command.iter();
    let mut query: Vec<_> = words.map(|word| ("cmd", (*word).to_owned())).collect();
    if let Some(program) = command.command.first() {
        query.push(("path", (*program).to_owned()));
    }
    for (name, value) in command.environment {
        query.push(("env", format!("{name}={value}")));
    }
    query.push(("dir", command.directory.to_owned()));
    query.push(("stdin", command.has_stdin.to_string()));
    let limit = whole_seconds(command.detached_limit);
    query.push(("max_run_after_disconnect", limit));
    query
}

/// Returns a time as the service reads it: whole seconds, and not 0, which may mean something else.
fn whole_seconds(time: Duration) -> String {
    let rounded = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    format!("{}s", rounded.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_in_the_query_word_for_word() {
        let query = start_query(&ExecCommand {
            command: &["bash", "-lc", "exec \"$@\" & x"],
            environment: &[("PATH", "/bin:/usr/bin"), ("LANG", "C=1")],
            directory: "/home/sprite/a b",
            has_stdin: false,
            detached_limit: Duration::from_secs(60),
        });
        let query: Vec<_> = query.iter().map(|(key, value)| (*key, &**value)).collect();
        assert_eq!(
            query,
            [
                ("cmd", "bash"),
                ("cmd", "-lc"),
                ("cmd", "exec \"$@\" & x"),
                ("path", "bash"),
                ("env", "PATH=/bin:/usr/bin"),
                ("env", "LANG=C=1"),
                ("dir", "/home/sprite/a b"),
                ("stdin", "false"),
                ("max_run_after_disconnect", "60s"),
            ]
        );
    }

    #[test]
    fn both_shapes_of_a_list_are_read() {
        let read = |json: &str| match serde_json::from_str(json).unwrap() {
            Sessions::Bare(sessions) => sessions,
            Sessions::Named { sessions } => sessions.unwrap_or_default(),
        };
        for json in [
            r#"{"count":1,"sessions":[{"id":"7","command":"x","tty":false}]}"#,
            r#"[{"id":7,"command":"x"}]"#,
        ] {
            let id = "7".to_owned();
            let command = "x".to_owned();
            assert_eq!(read(json), [ExecSession { id, command }], "{json}");
        }
        for json in ["[]", r#"{"sessions":null}"#, r#"{"sessions":[]}"#] {
            assert_eq!(read(json), [], "{json}");
        }
    }

    #[test]
    fn times_are_whole_seconds_and_never_none() {
        for (time, text) in [(0, "1s"), (1, "1s"), (3_000, "3s"), (3_001, "4s")] {
            assert_eq!(whole_seconds(Duration::from_millis(time)), text);
        }
    }
}
