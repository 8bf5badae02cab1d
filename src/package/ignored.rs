//! `IgnoreRules`: the file `.pluginignore`, which says in the syntax of `.gitignore` what is not packed.
//!
//! The syntax is small and does not change, and the crates that know it bring a regular expression engine; so it
//! is read here. Only the file at the top counts, and only its first 1,000 patterns, which bounds the work for
//! each file.

/// The most patterns that are read.
const PATTERNS: usize = 1_000;

/// Patterns, of which the last one that matches counts.
#[derive(Debug, Default)]
pub(super) struct IgnoreRules(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    /// It begins with `!`: what it matches is packed.
    keeps: bool,
    /// It ends with a slash: it matches directories alone.
    only_dirs: bool,
    /// What it says of the path from the top, part by part.
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    /// `**`: any number of parts.
    AnyDepth,
    Name(Vec<Token>),
}

#[derive(Debug)]
enum Token {
    Character(char),
    /// `?`
    One,
    /// `*`
    Many,
    /// `[a-z]`, and `[!a-z]` for all others.
    Class {
        except: bool,
        ranges: Vec<(char, char)>,
    },
    /// What is malformed matches nothing.
    Never,
}

impl IgnoreRules {
    pub(super) fn parse(text: &str) -> Self {
        let patterns = text.lines().filter_map(Pattern::parse);
        Self(patterns.take(PATTERNS).collect())
    }

    /// Returns whether a file or directory is left out. What is in a directory that is left out is not asked for:
    /// as with Git, no pattern brings it back.
    pub(super) fn leave_out(&self, path: &str, is_dir: bool) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let last = self.0.iter().rev().find(|pattern| {
            (is_dir || !pattern.only_dirs)
                && matches(
                    &pattern.parts,
                    &parts,
                    |part| matches!(part, Part::AnyDepth),
                    |part, name| match part {
                        Part::AnyDepth => true,
                        Part::Name(tokens) => name_matches(tokens, name),
                    },
                )
        });
        last.is_some_and(|pattern| !pattern.keeps)
    }
}

impl Pattern {
    /// Returns the pattern of a line, unless it is empty or a comment.
    fn parse(line: &str) -> Option<Self> {
        let mut line = line;
        while let Some(shorter) = line.strip_suffix(' ')
            && !shorter.ends_with('\\')
        {
            line = shorter;
        }
        if line.starts_with('#') {
            return None;
        }
        let (keeps, line) = line
            .strip_prefix('!')
            .map_or((false, line), |line| (true, line));
        let (only_dirs, line) = line
            .strip_suffix('/')
            .map_or((false, line), |line| (true, line));
        if line.is_empty() {
            return None;
        }
        let mut parts = Vec::new();
        // Without a slash it may be anywhere.
        if line.contains('/') {
            for part in line.strip_prefix('/').unwrap_or(line).split('/') {
                parts.push(match part {
                    "**" => Part::AnyDepth,
                    name => Part::Name(tokens(name)),
                });
            }
            // What is in a directory, and not the directory.
            if matches!(parts.last(), Some(Part::AnyDepth)) {
                parts.push(Part::Name(vec![Token::Many]));
            }
        } else {
            parts.push(Part::AnyDepth);
            parts.push(Part::Name(tokens(line)));
        }
        Some(Self {
            keeps,
            only_dirs,
            parts,
        })
    }
}

fn tokens(name: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = name.chars();
    while let Some(character) = rest.next() {
        tokens.push(match character {
            '*' => Token::Many,
            '?' => Token::One,
            '\\' => rest.next().map_or(Token::Never, Token::Character),
            '[' => class(&mut rest).unwrap_or(Token::Never),
            character => Token::Character(character),
        });
    }
    tokens
}

/// Reads a class after its opening bracket; `None` if it has no end.
fn class(rest: &mut std::str::Chars<'_>) -> Option<Token> {
    let mut ranges = Vec::new();
    let mut next = rest.next()?;
    let except = matches!(next, '!' | '^');
    if except {
        next = rest.next()?;
    }
    loop {
        let first = if next == '\\' { rest.next()? } else { next };
        let mut last = first;
        next = rest.next()?;
        if next == '-' {
            next = rest.next()?;
            if next == ']' {
                ranges.push(('-', '-'));
            } else {
                last = if next == '\\' { rest.next()? } else { next };
                next = rest.next()?;
            }
        }
        ranges.push((first, last));
        if next == ']' {
            return Some(Token::Class { except, ranges });
        }
    }
}

fn name_matches(tokens: &[Token], name: &str) -> bool {
    let characters: Vec<char> = name.chars().collect();
    matches(
        tokens,
        &characters,
        |token| matches!(token, Token::Many),
        |token, found| match token {
            Token::Character(character) => character == found,
            Token::One | Token::Many => true,
            Token::Class { except, ranges } => {
                let is_in = ranges
                    .iter()
                    .any(|(first, last)| (first..=last).contains(&found));
                is_in != *except
            }
            Token::Never => false,
        },
    )
}

/// Matches a pattern in which some elements (`is_many`) stand for any number of items, and others for one. Only
/// the last of the former is ever tried again, so the work is at most the product of both lengths.
fn matches<P, T>(
    pattern: &[P],
    items: &[T],
    is_many: impl Fn(&P) -> bool,
    is_one: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut item) = (0, 0);
    // The element after the last of many, and the item that it was tried with.
    let mut again: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(at), items.get(item)) {
            (Some(element), _) if is_many(element) => {
                at += 1;
                again = Some((at, item));
            }
            (None, None) => return true,
            (Some(element), Some(found)) if is_one(element, found) => {
                at += 1;
                item += 1;
            }
            _ => match again {
                Some((after, tried)) if tried < items.len() => {
                    again = Some((after, tried + 1));
                    (at, item) = (after, tried + 1);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Git 2.47 says the same (`git check-ignore --no-index`), except that its `?` is one byte.
    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        for (patterns, left_out, packed) in [
            ("*.log", "a.log b/c/a.log .log", "a.logs log"),
            ("/a.txt", "a.txt", "b/a.txt"),
            ("b/a.txt", "b/a.txt", "a.txt c/b/a.txt"),
            ("build/", "build/ c/build/", "build"),
            ("**/x", "x a/x a/b/x", "xx a/xx"),
            ("a/**", "a/x a/b/", "a/ b/a/x"),
            ("a/**/z", "a/z a/b/z a/b/c/z", "z b/a/z"),
            ("*.log\n!keep.log", "a.log", "keep.log b/keep.log"),
            ("!keep.log\n*.log", "keep.log", "x"),
            ("# a comment\n\n\\#x\n\\!y", "#x !y", "x y a"),
            ("a?c", "abc aüc", "ac abbc"),
            ("[a-c]x", "ax cx", "dx -x"),
            ("[!a-c]x", "dx", "ax x"),
            ("[]a]x", "]x ax", "bx"),
            ("[a-]x", "-x ax", "bx"),
            ("x[", "", "x x["),
            ("a*b*c", "abc axbxc abcbc", "ab acb"),
            ("tail   ", "tail", "tail_"),
            ("a/*", "a/x a/b/", "a/"),
            ("x\\*", "x*", "xx"),
        ] {
            let rules = IgnoreRules::parse(patterns);
            for (paths, expected) in [(left_out, true), (packed, false)] {
                for path in paths.split_whitespace() {
                    let name = path.trim_end_matches('/');
                    let found = rules.leave_out(name, name != path);
                    assert_eq!(found, expected, "{patterns:?} {path}");
                }
            }
        }
    }

    #[test]
    fn work_is_bounded() {
        let rules = IgnoreRules::parse(&("*a".repeat(200) + "b\n").repeat(2_000));
        assert_eq!(rules.0.len(), PATTERNS);
        assert!(!rules.leave_out(&"a".repeat(255), false));
        let deep = IgnoreRules::parse(&("**/a/".repeat(100) + "b"));
        assert!(!deep.leave_out(&"a/".repeat(500), true));
    }
}
