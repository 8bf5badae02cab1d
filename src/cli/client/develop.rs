//! `dev install`: a plugin's directory, packed and on a host in one step.

use std::path::PathBuf;

use clap::Args;

use super::host::{HostArguments, Need};
use super::install::{Options, install};
use super::output;
use super::package::Package;
use crate::cli::error::{CliError, Status};
use crate::cli::package::left_out;

const EXAMPLES: &str = "\
Examples:
  plugin-runner dev install ./hello
  plugin-runner dev install ./hello --no-activate --json";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevInstall {
    /// The plugin's directory, with manifest.json or manifest.yaml.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Leave it as it is: what is new is not started.
    #[arg(long)]
    no_activate: bool,
    #[command(flatten)]
    host: HostArguments,
}

impl DevInstall {
    /// Carries the command out.
    ///
    /// # Errors
    /// [`CliError`] when it would not be installed, or as `install`.
    pub(in crate::cli) fn run(&self) -> Result<(), CliError> {
        let package = Package::in_directory(&self.directory)?;
        let need = if self.no_activate {
            Need::Place
        } else {
            Need::Host
        };
        let connection = self.host.connect(need)?;
        if let (
            Package::Archive {
                left_out: paths, ..
            },
            false,
        ) = (&package, self.host.json)
        {
            match output::print(&left_out(paths)) {
                // It is to be installed although nothing reads what is said.
                Err(failure) if failure.status() == Status::Done => {}
                printed => printed?,
            }
        }
        let options = Options {
            sha256: None,
            update: true,
            activate: !self.no_activate,
            json: self.host.json,
        };
        install(&connection, &package, &options)
    }
}
