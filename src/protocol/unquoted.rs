//! What a decoder says of JSON that it cannot decode, without the value that it quotes: that may be a secret, and
//! the text ends up in errors and log lines.

use serde::de::Error as _;

/// Values that `serde` quotes, after `invalid type: ` and `invalid value: `.
const QUOTED: [&str; 5] = [
    "string \"",
    "integer `",
    "floating point `",
    "boolean `",
    "character `",
];

/// Returns the same error without the value that it quotes. Names of members, the types, and the place in the text
/// stay.
pub(crate) fn unquoted(error: serde_json::Error) -> serde_json::Error {
    match cut(&error.to_string()) {
        // It finds the place at the end of the text.
        Some(text) => serde_json::Error::custom(text),
        None => error,
    }
}

fn cut(text: &str) -> Option<String> {
    // The value may have the same words in it, what was expected has not.
    let rest = |value: &str| value.rfind(", expected ").map(|at| value[at..].to_owned());
    for problem in ["invalid type: ", "invalid value: "] {
        if let Some(found) = text.strip_prefix(problem) {
            let quoted = QUOTED.iter().find(|quoted| found.starts_with(**quoted))?;
            let kind = &quoted[..quoted.len() - 2];
            let rest = rest(&found[quoted.len()..]).unwrap_or_default();
            return Some(format!("{problem}{kind}{rest}"));
        }
    }
    let variant = text.strip_prefix("unknown variant `")?;
    Some(format!(
        "unknown variant{}",
        rest(variant).unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::*;

    #[derive(Deserialize)]
    enum Never {}

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only decoded")]
    enum Word {
        One,
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only decoded")]
    #[serde(deny_unknown_fields)]
    struct Typed {
        #[serde(default)]
        number: u8,
        name: String,
    }

    fn shown<T: DeserializeOwned>(json: &str) -> String {
        let error = serde_json::from_str::<T>(json).err().unwrap();
        let place = (error.line(), error.column());
        let unquoted = unquoted(error);
        assert_eq!((unquoted.line(), unquoted.column()), place, "{json}");
        unquoted.to_string()
    }

    #[test]
    fn a_value_is_left_out_and_all_else_stays() {
        for (json, expected) in [
            (
                "\"hush\"",
                "invalid type: string, expected u8 at line 1 column 6",
            ),
            (
                r#""a\", expected b""#,
                "invalid type: string, expected u8 at line 1 column 17",
            ),
            (
                "7777",
                "invalid value: integer, expected u8 at line 1 column 4",
            ),
            (
                "-7",
                "invalid value: integer, expected u8 at line 1 column 2",
            ),
            (
                "7.5",
                "invalid type: floating point, expected u8 at line 1 column 3",
            ),
            (
                "true",
                "invalid type: boolean, expected u8 at line 1 column 4",
            ),
            ("null", "invalid type: null, expected u8 at line 1 column 4"),
            (
                "[7]",
                "invalid type: sequence, expected u8 at line 1 column 0",
            ),
            ("{}", "invalid type: map, expected u8 at line 1 column 0"),
            ("", "EOF while parsing a value at line 1 column 0"),
            ("hush", "expected value at line 1 column 1"),
        ] {
            assert_eq!(shown::<u8>(json), expected, "{json}");
        }
    }

    #[test]
    fn names_of_members_stay_and_a_variant_is_a_value() {
        assert_eq!(
            shown::<Typed>("{}"),
            "missing field `name` at line 1 column 2"
        );
        assert_eq!(
            shown::<Typed>(r#"{"other": "hush"}"#),
            "unknown field `other`, expected `number` or `name` at line 1 column 8"
        );
        assert_eq!(
            shown::<Typed>("{\n\"number\": \"hush\"}"),
            "invalid type: string, expected u8 at line 2 column 16"
        );
        assert_eq!(
            shown::<Word>("\"hush, expected `One`\""),
            "unknown variant, expected `One` at line 1 column 22"
        );
        // There is no place to be found behind such a value.
        let error = serde_json::from_str::<Never>("\"hush\"").err().unwrap();
        let shown = unquoted(error).to_string();
        assert!(
            shown.starts_with("unknown variant") && !shown.contains("hush"),
            "{shown}"
        );
    }
}
