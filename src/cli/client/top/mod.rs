//! `top`: a live table of what plugins do and use.
//!
//! What is asked of the host and what is computed of it is in `usage`, what that looks like in `picture`, and the
//! terminal in `screen`. A thread asks, so that a key ends the program also while a host does not answer.

mod picture;
mod screen;
mod usage;

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use super::api::Api;
use super::events::{PATIENCE, PAUSE};
use super::host::{HostArguments, Need};
use super::output;
use super::table::terminal_width;
use crate::cli::duration;
use crate::cli::error::{CliError, Status};
use crate::cli::run::say;
use picture::Picture;
use screen::{Happened, Screen};
use usage::{Look, Round};

const EXAMPLES: &str = "\
Examples:
  plugin-runner top --once
  plugin-runner top --once --sort memory --interval 500ms
  plugin-runner top --once --json";

/// How short and how long an interval may be. For each look the host reads a file for each process of its machine.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// After so long without anything the terminal looks whether the thread that asks is still there.
const TICK: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Top {
    /// Between two looks, and what rates are measured over; from 100ms to 1h.
    #[arg(long, value_name = "D", default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// What comes first.
    #[arg(long, value_enum, value_name = "COLUMN", default_value_t = Sort::Name)]
    sort: Sort,
    /// Measure over one interval, show one table, and end.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    host: HostArguments,
}

/// The order of rows: by name, or the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    Name,
    Cpu,
    Memory,
    Calls,
}

impl Top {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let api = self.host.connect(Need::Host)?.api;
        let first = Look::at(&api)?;
        let is_live = io::stdin().is_terminal()
            && io::stdout().is_terminal()
            && std::env::var_os("TERM").is_none_or(|name| name != "dumb");
        if self.host.json {
            self.rounds(api, first)
        } else if is_live && !self.once {
            self.live(api, first)
        } else {
            let round = self.next_round(&api, &first)?.1;
            let width = terminal_width();
            let mut lines = vec![picture::summary(api.base(), &round, width)];
            lines.extend(picture::table(&round, self.sort, width));
            output::line(&lines.join("\n"))
        }
    }

    fn next_round(&self, api: &Api, before: &Look) -> Result<(Look, Round), CliError> {
        thread::sleep(self.interval.saturating_sub(before.elapsed()));
        let now = Look::at(api)?;
        let round = Round::between(Some(before), &now);
        Ok((now, round))
    }

    /// Prints JSON: once, or until the program is ended or its reader has left.
    fn rounds(&self, mut api: Api, mut before: Look) -> Result<(), CliError> {
        loop {
            match self.next_round(&api, &before) {
                Ok((look, round)) => {
                    before = look;
                    for row in round.sorted(self.sort) {
                        output::json(&row.to_json(&round.at))?;
                    }
                    if self.once {
                        return Ok(());
                    }
                }
                Err(failure) if failure.status() == Status::NoHost && !self.once => {
                    (api, before) = self.wait_for_host(&api)?;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn wait_for_host(&self, gone: &Api) -> Result<(Api, Look), CliError> {
        say(&format!(
            "the host at {} has gone; waiting for it",
            gone.base()
        ));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match find(&self.host) {
                Ok(found) => {
                    say("the host is back");
                    return Ok(found);
                }
                Err(failure)
                    if failure.status() != Status::NoHost || Instant::now() >= deadline =>
                {
                    return Err(failure);
                }
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// Shows the table on the terminal until the user ends it.
    fn live(&self, api: Api, first: Look) -> Result<(), CliError> {
        let cannot = CliError::cannot::<io::Error>;
        let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
        let (input, output) = own(io::stdin().as_fd())
            .and_then(|input| Ok((input, own(io::stdout().as_fd())?)))
            .map_err(cannot("use the terminal"))?;
        let mut picture = Picture::new(api.base(), self.sort, Round::between(None, &first));
        let mut screen = Screen::open(input, output).map_err(cannot("use the terminal"))?;
        let news = self.ask(
            api,
            first,
            screen.waker().map_err(cannot("use the terminal"))?,
        )?;
        loop {
            let lines = picture.lines(screen.size());
            screen
                .draw(&lines)
                .map_err(cannot("write to the terminal"))?;
            let happened = screen
                .wait(TICK)
                .map_err(cannot("read from the terminal"))?;
            if happened == Happened::End {
                return Ok(());
            }
            match news.try_recv() {
                Ok(News::Round(base, round)) => picture.show(&base, *round),
                Ok(News::Gone(why)) => picture.host_has_gone(&why),
                Ok(News::Failed(failure)) => return Err(failure),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    return Err("the thread that asks the host has ended".to_owned().into());
                }
            }
        }
    }

    /// Starts the thread that asks the host, and says when there is something new. It ends with the program, or with
    /// the receiver once it has something to say.
    fn ask(&self, api: Api, first: Look, waker: UnixStream) -> Result<Receiver<News>, CliError> {
        let (sender, receiver) = bounded(1);
        let asking = Asking {
            host: self.host.clone(),
            interval: self.interval,
            sender,
            waker,
        };
        thread::Builder::new()
            .name("top-ask".to_owned())
            .spawn(move || asking.run(api, first))
            .map_err(CliError::cannot("start a thread"))?;
        Ok(receiver)
    }
}

/// What the thread that asks has to say.
enum News {
    /// With the URL of the host, which may be another when it has come back.
    Round(String, Box<Round>),
    Gone(String),
    /// It asks no more.
    Failed(CliError),
}

struct Asking {
    host: HostArguments,
    interval: Duration,
    sender: Sender<News>,
    waker: UnixStream,
}

impl Asking {
    fn run(mut self, mut api: Api, first: Look) {
        let mut before = Some(first);
        loop {
            let pause = match &before {
                Some(before) => self.interval.saturating_sub(before.elapsed()),
                None => PAUSE,
            };
            thread::sleep(pause);
            let looked = match before {
                Some(_) => Look::at(&api),
                None => find(&self.host).map(|(found, look)| {
                    api = found;
                    look
                }),
            };
            let news = match looked {
                Ok(look) => {
                    let round = Round::between(before.as_ref(), &look);
                    before = Some(look);
                    News::Round(api.base().to_owned(), Box::new(round))
                }
                Err(failure) if failure.status() == Status::NoHost => {
                    before = None;
                    News::Gone(failure.to_string())
                }
                Err(failure) => News::Failed(failure),
            };
            let is_last = matches!(news, News::Failed(_));
            // Told one after the other: a byte for each.
            let is_told = self.sender.send(news).is_ok() && self.waker.write_all(&[0]).is_ok();
            if is_last || !is_told {
                return;
            }
        }
    }
}

/// Finds the host, which may have another address than before, and looks at it.
fn find(host: &HostArguments) -> Result<(Api, Look), CliError> {
    let api = host.connect(Need::Host)?.api;
    let look = Look::at(&api)?;
    Ok((api, look))
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text)?;
    if (SHORTEST..=LONGEST).contains(&interval) {
        Ok(interval)
    } else {
        Err("write a duration from 100ms to 1h".to_owned())
    }
}
