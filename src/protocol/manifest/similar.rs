//! Finds the known name that a misspelled one resembles.

/// Returns the known name that this one resembles most: equal but for case and separators, a prefix of
/// it, or different in at most a third of its letters and at most three.
pub(super) fn similar(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let plain = |name: &str| -> Vec<char> {
        let letters = name.chars().filter(|letter| letter.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect()
    };
    // Longer ones resemble none, and comparing takes time for each letter of both.
    if name.len() > 64 {
        return None;
    }
    let name = plain(name);
    let near = known.iter().filter_map(|candidate| {
        let known = plain(candidate);
        let most = (known.len() / 3).min(3);
        let distance = if name.len() > 3 && known.starts_with(&name) {
            0
        } else {
            distance(&name, &known)
        };
        (distance <= most).then_some((distance, *candidate))
    });
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The Levenshtein distance of both.
fn distance(one: &[char], other: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.iter().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (left, expected) in other.iter().enumerate() {
            let exchanged = diagonal + usize::from(letter != expected);
            diagonal = row[left + 1];
            row[left + 1] = exchanged.min(diagonal + 1).min(row[left] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::super::MEMBERS;
    use super::*;

    #[test]
    fn misspelled_names_are_like_the_one_that_was_meant() {
        for (name, meant) in [
            ("event_consumed", Some("events_consumed")),
            ("eventsConsumed", Some("events_consumed")),
            ("evnets_consumed", Some("events_consumed")),
            ("events", Some("events_consumed")),
            ("config", Some("configuration_schema")),
            ("comand", Some("command")),
            ("arg", Some("args")),
            ("transports", Some("transport")),
            ("descripton", Some("description")),
            ("homepage", None),
            ("icon", None),
            ("", None),
            ("license", None),
        ] {
            assert_eq!(similar(name, &MEMBERS), meant, "{name}");
        }
        assert_eq!(similar(&"x".repeat(1 << 20), &MEMBERS), None);
    }
}
