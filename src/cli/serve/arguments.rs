//! The arguments of `serve`, made from the table of settings.

use std::collections::HashMap;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::cli::error::CliError;

use super::settings::{CONFIG_FLAG, CONFIG_VARIABLE, Setting, TABLE};

const CHECK: &str = "check";
/// The setting that `-v` is a short form of.
const LOG_LEVEL: &str = "log_level";

/// The arguments of `serve`. Their values are read later, so that all that is wrong is said at once.
#[derive(Clone, Debug)]
pub(crate) struct ServeArguments {
    /// Values by the name of the setting; several of one are joined with commas.
    pub(crate) flags: HashMap<String, String>,
    /// Print the configuration, and do no more.
    pub(crate) check: bool,
}

impl ServeArguments {
    /// Takes `-v` as what it is here: a level of the log.
    ///
    /// # Errors
    /// [`CliError`] when the level is set as well.
    pub(crate) fn with_verbosity(mut self, verbosity: u8) -> Result<Self, CliError> {
        let level = match verbosity {
            0 => return Ok(self),
            1 => "info",
            _ => "debug",
        };
        if self.flags.contains_key(LOG_LEVEL) {
            return Err(CliError::usage(
                "-v and --log-level both set the level of the log; give one of them",
            ));
        }
        self.flags.insert(LOG_LEVEL.to_owned(), level.to_owned());
        Ok(self)
    }
}

impl FromArgMatches for ServeArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names = TABLE.iter().filter(|setting| !setting.is_secret);
        let names = names.map(|setting| setting.name).chain([CONFIG_FLAG]);
        let flags = names.filter_map(|name| {
            let values = matches.get_many::<String>(name)?;
            let values: Vec<_> = values.map(String::as_str).collect();
            Some((name.to_owned(), values.join(",")))
        });
        Ok(Self {
            flags: flags.collect(),
            check: matches.get_flag(CHECK),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for ServeArguments {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG_FLAG)
            .long(CONFIG_FLAG)
            .value_name("FILE")
            .help(format!(
                "TOML file with settings; a flag counts before a variable, and that before the file \
                 [env: {CONFIG_VARIABLE}]"
            ));
        let check = Arg::new(CHECK).long(CHECK).action(ArgAction::SetTrue).help(
            "Print every setting, its value and where it came from, and everything that is wrong",
        );
        command
            .arg(config)
            .arg(check)
            .args(TABLE.iter().filter_map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Returns the flag of a setting; `None` for a secret.
fn argument(setting: &'static Setting) -> Option<Arg> {
    let text = setting.help.trim();
    let repeatable = if setting.is_list { " Repeatable." } else { "" };
    let default = match setting.default {
        "" => String::new(),
        default => format!("default: {default}, "),
    };
    let help = format!("{text}{repeatable} [{default}env: {}]", setting.variable);
    let action = if setting.is_list {
        ArgAction::Append
    } else {
        ArgAction::Set
    };
    let argument = Arg::new(setting.name)
        .long(setting.flag()?)
        .value_name(setting.value_name)
        // So that a wrong value is refused with the others.
        .allow_negative_numbers(true)
        .action(action)
        .help(help);
    Some(argument)
}
