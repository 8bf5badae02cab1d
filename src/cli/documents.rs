//! `completions` and `man`: what is made of the definition of the arguments for shells and for readers.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::client::output;
use super::error::CliError;

const COMPLETIONS: &str = "\
Examples:
  plugin-runner completions bash > plugin-runner.bash
  plugin-runner completions fish";
const MAN: &str = "\
Examples:
  plugin-runner man
  plugin-runner man dev package
  plugin-runner man --dir ./man1";

/// The arguments of `completions`.
#[derive(Args, Debug)]
#[command(after_help = COMPLETIONS)]
pub(crate) struct Completions {
    /// The shell that reads the script.
    shell: Shell,
}

/// The arguments of `man`.
#[derive(Args, Debug)]
#[command(after_help = MAN)]
pub(crate) struct ManualPage {
    /// The command that the page is about, such as dev package [default: the program].
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// Write the pages of all commands into this directory, which is made if need be.
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

impl Completions {
    /// Prints the script.
    ///
    /// # Errors
    /// [`CliError`] when it cannot be written.
    pub(crate) fn print(&self, program: Command) -> Result<(), CliError> {
        let mut program = shown(program);
        let name = program.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, name, &mut script);
        output::print(&String::from_utf8_lossy(&script))
    }
}

impl ManualPage {
    /// Prints the page, or writes all of them.
    ///
    /// # Errors
    /// [`CliError`] when there is no such command, or something cannot be written.
    pub(crate) fn print(&self, program: Command) -> Result<(), CliError> {
        let program = shown(program);
        if let Some(dir) = &self.dir {
            let written =
                fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(program, dir));
            return written.map_err(CliError::cannot(format!(
                "write the pages into {}",
                dir.display()
            )));
        }
        let mut program = program.disable_help_subcommand(true);
        // So that commands know what they belong to.
        program.build();
        let mut command = &program;
        for name in &self.command {
            command = command.find_subcommand(name).ok_or_else(|| {
                let called = self.command.join(" ");
                CliError::usage(format!(
                    "there is no command {called}; see plugin-runner --help"
                ))
            })?;
        }
        let mut page = Vec::new();
        let rendered = Man::new(command.clone()).render(&mut page);
        rendered.map_err(CliError::cannot("make the page"))?;
        output::print(&String::from_utf8_lossy(&page))
    }
}

/// Returns the definition without the commands that are hidden, which completions would show.
fn shown(program: Command) -> Command {
    let commands = program
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let shown = Command::new("plugin-runner")
        .version(env!("CARGO_PKG_VERSION"))
        .args(program.get_arguments().cloned())
        .subcommands(commands.cloned());
    let shown = match program.get_about() {
        Some(about) => shown.about(about.clone()),
        None => shown,
    };
    match program.get_after_help() {
        Some(text) => shown.after_help(text.clone()),
        None => shown,
    }
}
