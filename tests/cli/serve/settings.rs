//! Flags, variables, the file, and `--check`.

use super::{Server, command};
use crate::program::{Program, Scratch, text};

#[test]
fn a_flag_counts_before_a_variable_and_that_before_the_file() {
    let scratch = Scratch::new();
    scratch.write(
        "serve.toml",
        "stop_grace = \"1s\"\nlog_level = \"debug\"\ncrash_backoff = \"7s\"\n",
    );
    let mut command = command(&scratch, "--check --stop-grace 1m3s");
    command
        .env("PLUGIN_RUNNER_CONFIG", "serve.toml")
        .env("PLUGIN_RUNNER_STOP_GRACE", "2s")
        .env("PLUGIN_RUNTIME_CRASH_BACKOFF", "1.5h")
        .env("PLUGIN_DATA_PATH", "");
    let output = Program::start(command).end();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for (line, origin) in [
        ("stop_grace = \"63s\"", "--stop-grace"),
        ("crash_backoff = \"90m\"", "PLUGIN_RUNTIME_CRASH_BACKOFF"),
        ("log_level = \"debug\"", "serve.toml:2"),
        ("data = \"./data/plugins\"", "default"),
        ("# public_url", "not set"),
    ] {
        let expected = format!("{line:48} # {origin}");
        assert!(
            shown.lines().any(|line| line == expected),
            "{expected}\n{shown}"
        );
    }
    assert_eq!(text(&output.stderr), "");
    assert!(!scratch.path("data").exists());
}

#[test]
fn a_check_names_everything_that_is_wrong_and_no_secret() {
    let scratch = Scratch::new();
    scratch.write(
        "serve.toml",
        "lisen = \"127.0.0.1:0\"\nmax_restart_attempts = -1\nplugin_memory = \"1GB\"\n[plugin]\nnice = 3\n",
    );
    let flags = "--check --config serve.toml --admin 8001 --stop-grace soon --log-level loud";
    let mut command = command(&scratch, flags);
    command
        .env("PLUGIN_RUNTIME_PROVIDER", "docker")
        .env("PLUGIN_MAX_BACKOFF_DURATION", "60")
        .env("PLUGIN_RUNNER_ADMIN_TOKEN", "hush-hush")
        .env("SPRITES_API_KEY", "not to be seen")
        .env("PLUGIN_RUNNER_LOG_LEVLE", "info");
    let output = Program::start(command).end();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    for part in [
        "serve.toml:1: there is no setting \"lisen\"; did you mean listen?",
        "serve.toml:4: there is no setting \"plugin\"",
        "--admin: \"8001\": write an address and a port",
        "PLUGIN_RUNTIME_PROVIDER: \"docker\": write local, sprites or none",
        "SPRITES_API_KEY: only visible ASCII",
        "PLUGIN_RUNNER_ADMIN_TOKEN: a token has 16 to 256 characters",
        "serve.toml:2: max_restart_attempts: \"-1\": write a whole number",
        "PLUGIN_MAX_BACKOFF_DURATION: \"60\": the unit is missing",
        "--stop-grace: \"soon\": a duration is a number and a unit",
        "serve.toml:3: plugin_memory: \"1GB\": write a size",
        "--log-level: \"loud\": write off, error, warn, info or debug",
        "warning: \"PLUGIN_RUNNER_LOG_LEVLE\" is no variable of this program; did you mean \
         PLUGIN_RUNNER_LOG_LEVEL?",
    ] {
        let lines = said.lines().filter(|line| line.contains(part)).count();
        assert_eq!(lines, 1, "{part}\n{said}");
    }
    assert_eq!(said.lines().count(), 12, "{said}");
    for secret in ["hush", "not to be seen"] {
        assert!(
            !said.contains(secret) && !text(&output.stdout).contains(secret),
            "{said}"
        );
    }

    // Without --check it says the same, and starts nothing.
    let flags = flags.replace("--check ", "");
    let output = Program::start(self::command(&scratch, &flags)).end();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--log-level"));
    assert_eq!(text(&output.stdout), "");
    assert!(!scratch.path("data").exists());
}

#[test]
fn a_check_tells_whether_a_secret_is_set() {
    let scratch = Scratch::new();
    let mut command = command(&scratch, "--check");
    command.env("PLUGIN_RUNNER_ADMIN_TOKEN", "0123456789abcdef-secret");
    let output = Program::start(command).end();
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(shown.contains("# admin_token is set"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    // Arguments are visible to everyone.
    let output = Program::start(self::command(&scratch, "--admin-token x")).end();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_url_that_plugins_are_given_is_said_at_the_start() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "--public-url https://plugins.example.com/");
    let said = server.program.stop();
    let line =
        "plugins connect to wss://plugins.example.com/rpc, which has to lead to ws://127.0.0.1:";
    assert!(said.contains(line), "{said}");
    // `run` has the same rule.
    for command in ["serve --check", "run"] {
        let arguments = format!("{command} --public-url https://plugins.example.com/base");
        let output = Program::start(scratch.command(&arguments)).end();
        assert_eq!(output.status.code(), Some(2), "{command}");
        let said = text(&output.stderr);
        assert!(said.contains("--public-url"), "{said}");
        assert!(said.contains("without any other path or query"), "{said}");
    }
}
