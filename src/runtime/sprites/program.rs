//! What starts a plugin on a sprite: the words of a command, and what its standard input begins with.
//!
//! The words are in the URL of a request, so the environment is not among them: it comes over standard
//! input, each variable as `NAME=value` and a NUL, with one more NUL at the end. A shell reads it and becomes the
//! plugin, which so has the shell's process id, and its signals. Pure.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use zeroize::Zeroizing;

use super::exec::ExecCommand;
use crate::error::{Error, Result};
use crate::text::Foreign;

/// The status with which the shell ends if it has not started the plugin.
pub(super) const NOT_STARTED: i32 = 125;

/// Reads the environment, then becomes the program. `$1` is the base directory, `$2` the release and `$3` the
/// program.
///
/// All variables are exported at once, and late: from then on the script relies on none. Nothing but a failed
/// export ends it after that. Where the release is noted as the current one is no reason not to start it.
/// A redirection of standard input may follow at the end.
const SCRIPT: &str = r#"__pr_all=() __pr_whole=
__pr_fail() { printf 'plugin-runner: %s\n' "$1" >&2; exit 125; }
while IFS= read -r -d '' __pr_one; do
  [ -n "$__pr_one" ] || { __pr_whole=1; break; }
  __pr_all+=("$__pr_one")
done
[ -n "$__pr_whole" ] || __pr_fail 'the connection ended before the environment was there'
cd -- "$2" || __pr_fail 'the release cannot be used'
[ -d "$1/data" ] || mkdir -p -- "$1/data" || __pr_fail 'its data directory cannot be made'
printf %s "${2##*/}" > "$1/current"
export -- "${__pr_all[@]}" "PLUGIN_DATA_DIR=$1/data" || __pr_fail 'the environment cannot be set'
export HOME="${HOME-${1%/*}}" PATH="${PATH-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
exec -- "${@:3}""#;

/// Prefix of the variables of the script.
const OWN_PREFIX: &str = "__pr_";

/// Variables of the shell's own, which cannot be passed on through it.
const SHELL_VARIABLES: [&str; 29] = [
    "BASHOPTS",
    "BASHPID",
    "BASH_ALIASES",
    "BASH_ARGC",
    "BASH_ARGV",
    "BASH_CMDS",
    "BASH_COMMAND",
    "BASH_LINENO",
    "BASH_REMATCH",
    "BASH_SOURCE",
    "BASH_SUBSHELL",
    "BASH_VERSINFO",
    "DIRSTACK",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "LINENO",
    "PIPESTATUS",
    "PPID",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SHLVL",
    "SRANDOM",
    "UID",
    "_",
];

/// A plugin to be started on a sprite.
pub(crate) struct Program {
    words: Vec<String>,
    preamble: Zeroizing<Vec<u8>>,
    has_stdin: bool,
}

/// What a [`Program`] is made of. Paths are absolute, and those of the sprite.
#[derive(Clone, Copy)]
pub(crate) struct ProgramParts<'a> {
    /// The directory in which everything of the plugin is.
    pub(crate) base: &'a str,
    /// The directory with its files, in which it runs. The last part of its name is its archive's SHA-256.
    pub(crate) release: &'a str,
    /// Relative to the release if it has a slash; else looked up on the plugin's `PATH`.
    pub(crate) program: &'a str,
    pub(crate) args: &'a [String],
    /// Added to the environment that the sprite has for a login shell.
    pub(crate) variables: &'a BTreeMap<OsString, OsString>,
    /// Whether it reads standard input; else that is at its end.
    pub(crate) has_stdin: bool,
}

impl Program {
    /// # Errors
    /// [`Error::Setting`]: variables have names that a shell cannot set, or a NUL in their values; it has the
    /// names, and no value. Or the command has a NUL in it.
    pub(crate) fn new(parts: ProgramParts<'_>) -> Result<Self> {
        let refused = |refused: Vec<&OsStr>, problem: &str| {
            if refused.is_empty() {
                return Ok(());
            }
            let names: Vec<_> = refused.iter().map(|name| name.to_string_lossy()).collect();
            let names: Vec<_> = names
                .iter()
                .map(|name| format!("{:?}", Foreign::new(name)))
                .collect();
            let problem = format!("{problem}: {}", names.join(", "));
            Err(Error::setting("environment", problem))
        };
        let names = parts.variables.keys().map(OsString::as_os_str);
        refused(
            names.filter(|name| !can_be_set(name)).collect(),
            "these variables cannot be set by the shell that starts plugins on a sprite",
        )?;
        let with_nul = parts.variables.iter();
        let with_nul = with_nul.filter(|(_, value)| value.as_bytes().contains(&0));
        refused(
            with_nul.map(|(name, _)| name.as_os_str()).collect(),
            "the values of these variables have a NUL in them",
        )?;
        if parts.program.contains('\0') || parts.args.iter().any(|word| word.contains('\0')) {
            let problem = "the command or one of its arguments has a NUL in it";
            return Err(Error::setting("command", problem));
        }
        let script = if parts.has_stdin {
            SCRIPT.to_owned()
        } else {
            format!("{SCRIPT} </dev/null")
        };
        let words = ["bash", "-lc", &script, "plugin-runner"];
        let words = words
            .into_iter()
            .chain([parts.base, parts.release, parts.program]);
        let words = words.map(str::to_owned).chain(parts.args.iter().cloned());
        Ok(Self {
            words: words.collect(),
            preamble: preamble(parts.variables),
            has_stdin: parts.has_stdin,
        })
    }

    /// What its standard input begins with. Secret.
    pub(in crate::runtime::sprites) fn preamble(&self) -> &[u8] {
        &self.preamble
    }

    pub(super) fn has_stdin(&self) -> bool {
        self.has_stdin
    }

    /// Calls `act` with the command. `detached_limit` is how long it may run on without a connection.
    pub(super) fn with_command<T>(
        &self,
        detached_limit: Duration,
        act: impl FnOnce(&ExecCommand<'_>) -> T,
    ) -> T {
        let words: Vec<_> = self.words.iter().map(String::as_str).collect();
        act(&ExecCommand {
            command: &words,
            // The service's default, to which the login shell's profile adds.
            environment: &[],
            directory: "/",
            has_stdin: true,
            detached_limit,
        })
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}

/// Returns the environment as the script reads it.
fn preamble(variables: &BTreeMap<OsString, OsString>) -> Zeroizing<Vec<u8>> {
    let length = |(name, value): (&OsString, &OsString)| name.len() + value.len() + 2;
    let length: usize = variables.iter().map(length).sum();
    // Made at its full length: what a vector leaves behind when it grows is not overwritten.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
    for (name, value) in variables {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'=');
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
    }
    bytes.push(0);
    bytes
}

fn can_be_set(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let is_first = |next: char| next.is_ascii_alphabetic() || next == '_';
    name.starts_with(is_first)
        && name
            .chars()
            .all(|next| is_first(next) || next.is_ascii_digit())
        && !name.starts_with(OWN_PREFIX)
        && !SHELL_VARIABLES.contains(&name)
}
