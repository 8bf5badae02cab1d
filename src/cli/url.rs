//! URLs that are given as settings: what of them is not shown, and those at which plugins reach a host.

use std::ops::Range;

use plugin_runner::auth::ExternalToken;

/// Returns where the user name and the password of a URL stand, which are no part of what is shown.
pub(crate) fn user_info(url: &str) -> Option<Range<usize>> {
    let start = url.find("://").map_or(0, |colon| colon + 3);
    let authority = url[start..].split(['/', '?', '#']).next()?;
    let end = start + authority.rfind('@')?;
    Some(start..end)
}

/// Checks that a URL has no user name and no password.
///
/// # Errors
/// A text that says so, without them.
pub(crate) fn refuse_user_info(url: &str) -> Result<(), String> {
    user_info(url).map_or(Ok(()), |_| {
        Err("leave out the user name and the password, which would not be used".to_owned())
    })
}

/// Reads a URL at which plugins reach a host. They always connect to the same path, so that there is none in it.
///
/// # Errors
/// A text that says what is accepted.
pub(crate) fn public_url(text: &str) -> Result<String, String> {
    const ACCEPTED: &str = "write one such as wss://plugins.example.com";
    refuse_user_info(text)?;
    let (scheme, rest) = text.split_once("://").unwrap_or(("ws", text));
    let is_known = |known: &str| scheme.eq_ignore_ascii_case(known);
    if !["http", "https", "ws", "wss"].into_iter().any(is_known) {
        return Err(format!(
            "its scheme is none of http, https, ws and wss; {ACCEPTED}"
        ));
    }
    if rest
        .strip_suffix('/')
        .unwrap_or(rest)
        .contains(['/', '?', '#'])
    {
        return Err(format!(
            "plugins connect to /rpc there, without any other path or query; {ACCEPTED}"
        ));
    }
    match connected(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; {ACCEPTED}")),
    }
}

/// Returns the URL that plugins connect to, without what tells them apart.
///
/// # Errors
/// [`Error`](plugin_runner::Error) if the base is not a URL with a host, or there is no randomness.
pub(crate) fn connected(base: &str) -> plugin_runner::Result<String> {
    // Any token will do: it is in the query.
    let mut url = ExternalToken::generate()?.connection_url(base)?;
    url.truncate(url.find('?').unwrap_or(url.len()));
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_what_plugins_connect_to_but_for_the_path() {
        for (url, expected) in [
            ("wss://plugins.example.com", "wss://plugins.example.com/rpc"),
            ("HTTPS://a.example:8443/", "wss://a.example:8443/rpc"),
            ("http://[::1]:80", "ws://[::1]:80/rpc"),
            ("ws://a.example", "ws://a.example/rpc"),
            ("localhost:8000", "ws://localhost:8000/rpc"),
        ] {
            assert_eq!(public_url(url).as_deref(), Ok(url));
            assert_eq!(connected(url).unwrap(), expected);
        }
        for (url, part) in [
            ("ftp://a.example", "its scheme is none of http, https, ws"),
            ("://a.example", "its scheme is none of"),
            ("https://a.example/base", "without any other path or query"),
            ("http://a.example/?x=1", "without any other path or query"),
            ("http://a.example?x=1", "without any other path or query"),
            ("http://a.example#x", "without any other path or query"),
            ("a.example/base", "without any other path or query"),
            ("http://ann:word@a.example", "leave out the user name"),
            ("http://", "such as wss://plugins.example.com"),
            ("", "such as wss://plugins.example.com"),
        ] {
            let refused = public_url(url).unwrap_err();
            assert!(refused.contains(part), "{url}: {refused}");
            assert!(!refused.contains("word@"), "{url}: {refused}");
        }
    }
}
