//! The arguments of `run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use plugin_runner::RuntimeProvider;

use super::answers::{Answer, answer};
use crate::cli::serve::values::{self, Size};
use crate::cli::{Variable, address, attempts, duration, runtime, url, variable};

/// The arguments of `run`.
#[derive(Args, Debug)]
pub(crate) struct RunArguments {
    /// Directories with manifest.json or manifest.yaml, run in place, and zip archives, unpacked below the data directory.
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Directory for packages, logs and plugin data, used by one run at a time; kept, and found again
    /// by a later run of the same paths [default: a temporary directory, removed at the end].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Address on which plugins connect; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = address)]
    pub(crate) listen: String,
    /// Where plugins run: local, as child processes; or sprites, in remote sandboxes.
    ///
    /// Sprites, to which plugins are uploaded, need --public-url, SPRITES_API_KEY in the environment, and
    /// SPRITES_API_URL if the service is not at https://api.sprites.dev. Without --data they are deleted at the
    /// end. With it they stay, and are paid for, until they are deleted at the service; their names begin
    /// with `pr-`.
    #[arg(long, value_name = "NAME", default_value = "local", value_parser = runtime)]
    pub(crate) runtime: RuntimeProvider,
    /// URL at which plugins reach the address of --listen, such as wss://plugins.example.com
    /// [default: that address; sprites need a URL].
    #[arg(long, value_name = "URL", value_parser = url::public_url)]
    pub(crate) public_url: Option<String>,
    /// Manifest file of an external plugin: prints the URL that it must connect with. Repeatable.
    #[arg(long, value_name = "MANIFEST")]
    pub(crate) external: Vec<PathBuf>,
    /// Print one JSON object per line, for programs.
    #[arg(long)]
    pub(crate) json: bool,
    /// Environment variable for the plugins, this program's own or with a value. Repeatable.
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub(crate) env: Vec<Variable>,
    /// Restarts in a row before a plugin is given up.
    #[arg(long, value_name = "N", default_value_t = 3, allow_negative_numbers = true, value_parser = attempts)]
    pub(crate) max_restart_attempts: u32,
    /// Longest wait before a restart; the waits are 1s, 2s, 4s and so on.
    #[arg(long, value_name = "D", default_value = "60s", allow_hyphen_values = true, value_parser = duration::parse)]
    pub(crate) max_backoff: Duration,
    /// A plugin that was active for so long starts over with counting restarts.
    #[arg(long, value_name = "D", default_value = "30s", allow_hyphen_values = true, value_parser = duration::parse)]
    pub(crate) crash_threshold: Duration,
    /// Wait before the restart of such a plugin.
    #[arg(long, value_name = "D", default_value = "5s", allow_hyphen_values = true, value_parser = duration::parse)]
    pub(crate) crash_backoff: Duration,
    /// Time between asking a plugin to end and killing it.
    #[arg(long, value_name = "D", default_value = "3s", allow_hyphen_values = true, value_parser = duration::parse)]
    pub(crate) stop_grace: Duration,
    /// Time for a started plugin to connect.
    #[arg(long, value_name = "D", default_value = "5m", allow_hyphen_values = true, value_parser = duration::parse_positive)]
    pub(crate) connect_timeout: Duration,
    /// JSON object that is the plugin's configuration; ID=FILE if there are several plugins.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Vec<String>,
    /// What the host answers to a method that a plugin calls: a JSON object, @FILE, or ! and the text of an
    /// error. Repeatable.
    #[arg(long, value_name = "METHOD=JSON", value_parser = answer)]
    pub(crate) answer: Vec<Answer>,
    /// Read commands from standard input although it is no terminal, and end after the last; help is one.
    #[arg(long)]
    pub(crate) stdin: bool,
    /// Start a plugin again when its files have changed, except for those that .pluginignore names.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Do not end a plugin that does not answer, so that a debugger can hold it.
    #[arg(long)]
    pub(crate) no_health: bool,
    /// Begin each line with the time of day, in UTC.
    #[arg(long, conflicts_with = "json")]
    pub(crate) timestamps: bool,
    /// Address space of each process of a plugin, such as 512MiB.
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) plugin_memory: Option<Size>,
    /// Processor time of each process of a plugin.
    #[arg(long, value_name = "D", value_parser = duration::parse_positive)]
    pub(crate) plugin_cpu_time: Option<Duration>,
    /// Processes and threads of the user that plugins run as.
    #[arg(long, value_name = "N", value_parser = values::positive)]
    pub(crate) plugin_processes: Option<u64>,
    /// Open descriptors of each process of a plugin.
    #[arg(long, value_name = "N", value_parser = values::positive)]
    pub(crate) plugin_open_files: Option<u64>,
    /// Scheduling priority of plugins, from -20, the highest, to 19.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = values::nice)]
    pub(crate) plugin_nice: Option<i32>,
}
