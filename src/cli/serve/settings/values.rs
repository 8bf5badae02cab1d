//! Values of settings: how each kind is read from text, and how it is shown, in the words of the file.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
#[cfg(feature = "fetch")]
use plugin_runner::ManagerSettings;
use plugin_runner::admin::AdminSettings;
use plugin_runner::{Error, ProcessLimits, RuntimeProvider};
use serde_json::json;

use super::duration;
use crate::cli::serve::token;
use crate::cli::url::{refuse_user_info, user_info};

/// The library's greatest wait before a restart.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A value of a setting.
pub(crate) trait Value: Sized {
    /// Returns what stands for a setting that is nowhere given and has no default; `None` if it must be given.
    fn missing() -> Option<Self> {
        None
    }

    /// Returns the value as the file would have it; `None` if there is none.
    fn shown(&self) -> Option<String>;
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// How log messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// A value that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Returns text between quotes. JSON's escapes are TOML's too.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}

macro_rules! shown {
    ($($type:ty: $shown:expr;)+) => {
        $(impl Value for $type {
            fn shown(&self) -> Option<String> {
                let shown: fn(&Self) -> String = $shown;
                Some(shown(self))
            }
        })+
    };
}

shown! {
    String: |text| quoted(text);
    PathBuf: |path| quoted(&path.to_string_lossy());
    SocketAddr: |address| quoted(&address.to_string());
    RuntimeProvider: |provider| quoted(provider.as_str());
    Duration: |time| quoted(&duration::written(*time));
    Size: |size| quoted(&size.to_string());
    LogFormat: |format| quoted(match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    });
    LevelFilter: |level| quoted(&level.as_str().to_lowercase());
    Secret: |_| quoted("…");
    u32: u32::to_string;
    u64: u64::to_string;
    usize: usize::to_string;
    i32: i32::to_string;
}

impl<T: Value> Value for Option<T> {
    fn missing() -> Option<Self> {
        Some(None)
    }

    fn shown(&self) -> Option<String> {
        self.as_ref()?.shown()
    }
}

impl Value for Vec<String> {
    fn missing() -> Option<Self> {
        Some(Vec::new())
    }

    fn shown(&self) -> Option<String> {
        Some(json!(self).to_string())
    }
}

/// As `parse`, for a setting that need not have a value.
pub(super) fn optional<T>(
    parse: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| parse(text).map(Some)
}

/// Host names are not resolved, because resolving has no deadline.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "write an address and a port, such as 127.0.0.1:8000 or [::1]:8000".to_owned())
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("write a path".to_owned());
    }
    Ok(text.into())
}

pub(super) fn sprites_url(text: &str) -> Result<String, String> {
    refuse_user_info(text)?;
    if text.starts_with("https://") || text.starts_with("http://") {
        Ok(text.to_owned())
    } else {
        Err("write a URL that begins with https://".to_owned())
    }
}

pub(super) fn runtime(text: &str) -> Result<RuntimeProvider, String> {
    text.parse()
        .map_err(|_| "write local, sprites or none".to_owned())
}

/// A wait that the restart policy accepts.
pub(super) fn backoff(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        wait if wait > DAY => Err("it is longer than a day".to_owned()),
        wait => Ok(wait),
    }
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "write a whole number from 0".to_owned())
}

pub(crate) fn positive(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("write a whole number from 1".to_owned()),
        Ok(number) => Ok(number),
    }
}

pub(crate) fn nice(text: &str) -> Result<i32, String> {
    match text.parse() {
        Ok(nice) if (-20..=19).contains(&nice) => Ok(nice),
        _ => Err("write a whole number from -20 to 19".to_owned()),
    }
}

const UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Reads a number of bytes, at least one, with or without a unit.
pub(crate) fn size(text: &str) -> Result<Size, String> {
    let wrong = || "write a size such as 512MiB; the units are B, KiB, MiB and GiB".to_owned();
    let unit = UNITS
        .iter()
        .find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)));
    let (number, unit) = unit.unwrap_or((text, &1));
    let number: u64 = number.trim_end().parse().map_err(|_| wrong())?;
    match number.checked_mul(*unit) {
        None => Err("that is too large".to_owned()),
        Some(0) => Err("must be at least one byte".to_owned()),
        Some(size) => Ok(Size(size)),
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, size): &&(&str, u64)| self.0.is_multiple_of(*size);
        match UNITS.iter().find(fits) {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// `trace` is left out: at that level libraries below log what goes over the wire.
pub(super) fn level(text: &str) -> Result<LevelFilter, String> {
    match text.to_lowercase().parse() {
        Ok(LevelFilter::Trace) | Err(_) => Err("write off, error, warn, info or debug".to_owned()),
        Ok(level) => Ok(level),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("write text or json".to_owned()),
    }
}

pub(super) fn admin_token(text: &str) -> Result<Secret, String> {
    token::check(text).map(|()| Secret(text.to_owned()))
}

/// A secret that goes into a header.
pub(super) fn secret(text: &str) -> Result<Secret, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("only visible ASCII characters, and no space, can be in it".to_owned());
    }
    Ok(Secret(text.to_owned()))
}

/// Reads names of hosts at which clients reach the HTTP API.
pub(super) fn api_hosts(text: &str) -> Result<Vec<String>, String> {
    each(text, |item| {
        problem_of(AdminSettings::default().allow_hosts(vec![item]).validate())
    })
}

/// Reads origins whose pages may use the HTTP API.
pub(super) fn api_origins(text: &str) -> Result<Vec<String>, String> {
    each(text, |item| {
        problem_of(
            AdminSettings::default()
                .allow_origins(vec![item])
                .validate(),
        )
    })
}

/// Reads hosts with ports. Without the feature that uses them, they may be anything.
pub(super) fn fetch_hosts(text: &str) -> Result<Vec<String>, String> {
    #[cfg(feature = "fetch")]
    let check = |item: String| {
        // The library does not name a wrong one, which may be a URL with a secret in it.
        let problem = format!("{item:?} is no HOST:PORT; write it as in packages.internal:443");
        let settings = ManagerSettings::default().fetch_allowed_hosts(vec![item]);
        settings.validate().map_err(|_| problem)
    };
    #[cfg(not(feature = "fetch"))]
    let check = |_| Ok(());
    each(text, check)
}

/// Returns what is wrong with a setting, without the name that the library has for it.
fn problem_of(checked: Result<(), Error>) -> Result<(), String> {
    checked.map_err(|error| match error {
        Error::Setting { problem, .. } => problem.to_string(),
        error => error.to_string(),
    })
}

/// Reads a list, and says of each text in it what is wrong, since the library names only the first.
fn each(text: &str, check: impl Fn(String) -> Result<(), String>) -> Result<Vec<String>, String> {
    let items = list(text)?;
    let problems = items.iter().filter_map(|item| match user_info(item) {
        Some(user_info) => {
            let mut shown = item.clone();
            shown.replace_range(user_info, "…");
            Some(format!(
                "{shown:?}: leave out the user name and the password"
            ))
        }
        None => check(item.clone()).err(),
    });
    let problems = problems.collect::<Vec<_>>().join("; ");
    if problems.is_empty() {
        Ok(items)
    } else {
        Err(problems)
    }
}

/// Returns the texts between the commas.
#[allow(clippy::unnecessary_wraps, reason = "as all that read values")]
fn list(text: &str) -> Result<Vec<String>, String> {
    let items = text.split(',').map(str::trim);
    Ok(items
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect())
}

/// Limits of a plugin's processes, as far as the user has set them.
pub(crate) struct PluginLimits {
    pub(crate) memory: Option<Size>,
    pub(crate) cpu_time: Option<Duration>,
    pub(crate) processes: Option<u64>,
    pub(crate) open_files: Option<u64>,
    pub(crate) nice: Option<i32>,
}

impl From<PluginLimits> for ProcessLimits {
    fn from(given: PluginLimits) -> Self {
        let mut limits = Self::default();
        if let Some(Size(bytes)) = given.memory {
            limits = limits.memory(bytes);
        }
        if let Some(time) = given.cpu_time {
            limits = limits.cpu_time(time);
        }
        if let Some(processes) = given.processes {
            limits = limits.processes(processes);
        }
        if let Some(files) = given.open_files {
            limits = limits.open_files(files);
        }
        if let Some(nice) = given.nice {
            limits = limits.nice(nice);
        }
        limits
    }
}
