//! The settings of `serve`: the one table of them all, and what is made of it: the flags, the variables, the keys
//! of the file, the values in use with where each came from, and the document `settings.md`.

mod check;
mod file;
mod reader;
#[cfg(test)]
mod tests;
pub(crate) mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use plugin_runner::RuntimeProvider;

pub(crate) use reader::{Configuration, Effective, Given};
pub(crate) use values::{LogFormat, Secret, Size};

use super::super::url::public_url;
use super::super::{attempts, duration};
use values::{
    address, admin_token, api_hosts, api_origins, backoff, count, fetch_hosts, level, log_format,
    nice, optional, path, positive, runtime, secret, size, sprites_url,
};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// The key in the file. The flag has hyphens for its underscores.
    pub(crate) name: &'static str,
    pub(crate) variable: &'static str,
    /// What the value is called in the help.
    pub(crate) value_name: &'static str,
    /// As it would be written; empty if there is none.
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
    /// In the environment alone: everyone on the machine sees arguments, and files are copied and shown.
    pub(crate) is_secret: bool,
    /// Several values, between commas where they are one text.
    pub(crate) is_list: bool,
    /// Whether a reload applies it.
    pub(crate) is_reloaded: bool,
}

impl Setting {
    const fn new(variable: &'static str, value_name: &'static str, default: &'static str) -> Self {
        Self {
            name: "",
            variable,
            value_name,
            default,
            help: "",
            is_secret: false,
            is_list: false,
            is_reloaded: false,
        }
    }

    const fn secret(self) -> Self {
        Self {
            is_secret: true,
            ..self
        }
    }

    const fn list(self) -> Self {
        Self {
            is_list: true,
            ..self
        }
    }

    const fn reloaded(self) -> Self {
        Self {
            is_reloaded: true,
            ..self
        }
    }

    /// Returns the flag without its first hyphens; `None` for a secret, which has none.
    pub(crate) fn flag(&self) -> Option<String> {
        (!self.is_secret).then(|| self.name.replace('_', "-"))
    }
}

/// Defines [`Settings`] and [`TABLE`] from the same rows: the help, the name and type, the rest of the row, and the
/// function that reads a value.
macro_rules! settings {
    ($($(#[doc = $help:literal])+ $name:ident: $type:ty = $setting:expr, $parse:expr;)+) => {
        /// What the server runs with.
        #[cfg_attr(
            not(all(feature = "fetch", feature = "sprites")),
            allow(dead_code, reason = "settings of features that are not built in are read all the same")
        )]
        #[derive(Clone, Debug)]
        pub(crate) struct Settings {
            $($(#[doc = $help])+ pub(crate) $name: $type,)+
        }

        /// All settings, in the order in which they are shown.
        pub(crate) const TABLE: &[Setting] = &[
            $(Setting {
                name: stringify!($name),
                help: concat!($($help),+),
                ..$setting
            },)+
        ];

        impl Settings {
            /// Reads every setting. Returns `None` only if one that has no default is not given.
            fn read(reader: &mut reader::Reader<'_>) -> Option<Self> {
                let mut rows = TABLE.iter();
                $(let $name = rows.next().and_then(|row| reader.value::<$type>(row, $parse));)+
                Some(Self { $($name: $name?),+ })
            }
        }
    };
}

settings! {
    /// Directory with everything that is installed; used by one server at a time.
    data: PathBuf = Setting::new("PLUGIN_DATA_PATH", "DIR", DATA), path;
    /// Address on which plugins connect, at /rpc; port 0 takes a free one.
    listen: SocketAddr = Setting::new("PLUGIN_RUNNER_LISTEN", "ADDR", "127.0.0.1:8000"), address;
    /// URL at which plugins reach the address of --listen, such as wss://plugins.example.com; without it
    /// that address. Sprites need one.
    public_url: Option<String> = Setting::new("PUBLIC_API_ADDRESS", "URL", ""), optional(public_url);
    /// Address of the HTTP API for administrators; port 0 takes a free one.
    admin: SocketAddr = Setting::new("PLUGIN_RUNNER_ADMIN", "ADDR", "127.0.0.1:8001"), address;
    /// File with the token that the HTTP API asks for; without it and without PLUGIN_RUNNER_ADMIN_TOKEN
    /// one is generated in admin-token in the data directory.
    admin_token_file: Option<PathBuf> =
        Setting::new("PLUGIN_RUNNER_ADMIN_TOKEN_FILE", "FILE", ""), optional(path);
    /// The token that the HTTP API asks for: 16 to 256 visible ASCII characters.
    admin_token: Option<Secret> =
        Setting::new("PLUGIN_RUNNER_ADMIN_TOKEN", "TOKEN", "").secret(), optional(admin_token);
    /// Name by which the HTTP API may be addressed beside its own address, such as plugins.internal.
    allow_host: Vec<String> = Setting::new("PLUGIN_RUNNER_ALLOW_HOST", "HOST", "").list(), api_hosts;
    /// Origin of web pages that may use the HTTP API, such as https://admin.example.com.
    allow_origin: Vec<String> =
        Setting::new("PLUGIN_RUNNER_ALLOW_ORIGIN", "ORIGIN", "").list().reloaded(), api_origins;
    /// Where plugins run: local, as child processes; sprites, in remote sandboxes; or none, where only
    /// those that run elsewhere connect in.
    runtime: RuntimeProvider = Setting::new("PLUGIN_RUNTIME_PROVIDER", "NAME", "local"), runtime;
    /// Key of the account at sprites.dev.
    sprites_api_key: Option<Secret> =
        Setting::new("SPRITES_API_KEY", "KEY", "").secret(), optional(secret);
    /// Where the service of sprites is.
    sprites_api_url: String =
        Setting::new("SPRITES_API_URL", "URL", "https://api.sprites.dev"), sprites_url;
    /// Restarts in a row before a plugin is given up.
    max_restart_attempts: u32 = Setting::new("PLUGIN_MAX_RESTART_ATTEMPTS", "N", "3"), attempts;
    /// Longest wait before a restart; the waits are 1s, 2s, 4s and so on.
    max_backoff: Duration = Setting::new("PLUGIN_MAX_BACKOFF_DURATION", "D", "60s"), backoff;
    /// A plugin that was active for so long starts over with counting restarts.
    crash_threshold: Duration =
        Setting::new("PLUGIN_RUNTIME_CRASH_THRESHOLD", "D", "30s"), duration::parse;
    /// Wait before the restart of such a plugin.
    crash_backoff: Duration = Setting::new("PLUGIN_RUNTIME_CRASH_BACKOFF", "D", "5s"), backoff;
    /// Time for a started plugin to connect.
    connect_timeout: Duration =
        Setting::new("PLUGIN_RUNNER_CONNECT_TIMEOUT", "D", "5m"), duration::parse_positive;
    /// Time between asking a plugin to end and killing it.
    stop_grace: Duration = Setting::new("PLUGIN_RUNNER_STOP_GRACE", "D", "3s"), duration::parse;
    /// Address space of each process of a plugin, used or not.
    plugin_memory: Option<Size> =
        Setting::new("PLUGIN_RUNNER_PLUGIN_MEMORY", "SIZE", "").reloaded(), optional(size);
    /// Processor time of each process of a plugin.
    plugin_cpu_time: Option<Duration> =
        Setting::new("PLUGIN_RUNNER_PLUGIN_CPU_TIME", "D", "").reloaded(),
        optional(duration::parse_positive);
    /// Processes and threads of the user that plugins run as.
    plugin_processes: Option<u64> =
        Setting::new("PLUGIN_RUNNER_PLUGIN_PROCESSES", "N", "").reloaded(), optional(positive);
    /// Open descriptors of each process of a plugin.
    plugin_open_files: Option<u64> =
        Setting::new("PLUGIN_RUNNER_PLUGIN_OPEN_FILES", "N", "").reloaded(), optional(positive);
    /// Scheduling priority of plugins, from -20, the highest, to 19.
    plugin_nice: Option<i32> =
        Setting::new("PLUGIN_RUNNER_PLUGIN_NICE", "N", "").reloaded(), optional(nice);
    /// Size of a log file of a plugin, after which the next one is begun.
    plugin_log_size: Size = Setting::new("PLUGIN_RUNNER_PLUGIN_LOG_SIZE", "SIZE", "10MiB"), size;
    /// Old log files of a plugin that are kept.
    plugin_log_files: usize = Setting::new("PLUGIN_RUNNER_PLUGIN_LOG_FILES", "N", "3"), count;
    /// Age at which old log files of a plugin are removed.
    plugin_log_age: Duration =
        Setting::new("PLUGIN_RUNNER_PLUGIN_LOG_AGE", "D", "28d"), duration::parse_positive;
    /// Versions of a plugin that are kept, 1 to 16: the one in use, and those that it can be rolled back to.
    releases: usize = Setting::new("PLUGIN_RUNNER_RELEASES", "N", "2"), count;
    /// Server inside a private network, as HOST:PORT, from which packages may be installed by URL.
    fetch_allow_host: Vec<String> =
        Setting::new("PLUGIN_RUNNER_FETCH_ALLOW_HOST", "HOST", "").list(), fetch_hosts;
    /// What is logged to standard error: off, error, warn, info or debug.
    log_level: LevelFilter = Setting::new("PLUGIN_RUNNER_LOG_LEVEL", "LEVEL", "info").reloaded(), level;
    /// text, or json for one object per line.
    log_format: LogFormat = Setting::new("PLUGIN_RUNNER_LOG_FORMAT", "FORMAT", "text"), log_format;
}

/// Where everything is without a setting.
pub(crate) const DATA: &str = "./data/plugins";

/// The variable and the flag that name the file.
pub(crate) const CONFIG_VARIABLE: &str = "PLUGIN_RUNNER_CONFIG";
pub(crate) const CONFIG_FLAG: &str = "config";
