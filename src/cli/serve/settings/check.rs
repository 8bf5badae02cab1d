//! What is wrong between settings that are right one by one; and printing them all.

use std::fmt::Write as _;

use plugin_runner::{Error, RuntimeProvider};

use super::reader::{Configuration, Origin};
use super::{Setting, Settings};
use crate::cli::serve::service::{admin_settings, manager_settings};
use crate::cli::serve::token;

/// Where the values of the printed configuration end, and the places where they came from begin.
const COLUMN: usize = 48;

/// Adds what is wrong to the problems. Reads the token, if a file with one is named.
pub(super) fn check(settings: &mut Settings, configuration: &mut Configuration) {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let named = |name: &str| configuration.named(name);
    // What is wrong by itself has a problem already.
    let right = |names: &[&str]| configuration.are_right(names);
    let (listen, admin) = (settings.listen, settings.admin);
    let overlap =
        listen.ip() == admin.ip() || listen.ip().is_unspecified() || admin.ip().is_unspecified();
    let is_same = overlap && listen.port() == admin.port() && listen.port() != 0;
    if is_same && right(&["listen", "admin"]) {
        problems.push(format!(
            "{} {admin}: plugins connect to that port already, see {}; take another",
            named("admin"),
            named("listen"),
        ));
    }
    if settings.admin_token.is_some() && settings.admin_token_file.is_some() {
        problems.push(format!(
            "{}: there is a token in the variable {} as well; leave one out",
            named("admin_token_file"),
            named("admin_token"),
        ));
    } else if let Some(path) = &settings.admin_token_file {
        match token::read(path) {
            Ok(found) => {
                settings.admin_token = Some(found.token);
                warnings.extend(found.warning);
            }
            Err(problem) => problems.push(format!("{}: {problem}", named("admin_token_file"))),
        }
    }
    let is_given = settings.admin_token.is_some() || settings.admin_token_file.is_some();
    let names = ["admin", "admin_token", "admin_token_file"];
    if !admin.ip().is_loopback() && !is_given && right(&names) {
        problems.push(format!(
            "{} {admin}: others than this machine reach that address; set a token of your own with \
             --admin-token-file or PLUGIN_RUNNER_ADMIN_TOKEN, or take 127.0.0.1",
            named("admin"),
        ));
    }
    for checked in [
        admin_settings(settings).validate(),
        manager_settings(settings).validate(),
    ] {
        if let Err(error) = checked {
            problems.push(configuration.explained(&error));
        }
    }
    if settings.runtime == RuntimeProvider::Sprites {
        check_sprites(settings, configuration, &mut problems);
    }
    configuration.problems.append(&mut problems);
    configuration.warnings.append(&mut warnings);
}

fn check_sprites(settings: &Settings, configuration: &Configuration, problems: &mut Vec<String>) {
    let named = |name: &str| configuration.named(name);
    let right = |name: &str| configuration.are_right(&[name]);
    let runtime = named("runtime");
    if !cfg!(feature = "sprites") {
        problems.push(format!(
            "{runtime} sprites: this program was built without the feature 'sprites'"
        ));
    }
    if settings.sprites_api_key.is_none() && right("sprites_api_key") {
        problems.push(format!(
            "{runtime} sprites: the key of an account at sprites.dev is needed in the variable {}",
            named("sprites_api_key"),
        ));
    }
    if settings.public_url.is_none() && right("public_url") {
        problems.push(format!(
            "{runtime} sprites: --public-url is needed, such as wss://plugins.example.com, at which \
             sprites reach {} {}",
            named("listen"),
            settings.listen,
        ));
    }
    let limits = [
        ("plugin_memory", settings.plugin_memory.is_some()),
        ("plugin_cpu_time", settings.plugin_cpu_time.is_some()),
        ("plugin_processes", settings.plugin_processes.is_some()),
        ("plugin_open_files", settings.plugin_open_files.is_some()),
        ("plugin_nice", settings.plugin_nice.is_some()),
    ];
    for (limit, _) in limits.iter().filter(|(_, is_set)| *is_set) {
        problems.push(format!(
            "{}: it cannot be set for plugins on sprites",
            named(limit)
        ));
    }
}

/// What the library calls settings that have another name here.
const OF_THE_LIBRARY: [(&str, &str); 7] = [
    ("releases", "releases"),
    ("allow_hosts", "allow_host"),
    ("allow_origins", "allow_origin"),
    ("fetch_allowed_hosts", "fetch_allow_host"),
    ("rpc_base_url", "public_url"),
    ("SPRITES_API_KEY", "sprites_api_key"),
    ("SPRITES_API_URL", "sprites_api_url"),
];

impl Configuration {
    /// Returns an error of the library, where a setting is named as it was given.
    pub(crate) fn explained(&self, error: &Error) -> String {
        let Error::Setting { name, problem } = error else {
            return error.to_string();
        };
        let known = OF_THE_LIBRARY.iter().find(|(library, _)| library == name);
        match known {
            Some((_, ours)) => format!("{}: {problem}", self.named(ours)),
            None => error.to_string(),
        }
    }

    /// Returns the configuration in use as a file that would say the same, with where each value came from.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for effective in &self.effective {
            let Setting {
                name, is_secret, ..
            } = effective.setting;
            let line = match (&effective.value, is_secret) {
                (Some(value), false) => format!("{name} = {value}"),
                (Some(_), true) => format!("# {name} is set"),
                (None, _) => format!("# {name}"),
            };
            // A wrong value has a line among the problems.
            let origin = match &effective.origin {
                _ if effective.is_wrong() => "wrong".to_owned(),
                Origin::Variable => effective.setting.variable.to_owned(),
                Origin::Flag => effective.named(),
                origin => origin.to_string(),
            };
            let _ = writeln!(text, "{line:COLUMN$} # {origin}");
        }
        text
    }
}
