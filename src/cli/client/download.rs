//! `download`: the package of a plugin.

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;

use clap::Args;
use serde_json::json;
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::host::{HostArguments, Need};
use super::progress::Transfer;
use super::{output, plugins};
use crate::cli::error::CliError;

const EXAMPLES: &str = "\
Examples:
  plugin-runner download hello
  plugin-runner download hello --output - > copy.zip";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Download {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    /// Where to; - is standard output [default: its id and version with .zip, in the working directory].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    host: HostArguments,
}

impl Download {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let to_stdout = self.output.as_deref() == Some(Path::new("-"));
        if to_stdout && io::stdout().is_terminal() {
            return Err(CliError::usage(
                "a package is nothing to look at; redirect standard output, or name a file with --output",
            ));
        }
        let connection = self.host.connect(Need::Installed)?;
        let api = &connection.api;
        let plugin = plugins::find(api, &self.plugin)?;
        let output = self.output.clone().unwrap_or_else(|| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
            let name = format!("{}-{}", plugin.manifest.id, plugin.version);
            let name: String = name.chars().filter(|c| is_plain(*c)).collect();
            format!("{}.zip", name.trim_matches(['-', '.'])).into()
        });
        if output.is_dir() {
            let output = output.display();
            return Err(CliError::usage(format!(
                "{output} is a directory; name the file"
            )));
        }
        if !to_stdout && !self.force && output.symlink_metadata().is_ok() {
            return Err(exists(&output));
        }
        let response = api.open(&plugin.path("/package"));
        let mut response = response.map_err(|error| error.about(plugin.called()))?;
        let length = response.body().content_length();
        let transfer = Transfer::new("downloading", length);
        let mut body = transfer.reading(response.body_mut().as_reader());
        if to_stdout {
            let mut stdout = io::stdout().lock();
            let copied =
                io::copy(&mut Incoming(&mut body), &mut stdout).and_then(|_| stdout.flush());
            return copied.map_err(|error| failed(&connection.api, error, "standard output"));
        }
        let size = write(&output, self.force, &mut body).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(&output),
            _ => failed(&connection.api, error, &output.display().to_string()),
        })?;
        drop(body);
        drop(transfer);
        if self.host.json {
            return output::json(
                &json!({ "installation": plugin.id, "file": output, "bytes": size }),
            );
        }
        output::line(&format!(
            "{} is in {}, {size} bytes",
            plugin.called(),
            output.display()
        ))
    }
}

/// Marks what the host's side does, so that it is not taken for a failure of the disk.
struct Incoming<R>(R);

#[derive(Debug)]
struct BrokenOff(io::Error);

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BrokenOff {}

impl<R: Read> Read for Incoming<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0
            .read(buffer)
            .map_err(|error| io::Error::other(BrokenOff(error)))
    }
}

fn failed(api: &super::api::Api, error: io::Error, place: &str) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CliError::reader_has_left();
    }
    match error.downcast::<BrokenOff>() {
        Ok(BrokenOff(error)) => api.broken(&error),
        Err(error) => CliError::cannot(format!("write to {place}"))(error),
    }
}

/// Writes a file that is there whole or not at all, and returns its size.
fn write(output: &Path, replace: bool, body: &mut dyn Read) -> io::Result<u64> {
    let mut unfinished = output.as_os_str().to_owned();
    unfinished.push(format!(".{}.unfinished", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    // A signal ends this program with nothing left, also while it waits for the host.
    let mut signals = Signals::new(TERM_SIGNALS)?;
    let handle = signals.handle();
    let doomed = unfinished.clone();
    let cleaner = thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                let _ = fs::remove_file(&doomed);
                let _ = emulate_default_handler(signal);
            }
        })?;
    let written = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&unfinished)?;
        let size = io::copy(&mut Incoming(body), &mut file)?;
        file.sync_all()?;
        if replace {
            fs::rename(&unfinished, output)?;
        } else {
            // Unlike renaming, this fails if the file exists.
            fs::hard_link(&unfinished, output)?;
        }
        Ok(size)
    };
    let outcome = written();
    let _ = fs::remove_file(&unfinished);
    handle.close();
    let _ = cleaner.join();
    outcome
}

fn exists(output: &Path) -> CliError {
    let output = output.display();
    format!("{output} exists; --force replaces it, and --output names another").into()
}
