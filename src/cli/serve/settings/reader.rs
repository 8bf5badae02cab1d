//! `Configuration`: every setting from the first place that has it (flag, environment, file, default), and everything
//! that is wrong with them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use plugin_runner::text::escape;

use super::file::ConfigFile;
use super::values::Value;
use super::{CONFIG_FLAG, CONFIG_VARIABLE, Setting, Settings, TABLE, check};
use crate::cli::url::user_info;

/// How similar a name must be to be suggested, from 0 to 1.
const SIMILAR: f64 = 0.8;
/// What all variables of this program begin with, but for those that Storyden has too.
const PREFIX: &str = "PLUGIN_RUNNER_";
/// Variables that plugins are given, since a server may be started by one; and that of this program's other commands.
const FOR_OTHERS: [&str; 3] = [
    "PLUGIN_RUNNER_TRANSPORT",
    "PLUGIN_RUNNER_COOKIE",
    "PLUGIN_RUNNER_TOKEN",
];
/// Characters of a wrong value that are shown.
const SHOWN: usize = 100;

/// What a server was started with. It stays the same while the file may change. Not to be shown: there are secrets
/// among the variables.
#[derive(Clone, Default)]
pub(crate) struct Given {
    /// Values by the name of the setting; several of one are joined with commas.
    pub(crate) flags: HashMap<String, String>,
    pub(crate) variables: HashMap<OsString, OsString>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    Variable,
    File { path: PathBuf, line: usize },
    Default,
    Nowhere,
}

/// A setting with its value.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    pub(crate) setting: &'static Setting,
    /// As the file would have it; `None` if it has no value, or a wrong one.
    pub(crate) value: Option<String>,
    pub(crate) origin: Origin,
}

impl Effective {
    /// Returns what names the setting where it was given.
    pub(crate) fn named(&self) -> String {
        named(self.setting, &self.origin)
    }

    /// Whether a value was given that is wrong.
    pub(super) fn is_wrong(&self) -> bool {
        let is_given = !matches!(self.origin, Origin::Default | Origin::Nowhere);
        is_given && self.value.is_none()
    }
}

fn named(setting: &Setting, origin: &Origin) -> String {
    match (origin, setting.flag()) {
        (Origin::File { .. }, _) => format!("{origin}: {}", setting.name),
        (Origin::Variable, _) | (_, None) => setting.variable.to_owned(),
        (_, Some(flag)) => format!("--{flag}"),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable => f.write_str("environment"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
            Self::Nowhere => f.write_str("not set"),
        }
    }
}

/// All settings.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    /// `None` if anything is wrong.
    pub(crate) settings: Option<Settings>,
    pub(crate) effective: Vec<Effective>,
    /// Each a sentence that names where the wrong thing stands, and what is accepted.
    pub(crate) problems: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

impl Configuration {
    /// Reads everything, also after something that is wrong.
    pub(crate) fn read(given: &Given) -> Self {
        let mut reader = Reader {
            given,
            path: None,
            file: ConfigFile::default(),
            effective: Vec::new(),
            problems: Vec::new(),
        };
        if let Some(path) = reader.config_path() {
            reader.file = ConfigFile::read(&path);
            reader.problems.append(&mut reader.file.problems);
            reader.path = Some(path);
        }
        let settings = Settings::read(&mut reader);
        let path = reader.path;
        let mut configuration = Self {
            settings: None,
            effective: reader.effective,
            problems: reader.problems,
            warnings: unknown_variables(given),
        };
        if let Some(mut settings) = settings {
            check::check(&mut settings, &mut configuration);
            configuration.settings = Some(settings).filter(|_| configuration.problems.is_empty());
        }
        if let Some(path) = path {
            let file = format!("{}:", path.display());
            let line = |problem: &String| {
                let (line, _) = problem.strip_prefix(&file)?.split_once(':')?;
                line.parse::<usize>().ok()
            };
            // Those of the file first, in the order of its lines.
            let problems = &mut configuration.problems;
            problems.sort_by_key(|problem| line(problem).unwrap_or(usize::MAX));
        }
        configuration
    }

    /// Whether none of these settings has a wrong value.
    pub(super) fn are_right(&self, names: &[&str]) -> bool {
        let is_asked = |effective: &&Effective| names.contains(&effective.setting.name);
        let mut asked = self.effective.iter().filter(is_asked);
        asked.all(|effective| !effective.is_wrong())
    }

    /// Returns what names a setting where it was given.
    pub(crate) fn named(&self, name: &str) -> String {
        let of_name = |effective: &&Effective| effective.setting.name == name;
        let found = self.effective.iter().find(of_name);
        found.map_or_else(|| name.to_owned(), Effective::named)
    }
}

/// Reads one setting after the other.
pub(super) struct Reader<'a> {
    given: &'a Given,
    path: Option<PathBuf>,
    file: ConfigFile,
    effective: Vec<Effective>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn config_path(&mut self) -> Option<PathBuf> {
        if let Some(path) = self.given.flags.get(CONFIG_FLAG) {
            return Some(path.into());
        }
        let path = self.given.variables.get(&OsString::from(CONFIG_VARIABLE))?;
        (!path.is_empty()).then(|| path.into())
    }

    /// Returns the value of a setting. For one that is wrong there is a problem, and the default stands in, so that
    /// what else is wrong is found too.
    pub(super) fn value<T: Value>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (origin, text) = self.find(setting);
        let value = match text {
            Ok(None) => T::missing().ok_or_else(|| "it is not set".to_owned()),
            Ok(Some(text)) => parse(&text).map_err(|problem| {
                // Nothing of a secret is shown, however wrong. Of a list, the problem names what is wrong.
                if setting.is_secret || setting.is_list {
                    return problem;
                }
                let mut shown = text;
                if let Some(user_info) = user_info(&shown) {
                    shown.replace_range(user_info, "…");
                }
                format!("{:.SHOWN$?}: {problem}", escape(&shown))
            }),
            Err(problem) => Err(problem),
        };
        if let Err(problem) = &value {
            let named = named(setting, &origin);
            self.problems.push(format!("{named}: {problem}"));
        }
        let value = value.ok();
        self.effective.push(Effective {
            setting,
            value: value.as_ref().and_then(T::shown),
            origin,
        });
        let default = || match setting.default {
            "" => T::missing(),
            default => parse(default).ok(),
        };
        value.or_else(default)
    }

    /// Returns the text of the first place that has the setting, or what is wrong with it there.
    fn find(&self, setting: &Setting) -> (Origin, Result<Option<String>, String>) {
        if !setting.is_secret
            && let Some(text) = self.given.flags.get(setting.name)
        {
            return (Origin::Flag, Ok(Some(text.clone())));
        }
        let variable = self.given.variables.get(&OsString::from(setting.variable));
        // As if it were not there: what passes variables on, such as Compose, often cannot leave one out.
        if let Some(value) = variable.filter(|value| !value.is_empty()) {
            let text = value.to_str().map(|text| Some(text.to_owned()));
            return (
                Origin::Variable,
                text.ok_or_else(|| "it is not UTF-8".to_owned()),
            );
        }
        let of_name = |entry: &&super::file::Entry| entry.name == setting.name;
        if let Some(entry) = self.file.entries.iter().find(of_name) {
            let origin = Origin::File {
                path: self.path.clone().unwrap_or_default(),
                line: entry.line,
            };
            return (origin, entry.text.clone().map(Some));
        }
        if setting.default.is_empty() {
            (Origin::Nowhere, Ok(None))
        } else {
            (Origin::Default, Ok(Some(setting.default.to_owned())))
        }
    }
}

/// Returns a sentence about each variable of this program that it does not know.
fn unknown_variables(given: &Given) -> Vec<String> {
    let known = || {
        TABLE
            .iter()
            .map(|setting| setting.variable)
            .chain([CONFIG_VARIABLE])
    };
    let names = given.variables.keys().filter_map(|name| name.to_str());
    let unknown = names.filter(|name| {
        name.starts_with(PREFIX)
            && !FOR_OTHERS.contains(name)
            && !known().any(|known| known == *name)
    });
    let mut warnings: Vec<_> = unknown
        .map(|name| {
            // Of what tells them apart.
            let without = |name: &'static str| name.strip_prefix(PREFIX);
            let near = nearest(&name[PREFIX.len()..], known().filter_map(without));
            let advice = near.map(|near| format!("; did you mean {PREFIX}{near}?"));
            let advice = advice.unwrap_or_default();
            format!("{name:?} is no variable of this program{advice}")
        })
        .collect();
    warnings.sort_unstable();
    warnings
}

/// Returns the most similar of these names, if one is similar at all.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let similar = names.map(|known| (strsim::jaro_winkler(name, known), known));
    let nearest = similar.max_by(|(one, _), (other, _)| one.total_cmp(other));
    nearest
        .filter(|(similar, _)| *similar >= SIMILAR)
        .map(|(_, known)| known)
}
