//! Sprites themselves: get, create, delete, list.

use serde::Deserialize;
use ureq::http::Method;

use super::answer;
use super::client::{Client, LONG_ATTEMPT, Request, RequestBody, repeat};
use super::interrupt::Within;
use crate::error::{SpritesError, SpritesProblem};

/// The most sprites that a list may have, and the most in one page of it.
const MOST_SPRITES: usize = 10_000;
const PAGE: &str = "100";

/// The most pages: none need be full.
const MOST_PAGES: usize = 1_000;

/// A sprite, as far as it matters here; other members are not looked at.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Sprite {
    pub(crate) name: String,
    /// `cold`, `warm` or `running`; lists may leave it out.
    #[serde(default)]
    pub(crate) status: Option<String>,
}

/// How a sprite came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Creation {
    /// This call has made it, and it is empty.
    Made,
    /// It was there already, or an attempt that failed has made it.
    Found,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    sprites: Option<Vec<Sprite>>,
    #[serde(default)]
    has_more: bool,
    #[serde(default)]
    next_continuation_token: Option<String>,
}

/// Gathers the pages of a list.
struct Paging<'a> {
    prefix: &'a str,
    sprites: Vec<Sprite>,
    pages: usize,
    /// What continues the list; empty at its beginning.
    token: String,
}

impl Paging<'_> {
    /// Takes a page; returns whether there is another.
    ///
    /// A name without the prefix is left out: what was asked for must hold whatever the service does, since
    /// what is listed may be deleted.
    fn take(&mut self, page: Page) -> Result<bool, SpritesProblem> {
        let sprites = page.sprites.unwrap_or_default().into_iter();
        let named = sprites.filter(|sprite| sprite.name.starts_with(self.prefix));
        self.sprites.extend(named);
        self.pages += 1;
        let token = page.next_continuation_token.unwrap_or_default();
        if !page.has_more || token.is_empty() {
            return Ok(false);
        }
        if self.sprites.len() > MOST_SPRITES || self.pages >= MOST_PAGES {
            let problem = format!("its list has more than {MOST_SPRITES} sprites or has no end");
            return Err(SpritesProblem::Protocol(problem.into()));
        }
        if token == self.token {
            return Err(SpritesProblem::Protocol(
                "its list continues where it was".into(),
            ));
        }
        self.token = token;
        Ok(true)
    }
}

impl Client {
    /// Returns the sprite; fails with [`NotFound`](SpritesProblem::NotFound) if there is none.
    pub(crate) fn sprite(&self, name: &str, within: Within<'_>) -> Result<Sprite, SpritesError> {
        let segments = ["sprites", name];
        self.ask_json(
            &Request::new("find the sprite", Method::GET, &segments),
            within,
        )
    }

    /// Makes the sprite, or finds it. An attempt that fails may have made it all the same, so after one the
    /// service is asked before the next.
    pub(crate) fn create_sprite(
        &self,
        name: &str,
        within: Within<'_>,
    ) -> Result<Creation, SpritesError> {
        let body = serde_json::json!({ "name": name }).to_string();
        let create = Request {
            body: RequestBody::Json(body.into_bytes()),
            attempt: LONG_ATTEMPT,
            ..Request::new("create a sprite", Method::POST, &["sprites"])
        };
        let segments = ["sprites", name];
        let find = Request::new("find the sprite", Method::GET, &segments);
        repeat((create.action, name), within, |within| {
            let made = self
                .open(&create, within.at_most(create.attempt))
                .and_then(|reply| reply.read_all(create.limit));
            let Err(problem) = made else {
                return Ok(Creation::Made);
            };
            if !may_have_made(&problem) {
                return Err(problem);
            }
            let found = self
                .open(&find, within.at_most(find.attempt))
                .and_then(|reply| reply.read_all(find.limit))
                .and_then(|body| answer::json::<Sprite>(&body));
            match found {
                Ok(sprite) if sprite.name == name => Ok(Creation::Found),
                // A sprite that is being made may be taken and not yet there.
                Err(SpritesProblem::NotFound)
                    if matches!(problem, SpritesProblem::Refused { status: 409, .. }) =>
                {
                    Err(SpritesProblem::Unavailable {
                        status: 409,
                        wait: None,
                        message: "the name is taken, and there is no sprite with it".into(),
                    })
                }
                _ => Err(problem),
            }
        })
    }

    /// Deletes the sprite and all that is on it; returns whether there was one.
    pub(crate) fn delete_sprite(
        &self,
        name: &str,
        within: Within<'_>,
    ) -> Result<bool, SpritesError> {
        let segments = ["sprites", name];
        let deleted = self.ask(
            &Request::new("delete the sprite", Method::DELETE, &segments),
            within,
        );
        match deleted {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the sprites whose names have this prefix.
    pub(crate) fn sprites(
        &self,
        prefix: &str,
        within: Within<'_>,
    ) -> Result<Vec<Sprite>, SpritesError> {
        let mut paging = Paging {
            prefix,
            sprites: Vec::new(),
            pages: 0,
            token: String::new(),
        };
        loop {
            let token = paging.token.clone();
            let mut query = vec![("prefix", prefix), ("max_results", PAGE)];
            if !token.is_empty() {
                query.push(("continuation_token", &token));
            }
            let list = Request {
                query: &query,
                ..Request::new("list the sprites", Method::GET, &["sprites"])
            };
            let page = self.ask_json(&list, within)?;
            let action = list.action;
            match paging.take(page) {
                Ok(true) => {}
                Ok(false) => return Ok(paging.sprites),
                Err(problem) => return Err(SpritesError { action, problem }),
            }
        }
    }
}

/// Whether a sprite may be there after an attempt to make it that failed so.
const fn may_have_made(problem: &SpritesProblem) -> bool {
    match problem {
        // Which of the two a name that is taken has is not agreed upon.
        SpritesProblem::Refused { status, .. } => matches!(status, 400 | 409),
        SpritesProblem::Unavailable { .. }
        | SpritesProblem::Broken(_)
        | SpritesProblem::Timeout { .. }
        | SpritesProblem::Protocol(_)
        | SpritesProblem::TooLarge { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(json: &str) -> Page {
        serde_json::from_str(json).unwrap()
    }

    fn paging() -> Paging<'static> {
        Paging {
            prefix: "pr-",
            sprites: Vec::new(),
            pages: 0,
            token: String::new(),
        }
    }

    #[test]
    fn pages_are_gathered_until_there_is_no_more() {
        let mut list = paging();
        let first = r#"{"sprites":[{"name":"pr-a","status":"cold","x":1}],"has_more":true,"next_continuation_token":"1"}"#;
        assert!(list.take(page(first)).unwrap());
        assert_eq!(list.token, "1");
        // Sparse entries, and names that were not asked for.
        let second = r#"{"sprites":[{"name":"pr-b"},{"name":"storyden-plugin-x"}],"has_more":false,"next_continuation_token":"2"}"#;
        assert!(!list.take(page(second)).unwrap());
        let names: Vec<_> = list.sprites.iter().map(|sprite| &*sprite.name).collect();
        assert_eq!(names, ["pr-a", "pr-b"]);
        for last in [
            "{}",
            r#"{"sprites":null,"has_more":true,"next_continuation_token":null}"#,
            r#"{"sprites":[],"has_more":true,"next_continuation_token":""}"#,
        ] {
            assert!(!paging().take(page(last)).unwrap(), "{last}");
        }
    }

    #[test]
    fn a_list_without_end_is_given_up() {
        let mut list = paging();
        let again = r#"{"sprites":[],"has_more":true,"next_continuation_token":"1"}"#;
        assert!(list.take(page(again)).unwrap());
        assert!(list.take(page(again)).is_err(), "the same page again");
        let mut list = paging();
        let end = (0..2 * MOST_PAGES).find(|count| {
            let next = format!(r#"{{"has_more":true,"next_continuation_token":"{count}"}}"#);
            list.take(page(&next)).is_err()
        });
        assert_eq!(end, Some(MOST_PAGES - 1));
    }
}
