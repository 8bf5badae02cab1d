//! JSON from a grammar, good or a little off, and a second opinion on what JSON is.

use crate::random::Random;

/// Writes one value.
pub(crate) type Make = fn(&mut Json);

const MOST_DEPTH: usize = 6;

/// JSON being made.
pub(crate) struct Json {
    pub(crate) random: Random,
    pub(crate) text: String,
    /// How often something is not as it should be: once in so many times; 0 for never.
    sloppiness: usize,
    depth: usize,
}

impl Json {
    pub(crate) fn new(random: &mut Random) -> Self {
        let mut random = Random::new(random.next(), 0);
        let sloppiness = random.pick(&[0, 0, 0, 60, 20, 6]);
        Self {
            random,
            text: String::new(),
            sloppiness,
            depth: 0,
        }
    }

    /// Whether to do something wrong now.
    fn slips(&mut self) -> bool {
        self.sloppiness > 0 && self.random.one_in(self.sloppiness)
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// An object with the members that somebody looks for, most of them, and others.
    pub(crate) fn object(&mut self, members: &[(&str, Make)]) {
        self.depth += 1;
        self.push("{");
        let mut first = true;
        for &(name, make) in members {
            if self.slips() {
                continue;
            }
            let times = if self.slips() { 2 } else { 1 };
            for _ in 0..times {
                self.next(&mut first);
                self.name(name);
                if self.slips() {
                    self.value();
                } else {
                    make(self);
                }
                self.space();
            }
        }
        if self.random.one_in(6) {
            self.next(&mut first);
            self.string();
            self.push(":");
            self.value();
        }
        self.push("}");
        self.depth -= 1;
    }

    /// An object with members for each of which a coin is thrown.
    pub(crate) fn some_of(&mut self, required: &[(&str, Make)], optional: &[(&str, Make)]) {
        let mut members = required.to_vec();
        for member in optional {
            if self.random.one_in(2) {
                let at = self.random.below(members.len() + 1);
                members.insert(at, *member);
            }
        }
        self.object(&members);
    }

    pub(crate) fn list(&mut self, most: usize, make: Make) {
        let length = self.random.length(most);
        self.push("[");
        let mut first = true;
        for _ in 0..length {
            self.next(&mut first);
            if self.slips() {
                self.value();
            } else {
                make(self);
            }
        }
        self.push("]");
    }

    /// Any value.
    pub(crate) fn value(&mut self) {
        let kinds = if self.depth >= MOST_DEPTH { 5 } else { 7 };
        match self.random.below(kinds) {
            0 => self.push("null"),
            1 => self.boolean(),
            2 => self.number(),
            3 | 4 => self.string(),
            5 => {
                self.depth += 1;
                self.list(4, Self::value);
                self.depth -= 1;
            }
            _ => {
                self.depth += 1;
                let length = self.random.length(4);
                self.push("{");
                let mut first = true;
                for _ in 0..length {
                    self.next(&mut first);
                    self.string();
                    self.push(":");
                    self.value();
                }
                self.push("}");
                self.depth -= 1;
            }
        }
    }

    pub(crate) fn boolean(&mut self) {
        let text = self.random.pick(&["true", "false"]);
        self.push(text);
    }

    pub(crate) fn number(&mut self) {
        let text = match self.random.below(8) {
            0 => self.random.next().to_string(),
            1 => format!("-{}", self.random.next() >> self.random.below(64)),
            2 => f64::from_bits(self.random.next()).to_string(),
            3 => format!("{:e}", f64::from_bits(self.random.next())),
            4 => {
                let digits = 1 + self.random.length(300);
                let digits = self.random.text(b"0123456789", digits);
                format!("1{digits}")
            }
            5 => self
                .random
                .pick(&[
                    "0", "-0", "-0.0", "1.0", "1E2", "1e400", "-1e400", "1e-400", "0.1", "1e22",
                ])
                .to_owned(),
            _ => self.random.below(1_000).to_string(),
        };
        // Infinity and the like are no JSON; where mistakes are allowed they may stay.
        let good = text.bytes().any(|byte| byte.is_ascii_digit()) || self.slips();
        self.push(if good { &text } else { "7" });
    }

    pub(crate) fn string(&mut self) {
        let length = self.random.length(12);
        self.push("\"");
        for _ in 0..length {
            self.character();
        }
        self.push("\"");
    }

    fn character(&mut self) {
        let text = match self.random.below(16) {
            0 => self
                .random
                .pick(&["\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t"])
                .to_owned(),
            1 => format!("\\u{:04x}", self.random.below(0xd800)),
            2 => format!(
                "\\u{:04X}\\u{:04x}",
                0xd800 + self.random.below(0x400),
                0xdc00 + self.random.below(0x400)
            ),
            3 if self.slips() => format!("\\u{:04x}", 0xd800 + self.random.below(0x800)),
            4 => self
                .random
                .pick(&["ä", "→", "\u{1f980}", "\u{7f}", "\u{85}", "\u{2028}"])
                .to_owned(),
            5 if self.slips() => self.random.pick(&["\u{1}", "\n", "\\x", "\\"]).to_owned(),
            _ => self.random.text(b"abcdefgh_-. XYZ01", 1),
        };
        self.push(&text);
    }

    /// Text that needs no escapes.
    pub(crate) fn plain(&mut self, text: &str) {
        self.text.push('"');
        self.push(text);
        self.text.push('"');
    }

    /// A word of an alphabet, with at least one character.
    pub(crate) fn word(&mut self, alphabet: &[u8], most: usize) {
        let length = 1 + self.random.length(most - 1);
        let word = self.random.text(alphabet, length);
        self.plain(&word);
    }

    pub(crate) fn space(&mut self) {
        if self.random.one_in(12) {
            let length = 1 + self.random.length(3);
            let space = self.random.text(b" \n\r\t", length);
            self.push(&space);
        }
    }

    fn next(&mut self, first: &mut bool) {
        if !std::mem::take(first) {
            self.push(",");
        }
        self.space();
    }

    /// A member's name, now and then spelled in another way.
    fn name(&mut self, name: &str) {
        if self.slips() {
            self.plain(&name.to_uppercase());
        } else if self.random.one_in(24) && !name.is_empty() {
            let at = self.random.below(name.len());
            let escape = format!("\\u{:04x}", name.as_bytes()[at]);
            let name = format!("{}{escape}{}", &name[..at], &name[at + 1..]);
            self.plain(&name);
        } else {
            self.plain(name);
        }
        self.push(":");
        self.space();
    }
}

/// Whether this is one JSON value by the grammar alone (RFC 8259): numbers of any size, surrogates in
/// any order, any depth.
pub(crate) fn is_json(text: &str) -> bool {
    Recognizer(text.as_bytes()).whole().is_some()
}

struct Recognizer<'a>(&'a [u8]);

impl Recognizer<'_> {
    /// An explicit stack, so that depth costs nothing that runs out.
    fn whole(&mut self) -> Option<()> {
        let mut open = Vec::new();
        loop {
            // A value is due.
            self.space();
            match *self.0.first()? {
                bracket @ (b'{' | b'[') => {
                    self.0 = &self.0[1..];
                    self.space();
                    if self.0.first() == Some(&(bracket + 2)) {
                        self.0 = &self.0[1..];
                    } else {
                        open.push(bracket);
                        if bracket == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => self.string()?,
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => self.number()?,
            }
            // A value is over.
            loop {
                self.space();
                let Some(&bracket) = open.last() else {
                    return self.0.is_empty().then_some(());
                };
                let (&next, rest) = self.0.split_first()?;
                self.0 = rest;
                if next == b',' {
                    if bracket == b'{' {
                        self.space();
                        self.key()?;
                    }
                    break;
                }
                if next != bracket + 2 {
                    return None;
                }
                open.pop();
            }
        }
    }

    fn space(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(literal)?;
        Some(())
    }

    fn key(&mut self) -> Option<()> {
        self.string()?;
        self.space();
        self.literal(b":")
    }

    fn string(&mut self) -> Option<()> {
        self.literal(b"\"")?;
        loop {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            match byte {
                b'"' => return Some(()),
                b'\\' => {
                    let (&escape, rest) = self.0.split_first()?;
                    self.0 = rest;
                    match escape {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            let digits = self.0.get(..4)?;
                            if !digits.iter().all(u8::is_ascii_hexdigit) {
                                return None;
                            }
                            self.0 = &self.0[4..];
                        }
                        _ => return None,
                    }
                }
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn digits(&mut self) -> Option<()> {
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit());
        let length = length.count();
        self.0 = &self.0[length..];
        (length > 0).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.literal(b"-");
        if self.literal(b"0").is_none() {
            self.digits()?;
        }
        if self.literal(b".").is_some() {
            self.digits()?;
        }
        if let [b'e' | b'E', rest @ ..] = self.0 {
            self.0 = rest;
            if let [b'+' | b'-', rest @ ..] = self.0 {
                self.0 = rest;
            }
            self.digits()?;
        }
        Some(())
    }
}
