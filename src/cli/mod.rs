//! The program's arguments, and its logs. What the commands do is in `run` and
//! `validate`.
//!
//! Nothing here is used by the library, which knows neither arguments nor signals nor terminals.

mod client;
mod data_dir;
mod documents;
mod duration;
mod ending;
mod error;
mod init;
mod lines;
mod manifest_file;
mod output;
mod package;
mod pings;
mod printer;
mod private_file;
mod run;
mod sample;
mod serve;
mod signals;
mod source;
#[cfg(feature = "sprites")]
mod sprites;
mod temporary;
mod url;
mod validate;
mod yaml;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser, Subcommand};
use log::LevelFilter;
use plugin_runner::{Keeper, RuntimeProvider};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use simplelog::{ColorChoice, ConfigBuilder, TermLogger, TerminalMode};

use error::{CliError, STATUSES, Status};
use output::Paint;

const OUTPUT: &str = "\
Output, after the plugin's name:
  *  a state: inactive, starting, connecting, active, stopping, restarting, errored
  |  a line of its standard output
  !  a line of its standard error
  >  anything else: what came of a command, what a plugin asks of the host, where an external plugin connects
Colours are used on a terminal, unless NO_COLOR is set.
Durations are written 500ms, 3s, 1m30s or 1.5h.";

const SERVE: &str = "\
Secrets are in the environment alone: PLUGIN_RUNNER_ADMIN_TOKEN, the token that the HTTP API asks for, if it is in no file; and SPRITES_API_KEY.

While it runs, admin.json in the data directory has the URL of the HTTP API.

A quickstart, systemd, containers, backup, metrics and what to do about mistakes: src/OPERATE.md in the sources.

Examples:
  plugin-runner serve --check
  plugin-runner serve --data ./data --listen 127.0.0.1:0 --admin 127.0.0.1:0";

/// Longer lines are hard to read.
const WIDEST: usize = 120;

/// Hosts plugins: supervised child processes and authenticated WebSockets.
#[derive(Debug, Parser)]
#[command(name = "plugin-runner", version, max_term_width = WIDEST, after_help = STATUSES)]
struct Arguments {
    /// Log what happens to standard error; twice for more. For serve this is --log-level info, twice debug.
    #[arg(long, short, global = true, display_order = 900, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Author(AuthorCommand),
    /// Run what is installed in a directory, with an HTTP API to install, watch and call plugins.
    ///
    /// SIGINT and SIGTERM stop everything in order, within the stop grace and 17 s; a second one kills the plugins. SIGHUP reads the
    /// configuration again, and applies the log level, the limits of plugins and the allowed origins.
    #[command(after_help = SERVE)]
    Serve(serve::ServeArguments),
    /// For authors of plugins.
    #[command(subcommand)]
    Dev(DevCommand),
    #[command(flatten)]
    Client(client::ClientCommand),
    /// Print the script with which a shell completes commands and options.
    Completions(documents::Completions),
    /// Print a manual page, or write all of them.
    Man(documents::ManualPage),
    /// The built-in sample plugin; started by `run`.
    #[command(hide = true)]
    SamplePlugin,
    /// Ends what a killed host has left; started by `run`.
    #[command(hide = true)]
    Keeper,
}

/// What is a command of its own and also one of `dev`.
#[derive(Debug, Subcommand)]
enum AuthorCommand {
    /// Host plugins in the foreground until Ctrl-C or SIGTERM, then stop them in order.
    ///
    /// Ctrl-C, SIGTERM and SIGHUP stop all plugins in order; a second one kills them. Without PATH
    /// and --external a built-in sample plugin runs, and is pinged every second.
    ///
    /// On a terminal, or with --stdin, lines that are typed are commands: `call METHOD {…}`, `event NAME {…}`,
    /// `configure {…}`, `restart`, `stop`, `start`, `state`, `quit`, and `help`. What a plugin asks of the host is
    /// shown, and answered with --config and --answer.
    #[command(after_help = run::EXAMPLES, after_long_help = format!("{OUTPUT}\n\n{STATUSES}\n\n{}", run::EXAMPLES))]
    Run(Box<run::RunArguments>),
    /// Check directories and archives of plugins, and print every problem, not only the first.
    Validate(validate::ValidateArguments),
}

#[derive(Debug, Subcommand)]
enum DevCommand {
    #[command(flatten)]
    Author(AuthorCommand),
    /// Make the archive of a plugin's directory, the same bytes each time, and print what was left out.
    ///
    /// Left out are .git, .next, .DS_Store, links, empty directories, the manifest's source (the archive has
    /// manifest.json), the archive itself, and what .pluginignore says, in the syntax of .gitignore. What could not be
    /// installed is not packed.
    Package(package::PackageArguments),
    /// Pack a plugin's directory in memory, install it or update what is installed, and activate it.
    ///
    /// What is packed is what `dev package` packs. A new version that does not come up is taken back.
    Install(client::DevInstall),
}

/// A variable for plugins; without a value it is passed on from this program's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    name: String,
    value: Option<String>,
}

impl AuthorCommand {
    fn run(&self) -> Result<(), CliError> {
        match self {
            Self::Run(arguments) => run::run(arguments),
            Self::Validate(arguments) => validate::validate(arguments),
        }
    }
}

impl DevCommand {
    fn run(&self) -> Result<(), CliError> {
        match self {
            Self::Author(command) => command.run(),
            Self::Package(arguments) => package::package(arguments),
            Self::Install(install) => install.run(),
        }
    }
}

impl Command {
    /// Whether the program hosts plugins with it.
    const fn hosts(&self) -> bool {
        use AuthorCommand::Run;
        matches!(
            self,
            Self::Serve(_) | Self::Author(Run(_)) | Self::Dev(DevCommand::Author(Run(_)))
        )
    }

    /// Carries the command out.
    fn run(self, verbosity: u8) -> Result<(), CliError> {
        // Those have a log of their own, and none.
        if !matches!(self, Self::Serve(_) | Self::Keeper) {
            log_to_standard_error(verbosity);
        }
        match self {
            Self::Author(command) => command.run(),
            Self::Serve(arguments) => serve::serve(arguments.with_verbosity(verbosity)?),
            Self::Dev(command) => command.run(),
            Self::Client(command) => command.run(),
            Self::Completions(completions) => completions.print(Arguments::command()),
            Self::Man(page) => page.print(Arguments::command()),
            Self::SamplePlugin => sample::run().map_err(CliError::from),
            Self::Keeper => keep().map_err(|error| plugin_runner::Error::io("keep", error).into()),
        }
    }
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    // Of a container: it has more to do than to host.
    if arguments.command.hosts() && init::is_first_process() {
        return init::run().unwrap_or_else(|failure| fail(&failure));
    }
    let outcome = arguments.command.run(arguments.verbose);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &CliError) -> ExitCode {
    if !failure.is_said() {
        run::say(&failure.to_string());
    }
    failure.status().into()
}

/// Returns the keeper of a host in this program: the program itself. `None` where it cannot tell its path; then a
/// shell is.
fn keeper() -> Option<Keeper> {
    let program = std::env::current_exe().ok()?;
    Some(Keeper::Command {
        program,
        args: vec!["keeper".into()],
    })
}

/// Watches the host that started this process, and ignores the signals that can be ignored meanwhile.
fn keep() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    plugin_runner::keeper::serve()
}

/// Shows help, or says in one sentence what is wrong with the arguments.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // A reader that has left is no failure.
            let _ = error.print();
            match error.exit_code() {
                0 => Status::Done.into(),
                _ => Status::Usage.into(),
            }
        }
        _ => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            // After the first paragraph come usage and advice, which --help has at full length.
            let sentence = text.split("\n\n").next().unwrap_or(text);
            let sentence: Vec<_> = sentence.split_whitespace().collect();
            let failure = CliError::usage(sentence.join(" "));
            let way_out = way_out(error);
            let _ = writeln!(io::stderr(), "plugin-runner: {failure}; {way_out}");
            failure.status().into()
        }
    }
}

/// What commands of other programs are here: those of service managers, containers and package managers.
const INSTEAD: [(&str, &str); 22] = [
    ("add", "install"),
    ("upgrade", "update"),
    ("uninstall", "remove"),
    ("delete", "remove"),
    ("rm", "remove"),
    ("start", "activate"),
    ("enable", "activate"),
    ("stop", "deactivate"),
    ("disable", "deactivate"),
    ("kill", "deactivate"),
    ("reload", "restart"),
    ("ps", "list"),
    ("ls", "list"),
    ("status", "get"),
    ("info", "get"),
    ("show", "get"),
    ("inspect", "get"),
    ("log", "logs"),
    ("exec", "call"),
    ("emit", "publish"),
    ("stats", "top"),
    ("monit", "top"),
];

/// Returns what to write instead, as far as it can be guessed.
fn way_out(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        // The most similar comes last.
        Some(ContextValue::Strings(texts)) => texts.last().map(String::as_str),
        _ => None,
    };
    let word = context(ContextKind::InvalidSubcommand);
    let known = INSTEAD.iter().find(|(other, _)| word == Some(*other));
    if let Some((_, own)) = known {
        return format!("did you mean {own}?");
    }
    let similar = context(ContextKind::SuggestedArg).or(context(ContextKind::SuggestedSubcommand));
    if let Some(similar) = similar {
        return format!("did you mean {similar}?");
    }
    match word {
        Some(path) if is_like_a_path(path) => {
            format!("to host that plugin write plugin-runner run {path}")
        }
        _ => "see --help".to_owned(),
    }
}

/// Returns whether this was probably meant as the path of a plugin.
fn is_like_a_path(text: &str) -> bool {
    let path = Path::new(text);
    let archive = ["zip", "sdx"];
    text.contains('/')
        || path.exists()
        || path.extension().is_some_and(|end| {
            archive
                .iter()
                .any(|archive| end.eq_ignore_ascii_case(archive))
        })
}

/// Shows the library's log messages: warnings and errors at least, except for those about the end of a
/// plugin, which its states show already.
fn log_to_standard_error(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    let mut config = ConfigBuilder::new();
    config
        .set_location_level(LevelFilter::Off)
        // Ten lines for each request.
        .add_filter_ignore_str("ureq");
    if verbosity == 0 {
        config
            .set_time_level(LevelFilter::Off)
            .set_target_level(LevelFilter::Off)
            .set_thread_level(LevelFilter::Off)
            .add_filter_ignore_str("plugin_runner::session::supervision")
            // The end of a run says what could not be deleted.
            .add_filter_ignore_str("plugin_runner::runtime::sprites::cleanup");
    }
    let colour = if Paint::for_stream(&io::stderr()).is_coloured() {
        ColorChoice::Always
    } else {
        ColorChoice::Never
    };
    // Fails only if there is a logger already.
    let _ = TermLogger::init(level, config.build(), TerminalMode::Stderr, colour);
}

fn runtime(text: &str) -> Result<RuntimeProvider, String> {
    match text.parse() {
        Ok(RuntimeProvider::None) | Err(_) => Err("write local or sprites".to_owned()),
        Ok(provider) => Ok(provider),
    }
}

fn attempts(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| {
        let most = u32::MAX;
        format!("write a whole number from 0, which means none, to {most}")
    })
}

/// Checks the form of an address; whether it can be bound shows later.
fn address(text: &str) -> Result<String, String> {
    let port = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(_) => Ok(text.to_owned()),
        None => Err("write an address and a port, such as 127.0.0.1:8000".to_owned()),
    }
}

fn variable(text: &str) -> Result<Variable, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err("write NAME or NAME=VALUE".to_owned());
    }
    let name = name.to_owned();
    Ok(Variable { name, value })
}

#[cfg(test)]
mod tests {
    use plugin_runner::{RestartPolicy, Timeouts};

    use super::*;
    use run::RunArguments;

    fn parse(arguments: &[&str]) -> Result<RunArguments, clap::Error> {
        let arguments = ["plugin-runner", "run"].iter().chain(arguments);
        match Arguments::try_parse_from(arguments)?.command {
            Command::Author(AuthorCommand::Run(arguments)) => Ok(*arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_is_called_otherwise_elsewhere_is_no_command_and_its_name_here_is() {
        let commands = Arguments::command();
        let is_there = |name: &str| commands.get_subcommands().any(|one| one.get_name() == name);
        for (other, own) in INSTEAD {
            assert!(!is_there(other) && is_there(own), "{other}: {own}");
        }
    }

    #[test]
    fn defaults_are_the_librarys() {
        let arguments = parse(&[]).unwrap();
        let policy = RestartPolicy::default()
            .max_restart_attempts(arguments.max_restart_attempts)
            .max_backoff(arguments.max_backoff)
            .crash_threshold(arguments.crash_threshold)
            .crash_backoff(arguments.crash_backoff);
        assert_eq!(policy, RestartPolicy::default());
        let timeouts = Timeouts::default()
            .stop_grace(arguments.stop_grace)
            .connect(arguments.connect_timeout);
        assert_eq!(timeouts, Timeouts::default());
    }

    #[test]
    fn variables_have_a_value_or_are_passed_on() {
        let arguments = parse(&["--env", "A", "--env", "B=", "--env", "C=d=e"]).unwrap();
        let variables: Vec<_> = arguments
            .env
            .iter()
            .map(|variable| (variable.name.as_str(), variable.value.as_deref()))
            .collect();
        assert_eq!(
            variables,
            [("A", None), ("B", Some("")), ("C", Some("d=e"))]
        );
        assert!(parse(&["--env", "=x"]).is_err());
    }

    #[test]
    fn addresses_have_a_port() {
        for good in ["127.0.0.1:0", "[::1]:8000", "localhost:80", "0.0.0.0:65535"] {
            assert_eq!(address(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "8000",
            ":8000",
            "localhost",
            "localhost:",
            "a:65536",
            "a:b",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
