//! The environment of a plugin's process: an allowlist of the host's variables, plus what the embedder,
//! the record and the host add.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Variables of the host that are passed on.
const PASSED: [&str; 10] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "LANG",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
/// Prefixes of variables that are passed on.
const PASSED_PREFIXES: [&str; 2] = ["LC_", "XDG_"];
/// Proxy variables, in upper or lower case: HTTP clients differ in which they read.
const PROXY: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
/// Without these, some clients send even loopback traffic through a proxy.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
const LOOPBACK: &str = "127.0.0.1,localhost,::1";

/// An environment under construction. A later value of a name replaces an earlier one.
#[derive(Clone, Default)]
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// Takes those of the `host`'s variables that every plugin may see, and those named in `also`.
    pub(crate) fn allowed<'a>(
        host: impl IntoIterator<Item = (OsString, OsString)>,
        also: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let also: Vec<&OsStr> = also.into_iter().map(OsStr::new).collect();
        let mut variables = BTreeMap::new();
        for (name, value) in host {
            if is_passed(&name) || also.contains(&name.as_os_str()) {
                variables.insert(name, value);
            }
        }
        for name in NO_PROXY {
            let value = variables.entry(name.into()).or_default();
            if !value.is_empty() {
                value.push(",");
            }
            value.push(LOOPBACK);
        }
        Self(variables)
    }

    pub(crate) fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.0.insert(name.into(), value.into());
    }

    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    pub(crate) fn into_variables(self) -> BTreeMap<OsString, OsString> {
        self.0
    }
}

fn is_passed(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let upper = name.to_ascii_uppercase();
    PASSED.contains(&name)
        || PASSED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
        || NO_PROXY.contains(&name)
        || (PROXY.contains(&upper.as_str()) && (name == upper || name == name.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(host: &[(&str, &str)], also: &[&str]) -> Vec<(String, String)> {
        let host = host
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Environment::allowed(host, also.iter().copied())
            .into_variables()
            .into_iter()
            .map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()))
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn secrets_of_the_host_are_not_passed_on() {
        let got = environment(
            &[
                ("PATH", "/bin"),
                ("DATABASE_URL", "secret"),
                ("LC_ALL", "C"),
                ("XDG_CACHE_HOME", "/c"),
                ("PATHS", "no"),
            ],
            &[],
        );
        assert_eq!(
            got,
            pairs(&[
                ("LC_ALL", "C"),
                ("NO_PROXY", LOOPBACK),
                ("PATH", "/bin"),
                ("XDG_CACHE_HOME", "/c"),
                ("no_proxy", LOOPBACK),
            ])
        );
    }

    #[test]
    fn named_variables_are_passed_on() {
        assert!(
            environment(&[("MY_KEY", "1")], &["MY_KEY"]).contains(&("MY_KEY".into(), "1".into()))
        );
    }

    #[test]
    fn loopback_never_goes_through_a_proxy() {
        let got = environment(
            &[
                ("https_proxy", "http://p:1"),
                ("HTTP_PROXY", "http://p:1"),
                ("NO_PROXY", "intern"),
            ],
            &[],
        );
        assert_eq!(
            got,
            pairs(&[
                ("HTTP_PROXY", "http://p:1"),
                ("NO_PROXY", "intern,127.0.0.1,localhost,::1"),
                ("https_proxy", "http://p:1"),
                ("no_proxy", LOOPBACK),
            ])
        );
    }
}
