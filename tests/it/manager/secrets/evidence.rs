//! Everything that a run showed, and the search for what it must not show.

use std::any::type_name;
use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fmt::Debug;

use parking_lot::Mutex;
use plugin_runner::{Error, Result};
use serde::Serialize;

/// What a run showed, and what is secret in it.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    secrets: Mutex<Vec<Secret>>,
    shown: Mutex<Vec<Shown>>,
}

#[derive(Debug)]
struct Secret {
    what: &'static str,
    text: String,
    /// The same as a list of bytes.
    numbers: String,
}

/// A text, and how it was made of what.
#[derive(Debug)]
struct Shown {
    form: &'static str,
    of: String,
    text: String,
}

impl Evidence {
    /// Looks for this text from now on, also in what was shown already.
    pub(super) fn hide(&self, what: &'static str, text: impl Into<String>) {
        let text = text.into();
        assert!(text.len() >= 8, "{text:?} may be found by chance");
        let numbers = only_numbers(&format!("{:?}", text.as_bytes()));
        self.secrets.lock().push(Secret {
            what,
            text,
            numbers,
        });
    }

    /// Looks for the beginning and the end of this token, so that a part of it is found too.
    pub(super) fn hide_token(&self, what: &'static str, token: &str) {
        let token = token.strip_prefix("sdprt_").unwrap_or(token);
        self.hide(what, &token[..12]);
        self.hide(what, &token[token.len() - 12..]);
    }

    pub(super) fn add(&self, form: &'static str, of: &str, text: impl Into<String>) {
        let (of, text) = (of.to_owned(), text.into());
        self.shown.lock().push(Shown { form, of, text });
    }

    /// As `Debug` shows it, on one line and on several.
    pub(super) fn debug<T: Debug + ?Sized>(&self, value: &T) {
        self.add("Debug", name::<T>(), format!("{value:?}"));
        self.add("Debug", name::<T>(), format!("{value:#?}"));
    }

    /// As it is serialised.
    pub(super) fn json<T: Serialize + ?Sized>(&self, value: &T) {
        let text = serde_json::to_string(value).unwrap();
        self.add("JSON", name::<T>(), text);
    }

    /// In both ways.
    pub(super) fn both<T: Debug + Serialize + ?Sized>(&self, value: &T) {
        self.debug(value);
        self.json(value);
    }

    /// An error in all its forms, and where it came from.
    pub(super) fn error(&self, error: &Error) {
        self.both(error);
        self.both(error.problems());
        self.chain(error);
    }

    /// An error that the crate does not define, with where it came from.
    pub(super) fn chain(&self, error: &dyn StdError) {
        let mut next = Some(error);
        while let Some(error) = next {
            self.add("Display", "an error", error.to_string());
            self.add("Debug", "an error", format!("{error:?}"));
            self.add("Debug", "an error", format!("{error:#?}"));
            next = error.source();
        }
    }

    /// What must have failed.
    #[track_caller]
    pub(super) fn failed<T>(&self, result: Result<T>) -> Error {
        let Err(error) = result else {
            panic!("it succeeded");
        };
        self.error(&error);
        error
    }

    /// What may have failed.
    pub(super) fn result<T: Debug>(&self, result: Result<T>) {
        match result {
            Ok(value) => self.debug(&value),
            Err(error) => self.error(&error),
        }
    }

    /// What of all this was shown, as `FORM TYPE`.
    pub(super) fn forms(&self) -> BTreeSet<String> {
        let shown = self.shown.lock();
        let forms = shown
            .iter()
            .map(|each| format!("{} {}", each.form, each.of));
        forms.collect()
    }

    /// Every secret that was shown, once for each thing that shows it.
    pub(super) fn leaks(&self) -> BTreeSet<String> {
        let mut leaks = BTreeSet::new();
        let secrets = self.secrets.lock();
        for shown in &*self.shown.lock() {
            let numbers = only_numbers(&shown.text);
            for secret in &*secrets {
                if shown.text.contains(&secret.text) || numbers.contains(&secret.numbers) {
                    let Shown { form, of, text } = shown;
                    let text: String = text.chars().take(2000).collect();
                    leaks.insert(format!("{} in the {form} of {of}: {text}", secret.what));
                }
            }
        }
        leaks
    }
}

/// The type's name without its path, and without what it is of.
fn name<T: ?Sized>() -> &'static str {
    let name = type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

/// As it would look like among bytes that are shown as numbers, however they are laid out.
fn only_numbers(text: &str) -> String {
    let kept = text
        .chars()
        .filter(|&each| each == ',' || each.is_ascii_digit());
    kept.collect()
}

/// A search that finds nothing proves something only if it finds what is there.
mod planted {
    use std::fmt;
    use std::io;

    use plugin_runner::ErrorKind;

    use super::*;

    const SECRET: &str = "planted-in-there";

    /// Shows what it holds in every way.
    #[derive(Debug, Serialize)]
    struct Open {
        text: &'static str,
        bytes: Vec<u8>,
    }

    impl Open {
        fn of(text: &'static str) -> Self {
            Self {
                text: "",
                bytes: text.into(),
            }
        }
    }

    /// An error that hides it behind its source.
    #[derive(Debug)]
    struct Behind(io::Error);

    impl fmt::Display for Behind {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("nothing to see")
        }
    }

    impl StdError for Behind {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    fn leaks(show: impl FnOnce(&Evidence)) -> Vec<String> {
        let evidence = Evidence::default();
        show(&evidence);
        evidence.hide("planted", SECRET);
        evidence.hide("elsewhere", "nowhere-to-be-found");
        evidence.leaks().into_iter().collect()
    }

    #[track_caller]
    fn found(form: &str, show: impl FnOnce(&Evidence)) {
        let leaks = leaks(show);
        let wanted = format!("planted in the {form}");
        assert!(
            leaks.iter().any(|leak| leak.starts_with(&wanted)),
            "no {wanted:?} in {leaks:#?}"
        );
        assert!(leaks.iter().all(|leak| leak.starts_with("planted")));
    }

    #[test]
    fn what_is_shown_in_any_form_is_found() {
        let text = Open {
            text: SECRET,
            bytes: Vec::new(),
        };
        found("Debug of Open", |evidence| evidence.debug(&text));
        found("JSON of Open", |evidence| evidence.json(&text));
        found("Debug of Open", |evidence| {
            evidence.debug(&Open::of(SECRET));
        });
        found("JSON of Open", |evidence| evidence.json(&Open::of(SECRET)));
        let error = Error::new(ErrorKind::StoreBusy, SECRET);
        for form in ["Display of an error", "Debug of Error", "JSON of Error"] {
            found(form, |evidence| evidence.error(&error));
        }
        found("Display of an error", |evidence| {
            evidence.chain(&Behind(io::Error::other(SECRET)));
        });
        assert_eq!(leaks(|evidence| evidence.debug("nothing")), [""; 0]);
    }

    #[test]
    fn a_part_of_a_token_is_found() {
        const TOKEN: &str = "sdprt_Storyden0Plugin1Secret2Vector3ab";
        for part in [&TOKEN[..20], &TOKEN[20..], TOKEN] {
            let evidence = Evidence::default();
            evidence.hide_token("token", TOKEN);
            evidence.debug(part);
            assert!(!evidence.leaks().is_empty(), "{part}");
        }
    }
}
