//! `HostArguments`: how a command finds its host, and `Connection`, what it has found: the API of a running server,
//! or one of its own over a directory on which no server runs.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use plugin_runner::text::escape;
use serde::Deserialize;

use super::api::Api;
use crate::cli::error::CliError;
use crate::cli::private_file::{open_own, read_short};
use crate::cli::serve::{self, Secret, Unserved};

/// The variable that names the host, unless it has an address: that is the server's own setting then.
const ADMIN: &str = "PLUGIN_RUNNER_ADMIN";
/// The variables with the token; the second one is the server's.
const TOKENS: [&str; 2] = ["PLUGIN_RUNNER_TOKEN", "PLUGIN_RUNNER_ADMIN_TOKEN"];
/// How long the server named by a directory has to take a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a server that has the directory may take until it answers, and the pause before the next look.
const START: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
/// More than any `admin.json` has, in bytes.
const ADMIN_FILE_SIZE: u64 = 64 * 1024;

/// Which host a command is for, and how it prints.
#[derive(Args, Clone, Debug)]
pub(crate) struct HostArguments {
    /// URL of the host's HTTP API, such as https://plugins.example.com [default: the server that runs on the
    /// directory of --data] [env: PLUGIN_RUNNER_ADMIN].
    #[arg(long, value_name = "URL", value_parser = url, help_heading = "Host", display_order = 900)]
    admin: Option<String>,
    /// File with the token of the HTTP API [default: the server's own, if it runs on the directory of --data]
    /// [env: the token itself in PLUGIN_RUNNER_TOKEN].
    #[arg(long, value_name = "FILE", help_heading = "Host", display_order = 901)]
    token_file: Option<PathBuf>,
    /// Directory of the server [default: ./data/plugins] [env: PLUGIN_DATA_PATH].
    #[arg(
        long,
        value_name = "DIR",
        help_heading = "Host",
        display_order = 902,
        conflicts_with = "admin"
    )]
    data: Option<PathBuf>,
    /// Print JSON: one object per line.
    #[arg(long, display_order = 903)]
    pub(super) json: bool,
}

/// What a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// A host that runs: plugins run in it.
    Host,
    /// What is installed.
    Installed,
    /// A directory in which something can be installed, which need not be there yet.
    Place,
}

/// A host that was found.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) api: Api,
    /// Where external plugins connect, if the host has said it.
    pub(super) rpc_url: Option<String>,
    /// The API over the directory; gone when this is.
    unserved: Option<Unserved>,
}

/// The server's file in its directory.
#[derive(Deserialize)]
struct AdminFile {
    url: String,
    /// Relative to the directory, if it is there.
    token_file: Option<PathBuf>,
    /// Where plugins connect.
    rpc_url: Option<String>,
}

impl AdminFile {
    /// Reads the token where the server has it.
    fn token(&self, data: &Path, base: &str) -> Result<Secret, CliError> {
        let problem = match &self.token_file {
            Some(file) => match serve::read_token(&data.join(file)) {
                Ok(token) => return Ok(token),
                Err(problem) => problem,
            },
            None => "its token is in no file".to_owned(),
        };
        let variable = TOKENS[0];
        Err(CliError::no_host(format!(
            "cannot talk to the host at {base}: {problem}; name a file with it with --token-file, or put it into \
             {variable}"
        )))
    }
}

impl HostArguments {
    /// Finds the host. Blocks for at most five seconds where a directory names a server that does not answer, or has
    /// one that is starting, and for as long as the directory's store takes to open.
    ///
    /// # Errors
    /// [`CliError`] when there is no host of which the command has enough, or its token cannot be read.
    pub(super) fn connect(&self, need: Need) -> Result<Connection, CliError> {
        let named = self.admin.clone().or_else(|| {
            let value = std::env::var(ADMIN).ok()?;
            (self.data.is_none() && value.contains("://")).then_some(value)
        });
        if let Some(named) = named {
            let base = url(&named).map_err(|problem| {
                CliError::usage(format!("{ADMIN} is {:?}: {problem}", escape(&named)))
            })?;
            let token = self.token()?.ok_or_else(|| {
                CliError::usage(format!(
                    "no token for {base}; name its file with --token-file, or put it into {}",
                    TOKENS[0]
                ))
            })?;
            return Ok(Connection::to(Api::new(&base, token)));
        }
        self.connect_to_directory(need)
    }

    fn connect_to_directory(&self, need: Need) -> Result<Connection, CliError> {
        let data = serve::data_dir(self.data.as_deref());
        let deadline = Instant::now() + START;
        loop {
            if let Some(connection) = self.served(&data)? {
                return Ok(connection);
            }
            let waits = if need == Need::Host {
                is_owned(&data)
            } else {
                self.refuse_missing(&data, need)?;
                if let Some(unserved) = Unserved::open(&data)? {
                    let api = Api::new(&unserved.url(), unserved.token().clone());
                    return Ok(Connection {
                        api,
                        rpc_url: None,
                        unserved: Some(unserved),
                    });
                }
                true
            };
            if !waits {
                return Err(self.nothing(&data, "no host is running on"));
            }
            if Instant::now() >= deadline {
                let shown = data.display();
                return Err(CliError::no_host(format!(
                    "another process uses {shown}, and is no host that answers"
                )));
            }
            // A server that starts, or another command of this program.
            thread::park_timeout(PAUSE);
        }
    }

    /// Returns the server that runs on a directory, if one does.
    fn served(&self, data: &Path) -> Result<Option<Connection>, CliError> {
        let Some(file) = admin_file(data)? else {
            return Ok(None);
        };
        let Some(base) = answering(&file.url)? else {
            return Ok(None);
        };
        let token = match self.token()? {
            Some(token) => token,
            None => file.token(data, &base)?,
        };
        Ok(Some(Connection {
            rpc_url: file.rpc_url,
            ..Connection::to(Api::new(&base, token))
        }))
    }

    /// A misspelt name makes no directory, nor does a default that was never used.
    fn refuse_missing(&self, data: &Path, need: Need) -> Result<(), CliError> {
        let is_missing = matches!(
            fs::metadata(data.join(serve::DATABASE)),
            Err(error) if error.kind() == ErrorKind::NotFound
        );
        if is_missing && (need == Need::Installed || self.data.is_none()) {
            let what = match need {
                Need::Place => "no host is running on, and nothing was ever installed in,",
                _ => "nothing is installed, and no host is running, in",
            };
            return Err(self.nothing(data, what));
        }
        Ok(())
    }

    /// Says that there is nothing, and what to do.
    fn nothing(&self, data: &Path, what: &str) -> CliError {
        let start = match &self.data {
            Some(data) => format!("plugin-runner serve --data {}", data.display()),
            None => "plugin-runner serve".to_owned(),
        };
        CliError::no_host(format!(
            "{what} {}: start one with {start}, or name another with --data or --admin",
            data.display()
        ))
    }

    /// Returns the token that the user gave.
    fn token(&self) -> Result<Option<Secret>, CliError> {
        if let Some(path) = &self.token_file {
            return serve::read_token(path)
                .map(Some)
                .map_err(|problem| CliError::usage(format!("--token-file: {problem}")));
        }
        let mut given = TOKENS
            .iter()
            .filter_map(|name| Some((name, std::env::var(name).ok()?)));
        let Some((name, token)) = given.find(|(_, token)| !token.is_empty()) else {
            return Ok(None);
        };
        serve::check_token(token)
            .map(Some)
            .map_err(|problem| CliError::usage(format!("{name}: {problem}")))
    }
}

impl Connection {
    const fn to(api: Api) -> Self {
        Self {
            api,
            rpc_url: None,
            unserved: None,
        }
    }

    /// Whether there is a host in which plugins run.
    pub(super) const fn has_host(&self) -> bool {
        self.unserved.is_none()
    }
}

/// Whether a process has the directory: a server does before it answers.
fn is_owned(data: &Path) -> bool {
    let lock = data.join(serve::OWNER_LOCK);
    let file = open_own(&lock, OpenOptions::new().read(true));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Reads what a server has left in its directory while it runs.
fn admin_file(data: &Path) -> Result<Option<AdminFile>, CliError> {
    let path = data.join(serve::ADMIN_FILE);
    let failed =
        |problem: String| CliError::no_host(format!("cannot read {}: {problem}", path.display()));
    let file = match open_own(&path, OpenOptions::new().read(true)) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    let text = read_short(file, ADMIN_FILE_SIZE).map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| failed(error.to_string()))
}

/// Returns the URL if a server answers there; `None` if nothing does, as after a server was killed.
fn answering(text: &str) -> Result<Option<String>, CliError> {
    let address = text
        .strip_prefix("http://")
        .and_then(|rest| rest.parse::<SocketAddr>().ok());
    let Some(address) = address else {
        return Err(CliError::no_host(format!(
            "{} has the URL {:?}, which is no server's",
            serve::ADMIN_FILE,
            escape(text)
        )));
    };
    match TcpStream::connect_timeout(&address, CONNECT) {
        Ok(_) => Ok(Some(format!("http://{address}"))),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(no_answer(&format!("http://{address}"), &error)),
    }
}

fn no_answer(base: &str, error: &io::Error) -> CliError {
    CliError::no_host(format!("cannot reach the host at {base}: {error}"))
}

/// Checks the form of a URL, which may end with a slash and have a path under which a proxy has the API.
fn url(text: &str) -> Result<String, String> {
    const FORM: &str = "write a URL such as http://127.0.0.1:8001 or https://plugins.example.com";
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .ok_or(FORM)?;
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty() || rest.contains(['?', '#', ' ']) {
        return Err(FORM.to_owned());
    }
    if authority.contains('@') {
        return Err(
            "a URL with a password in it is not taken; the token is in --token-file".to_owned(),
        );
    }
    Ok(text.trim_end_matches('/').to_owned())
}
