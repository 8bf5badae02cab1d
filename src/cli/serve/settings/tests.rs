//! The table is consistent, the document shows it, and configurations are read as documented.

use std::fmt::Write as _;
use std::path::Path;

use plugin_runner::admin::AdminSettings;
use plugin_runner::{LogSettings, ManagerSettings, RestartPolicy, Timeouts};

use super::*;
use crate::cli::data_dir::DataDir;
use crate::cli::serve::service::{admin_settings, manager_settings};

/// What the document has before the table.
const HEAD: &str = "\
# The settings of `plugin-runner serve`

Each is taken from the first place that has it: the flag, the variable, the TOML file that `--config FILE` or the
variable `PLUGIN_RUNNER_CONFIG` names, the default. A variable that is empty counts as not set. In a variable, several
values of one setting stand between commas; in the file, they are an array. Durations are written `500ms`, `3s`,
`1m30s` or `1.5h`; sizes, `512MiB`. `plugin-runner serve --check` prints them all, with where each came from, as a file
that would say the same, and everything that is wrong.

";

/// Returns the table of all settings as a document.
fn document() -> String {
    let mut text = String::from(
        "| key | flag | variable | default | what it sets |\n| --- | --- | --- | --- | --- |\n",
    );
    for setting in TABLE {
        let flag = match setting.flag() {
            None => String::new(),
            Some(flag) if setting.is_list => {
                format!("`--{flag} {}`, repeatable", setting.value_name)
            }
            Some(flag) => format!("`--{flag} {}`", setting.value_name),
        };
        let key = if setting.is_secret {
            String::new()
        } else {
            format!("`{}`", setting.name)
        };
        let default = match setting.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let reloaded = if setting.is_reloaded {
            " SIGHUP applies it."
        } else {
            ""
        };
        let (variable, help) = (setting.variable, setting.help.trim());
        let _ = writeln!(
            text,
            "| {key} | {flag} | `{variable}` | {default} | {help}{reloaded} |"
        );
    }
    text
}

/// Reads a configuration with this file, these flags and these variables.
fn read(file: &str, flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Configuration {
    let dir = DataDir::temporary().unwrap();
    let path = dir.path().join("x.toml");
    std::fs::write(&path, file).unwrap();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut flags: std::collections::HashMap<_, _> = flags.iter().map(owned).collect();
    flags.insert(CONFIG_FLAG.to_owned(), path.to_str().unwrap().to_owned());
    let variables = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    let mut read = Configuration::read(&Given {
        flags,
        variables: variables.collect(),
    });
    let inside = format!("{}/", dir.path().display());
    for problem in &mut read.problems {
        *problem = problem.replace(&inside, "");
    }
    read
}

#[test]
fn the_document_shows_the_table() {
    let document = format!("{HEAD}{}", document());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/serve/settings.md");
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == document,
        "{} should be:\n{document}",
        path.display()
    );
}

#[test]
fn defaults_are_the_librarys() {
    let settings = read("", &[], &[]).settings.unwrap();
    let policy = RestartPolicy::default()
        .max_restart_attempts(settings.max_restart_attempts)
        .max_backoff(settings.max_backoff)
        .crash_threshold(settings.crash_threshold)
        .crash_backoff(settings.crash_backoff);
    assert_eq!(policy, RestartPolicy::default());
    let timeouts = Timeouts::default()
        .stop_grace(settings.stop_grace)
        .connect(settings.connect_timeout);
    assert_eq!(timeouts, Timeouts::default());
    let logs = LogSettings::default()
        .max_file_size(settings.plugin_log_size.0)
        .keep(settings.plugin_log_files)
        .max_age(settings.plugin_log_age);
    assert_eq!(logs, LogSettings::default());
    assert_eq!(
        format!("{:?}", manager_settings(&settings)),
        format!("{:?}", ManagerSettings::default())
    );
    assert_eq!(
        format!("{:?}", admin_settings(&settings)),
        format!("{:?}", AdminSettings::default())
    );
}

#[test]
fn a_flag_counts_before_a_variable_and_that_before_the_file() {
    let file = "stop_grace = \"1s\"";
    let variable = ("PLUGIN_RUNNER_STOP_GRACE", "2s");
    let flag = ("stop_grace", "1m3s");
    let grace = |read: Configuration| {
        let origin = read
            .effective
            .iter()
            .find(|one| one.setting.name == "stop_grace");
        let origin = origin.unwrap().origin.to_string();
        (
            read.settings.unwrap().stop_grace.as_secs(),
            origin.rsplit('/').next().unwrap().to_owned(),
        )
    };
    assert_eq!(
        grace(read(file, &[flag], &[variable])),
        (63, "flag".to_owned())
    );
    assert_eq!(
        grace(read(file, &[], &[variable])),
        (2, "environment".to_owned())
    );
    assert_eq!(
        grace(read(file, &[], &[("PLUGIN_RUNNER_STOP_GRACE", "")])),
        (1, "x.toml:1".to_owned())
    );
    assert_eq!(grace(read("", &[], &[])), (3, "default".to_owned()));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let file = "\
max_backof = \"3s\"
crash_backoff = 3
crash_threshold = true
plugin_nice = 20
allow_host = [\"a\", 1]
admin_token = \"abcdefghijklmnop\"
public_url = [\"a\"]
[log_level]
";
    let flags = [
        ("listen", "8000"),
        ("plugin_memory", "1GB"),
        ("max_backoff", "25h"),
    ];
    let variables = [
        ("SPRITES_API_KEY", "se cret"),
        ("PLUGIN_RUNTIME_PROVIDER", "docker"),
    ];
    let read = read(file, &flags, &variables);
    assert!(read.settings.is_none());
    assert_eq!(
        read.problems,
        [
            "x.toml:1: there is no setting \"max_backof\"; did you mean max_backoff?",
            "x.toml:2: crash_backoff: \"3\": the unit is missing; write 3ms, 3s or 3m",
            "x.toml:3: crash_threshold: it is not a yes or no",
            "x.toml:4: plugin_nice: \"20\": write a whole number from -20 to 19",
            "x.toml:5: allow_host: each of them is a text between quotes",
            "x.toml:6: admin_token: a secret does not belong into this file; set the variable \
             PLUGIN_RUNNER_ADMIN_TOKEN",
            "x.toml:7: public_url: it is one value, not several",
            "x.toml:8: log_level: it is a value, not a table",
            "--listen: \"8000\": write an address and a port, such as 127.0.0.1:8000 or [::1]:8000",
            "PLUGIN_RUNTIME_PROVIDER: \"docker\": write local, sprites or none",
            "SPRITES_API_KEY: only visible ASCII characters, and no space, can be in it",
            "--max-backoff: \"25h\": it is longer than a day",
            "--plugin-memory: \"1GB\": write a size such as 512MiB; the units are B, KiB, MiB and GiB",
        ]
    );
}

#[test]
fn everything_that_is_wrong_in_lists_is_said_with_its_value() {
    let flags = [
        ("allow_host", "a.example:80,b.example,c.example/"),
        ("allow_origin", "d.example,https://e.example"),
        (
            "fetch_allow_host",
            "http://127.0.0.1:9000,f.example:443,g.example,https://ann:word@h.example",
        ),
    ];
    let read = read("", &flags, &[]);
    let host = "is no host name; write it as in plugins.example.org, without a port";
    let mut expected = vec![
        format!("--allow-host: \"a.example:80\" {host}; \"c.example/\" {host}"),
        "--allow-origin: \"d.example\" is no origin; write it as in https://admin.example.org, without a path"
            .to_owned(),
    ];
    let fetched = "is no HOST:PORT; write it as in packages.internal:443";
    if cfg!(feature = "fetch") {
        expected.push(format!(
            "--fetch-allow-host: \"http://127.0.0.1:9000\" {fetched}; \"g.example\" {fetched}; \
             \"https://…@h.example\": leave out the user name and the password"
        ));
    }
    assert_eq!(read.problems[..expected.len()], expected);
    assert!(!read.problems.join("").contains("ann:"));
}

#[test]
fn what_is_no_toml_is_said_with_its_lines() {
    let read = read(
        "listen = \nadmin = 127.0.0.1:9\nstop_grace = \"1s\"\n",
        &[],
        &[],
    );
    let lines: Vec<_> = read
        .problems
        .iter()
        .map(|problem| problem.split(':').nth(1).unwrap())
        .collect();
    assert_eq!(lines, ["1", "2"], "{:#?}", read.problems);
    let twice = self::read("stop_grace = \"1s\"\nstop_grace = \"2s\"\n", &[], &[]);
    assert_eq!(twice.problems, ["x.toml:2: duplicate key"]);
}

#[test]
fn settings_that_do_not_go_together_are_named() {
    for (flags, variables, part) in [
        (
            &[("admin", "127.0.0.1:8000")][..],
            &[][..],
            "--admin 127.0.0.1:8000: plugins connect to that port",
        ),
        (&[("admin", "0.0.0.0:8001")], &[], "set a token of your own"),
        (
            &[("admin", "0.0.0.0:8000")],
            &[("PLUGIN_RUNNER_ADMIN_TOKEN", "0123456789abcdef")],
            "see --listen",
        ),
        (
            &[],
            &[("PLUGIN_RUNNER_ADMIN_TOKEN", "0123456789abcde")],
            "PLUGIN_RUNNER_ADMIN_TOKEN: a token has 16",
        ),
        (
            &[("admin_token_file", "/x")],
            &[("PLUGIN_RUNNER_ADMIN_TOKEN", "0123456789abcdef")],
            "--admin-token-file: there is a token in the variable PLUGIN_RUNNER_ADMIN_TOKEN",
        ),
        (
            &[("admin_token_file", "/nowhere/x")],
            &[],
            "cannot open /nowhere/x",
        ),
        (
            &[("runtime", "sprites")],
            &[],
            "in the variable SPRITES_API_KEY",
        ),
        (
            &[("runtime", "sprites")],
            &[("SPRITES_API_KEY", "k")],
            "--public-url is needed",
        ),
        (
            &[("runtime", "sprites"), ("plugin_nice", "1")],
            &[],
            "--plugin-nice: it cannot be set",
        ),
        (&[("public_url", "http://")], &[], "--public-url"),
        (
            &[("public_url", "wss://ann:word@a.example/x@y")],
            &[],
            "--public-url: \"wss://…@a.example/x@y\": leave out the user name",
        ),
        (
            &[("public_url", "ann:word@a.example")],
            &[],
            "--public-url: \"…@a.example\": leave out the user name",
        ),
        (
            &[("sprites_api_url", "https://ann:word@a.example")],
            &[],
            "\"https://…@a.example\": leave out the user name",
        ),
        (
            &[("allow_host", "a.example:80")],
            &[],
            "--allow-host: \"a.example:80\" is no host name",
        ),
        (
            &[("allow_origin", "https://a.example/x")],
            &[],
            "--allow-origin: \"https://a.example/x\" is no",
        ),
        (
            &[("config", "/nowhere/x.toml")],
            &[],
            "cannot read the file",
        ),
    ] {
        let read = if flags.first().is_some_and(|(name, _)| *name == CONFIG_FLAG) {
            let flags = [(CONFIG_FLAG.to_owned(), "/nowhere/x.toml".to_owned())].into();
            Configuration::read(&Given {
                flags,
                ..Given::default()
            })
        } else {
            read("", flags, variables)
        };
        let problems = read.problems.join("\n");
        assert!(problems.contains(part), "{part}: {problems}");
        assert!(read.settings.is_none());
    }
    // With all else that is wrong, and without what follows from it.
    let flags = [
        ("listen", "8000"),
        ("admin", "0.0.0.0:8000"),
        ("log_level", "loud"),
    ];
    let found = read("", &flags, &[]).problems;
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[2].contains("set a token of your own"), "{found:#?}");
    let short = [("PLUGIN_RUNNER_ADMIN_TOKEN", "short")];
    let found = read("", &flags, &short).problems;
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(
        found[1].starts_with("PLUGIN_RUNNER_ADMIN_TOKEN: "),
        "{found:#?}"
    );

    let token = [("PLUGIN_RUNNER_ADMIN_TOKEN", "0123456789abcdef")];
    assert!(
        read("", &[("admin", "0.0.0.0:8001")], &token)
            .settings
            .is_some()
    );
    assert!(
        read(
            "",
            &[("admin", "127.0.0.1:0"), ("listen", "127.0.0.1:0")],
            &[]
        )
        .settings
        .is_some()
    );
}

#[test]
fn what_is_printed_says_the_same_when_it_is_read() {
    let flags = [
        ("allow_origin", "https://a.example,http://b.example:80"),
        ("plugin_memory", "1048576"),
        ("plugin_nice", "-5"),
        ("max_backoff", "1m30s"),
        ("log_level", "DEBUG"),
        ("public_url", "wss://plugins.example.com"),
    ];
    let token = [("PLUGIN_RUNNER_ADMIN_TOKEN", "0123456789abcdef")];
    let first = read("", &flags, &token);
    let text = first.to_text();
    assert!(!text.contains("0123456789abcdef"), "{text}");
    let second = read(&text, &[], &token);
    assert_eq!(second.problems, [""; 0]);
    assert_eq!(
        format!("{:?}", first.settings),
        format!("{:?}", second.settings)
    );
    assert!(second.settings.unwrap().plugin_nice == Some(-5));
}

#[test]
fn variables_that_nothing_reads_are_named() {
    let variables = [
        ("PLUGIN_RUNNER_LISTEN", "127.0.0.1:0"),
        ("PLUGIN_RUNNER_LISTE", "x"),
        ("PLUGIN_RUNNER_WHATEVER_THIS_IS", "x"),
        ("PLUGIN_RUNNER_COOKIE", "x"),
    ];
    assert_eq!(
        read("", &[], &variables).warnings,
        [
            "\"PLUGIN_RUNNER_LISTE\" is no variable of this program; did you mean PLUGIN_RUNNER_LISTEN?",
            "\"PLUGIN_RUNNER_WHATEVER_THIS_IS\" is no variable of this program",
        ]
    );
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("1", 1),
        ("10B", 10),
        ("2KiB", 2048),
        ("512 MiB", 512 << 20),
        ("3GiB", 3 << 30),
    ] {
        assert_eq!(size(text), Ok(Size(bytes)), "{text}");
        let shown = Size(bytes).to_string();
        assert_eq!(size(&shown), Ok(Size(bytes)), "{shown}");
    }
    for wrong in ["", "0", "-1", "1.5GiB", "1MB", "MiB", "99999999999GiB"] {
        assert!(size(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn whatever_is_in_a_file_is_judged() {
    const SAMPLE: &str = "# ü\nlisten = \"127.0.0.1:0\"\nallow_host = [\"a\", 'ß', 1.5e3]\nplugin_nice = -0x5 # é\n\
                          [a.b]\nc = {d = 1979-05-27}\nmax_backoff = \"\"\"1m\n\"\"\"\n";
    const PIECES: [&str; 12] = [
        "\"",
        "'",
        "[",
        "]",
        "{",
        "=",
        "\n",
        "\\",
        "é",
        "\u{1F980}",
        ".",
        "\0",
    ];
    let path = Path::new("x.toml");
    let mut random = 1_usize;
    for _ in 0..2_000 {
        let mut text: Vec<char> = SAMPLE.chars().collect();
        for _ in 0..=random % 4 {
            // Any will do: it is the variety that counts.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let piece = PIECES[(random >> 33) % PIECES.len()];
            let at = (random >> 40) % text.len();
            text.splice(at..(at + (random >> 60)).min(text.len()), piece.chars());
        }
        let text: String = text.into_iter().collect();
        for problem in file::ConfigFile::parse(&text, path).problems {
            let line = problem.split(':').nth(1).unwrap();
            assert!(
                (1..=20).contains(&line.parse().unwrap()),
                "{problem}: {text}"
            );
        }
    }
}
