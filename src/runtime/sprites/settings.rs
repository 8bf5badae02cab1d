//! `SpritesSettings`: the account on which plugins run.

use std::fmt;

use zeroize::Zeroizing;

use crate::settings::settings;

settings! {
    /// The account of [Sprites](https://sprites.dev) on which supervised plugins run: see
    /// [`HostBuilder::sprites`](crate::HostBuilder::sprites).
    pub struct SpritesSettings {
        /// The key, called a token in some places.
        api_key: ApiKey = ApiKey::default(), by_hand;
        /// Where the service is: a URL that begins with `https://`, or `http://` on this machine. The
        /// environment variable `SPRITES_API_URL` of the program `plugin-runner`. Default
        /// `https://api.sprites.dev`.
        api_url: String = "https://api.sprites.dev".to_owned(), by_hand;
        /// Whether sprites are deleted that carry the name of this host's store and of no plugin in it, such as
        /// one that was made when the store was put back to an older state: at most five every ten minutes, and
        /// none that was not missing from the store ten minutes earlier too. Default no.
        sweep: bool = false;
    }
}

/// A key that is not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct ApiKey(Zeroizing<String>);

impl SpritesSettings {
    /// Returns the settings for the account with this key: the environment variable `SPRITES_API_KEY` of the
    /// program `plugin-runner`.
    pub fn new(api_key: impl Into<String>) -> Self {
        Self {
            api_key: ApiKey(Zeroizing::new(api_key.into())),
            ..Self::default()
        }
    }

    /// Sets where the service is: a URL that begins with `https://`, or `http://` on this machine. The
    /// environment variable `SPRITES_API_URL` of the program `plugin-runner`. Default
    /// `https://api.sprites.dev`.
    #[must_use]
    pub fn api_url(mut self, url: impl Into<String>) -> Self {
        self.api_url = url.into();
        self
    }
}

impl ApiKey {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
