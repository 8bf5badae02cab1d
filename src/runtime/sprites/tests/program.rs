//! The script that starts a plugin, run by the shell of this machine.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::protocol::environment::DATA_VARIABLE;
use crate::runtime::sprites::program::{Program, ProgramParts};
use crate::testing::TestDir;

type Variables = BTreeMap<OsString, OsString>;

/// A base directory with one empty release.
struct Base {
    dir: TestDir,
    release: PathBuf,
}

impl Base {
    fn new() -> Self {
        let dir = TestDir::new("sprites-program");
        let release = dir.path().join("base/releases/abc123");
        fs::create_dir_all(&release).unwrap();
        Self { dir, release }
    }

    fn base(&self) -> PathBuf {
        self.dir.path().join("base")
    }

    fn program(&self, words: &[&str], variables: &Variables, has_stdin: bool) -> Program {
        let args: Vec<_> = words[1..].iter().map(|&word| word.to_owned()).collect();
        let base = self.base();
        let parts = ProgramParts {
            base: base.to_str().unwrap(),
            release: self.release.to_str().unwrap(),
            program: words[0],
            args: &args,
            variables,
            has_stdin,
        };
        Program::new(parts).unwrap()
    }

    /// Starts it with nothing in the environment, as the shell of a service might; its standard input is
    /// still open.
    fn start(program: &Program) -> Child {
        program.with_command(Duration::ZERO, |command| {
            Command::new(command.command[0])
                .args(&command.command[1..])
                .env_clear()
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
    }

    fn run(program: &Program, input: &[u8]) -> Output {
        let mut child = Self::start(program);
        // It may have ended already.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Runs `env` with these variables; returns what it has of them, and all that it has.
    fn environment(&self, variables: &Variables) -> Variables {
        let program = self.program(&["env", "-0"], variables, false);
        let output = Self::run(&program, program.preamble());
        assert!(output.status.success(), "{output:?}");
        let all = output.stdout.split(|&byte| byte == 0);
        all.filter_map(|variable| {
            let at = variable.iter().position(|&byte| byte == b'=')?;
            let (name, value) = (&variable[..at], &variable[at + 1..]);
            Some((
                OsStr::from_bytes(name).into(),
                OsStr::from_bytes(value).into(),
            ))
        })
        .collect()
    }
}

fn variables(all: &[(&str, &str)]) -> Variables {
    let all = all.iter();
    all.map(|(name, value)| (name.into(), value.into()))
        .collect()
}

#[test]
fn values_arrive_whatever_is_in_them() {
    let base = Base::new();
    let mut given = variables(&[
        ("NEWLINES", "\na\n\nb\n"),
        ("QUOTES", "'\"`'"),
        ("COMMAND", "$(touch evil) `touch evil` ${HOME} $HOME"),
        ("ARRAY", "(a b)"),
        ("SPACES", "  a\t b  "),
        ("BACKSLASHES", "\\n \\\\ \\"),
        ("EQUALS", "=a=b"),
        ("TILDE", "~/x"),
        ("GLOB", "* ? [a]"),
        ("EMPTY", ""),
        ("OPTION", "-n"),
        ("UNICODE", "\u{e4}\u{1f980}"),
        ("REPLY", "kept"),
        ("IFS", "x"),
        ("lower_1", "1"),
    ]);
    given.insert("BYTES".into(), OsString::from_vec((1..=255).collect()));
    given.insert("LONG".into(), "x".repeat(100_000).into());
    let got = base.environment(&given);
    for (name, value) in &given {
        assert!(
            got.get(name) == Some(value),
            "{name:?}: {:?}",
            got.get(name)
        );
    }
    assert!(!base.release.join("evil").exists());
}

#[test]
fn variables_of_the_shell_arrive_or_are_refused() {
    let listed = Command::new("bash").args(["-lc", "compgen -v"]).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let value = "7";
    let parts = |variables: &Variables| {
        Program::new(ProgramParts {
            base: "/b",
            release: "/b/r",
            program: "env",
            args: &[],
            variables,
            has_stdin: false,
        })
    };
    let named = |name: &str| variables(&[(name, value)]);
    let accepted = listed.lines().filter(|name| parts(&named(name)).is_ok());
    let mut given: Variables = accepted.map(|name| (name.into(), value.into())).collect();
    assert!(given.contains_key(OsStr::new("IFS")), "{given:?}");
    // It is looked for on it.
    given.remove(OsStr::new("PATH"));
    // The shell sets these itself, to what is right where the program runs.
    for name in ["PWD", "OLDPWD"] {
        given.remove(OsStr::new(name));
    }
    let base = Base::new();
    let got = base.environment(&given);
    for name in given.keys() {
        assert_eq!(got.get(name), Some(&value.into()), "{name:?}");
    }
}

#[test]
fn what_the_environment_lacks_has_defaults() {
    let base = Base::new();
    let got = base.environment(&Variables::new());
    let get = |name: &str| got.get(OsStr::new(name)).unwrap().to_str().unwrap();
    let data = base.base().join("data");
    assert_eq!(get(DATA_VARIABLE), data.to_str().unwrap());
    assert!(data.is_dir());
    assert_eq!(get("HOME"), base.dir.path().to_str().unwrap());
    assert!(get("PATH").split(':').any(|path| path == "/usr/bin"));
    let current = fs::read_to_string(base.base().join("current")).unwrap();
    assert_eq!(current, "abc123");
    // What is given holds, but for what the host decides.
    let given = variables(&[
        ("HOME", "/h"),
        ("PATH", "/bin:/usr/bin"),
        (DATA_VARIABLE, "/d"),
    ]);
    let got = base.environment(&given);
    let get = |name: &str| got.get(OsStr::new(name)).unwrap().to_str().unwrap();
    assert_eq!(get("HOME"), "/h");
    assert_eq!(get("PATH"), "/bin:/usr/bin");
    assert_eq!(get(DATA_VARIABLE), data.to_str().unwrap());
}

#[test]
fn a_program_is_found_in_the_release_or_on_its_path_and_runs_in_the_release() {
    let base = Base::new();
    let bin = base.release.join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy("/bin/sh", bin.join("own")).unwrap();
    let script = ["-c", "echo \"$0 $1\"; pwd", "a b", "-c $x"];
    let expected = format!("a b -c $x\n{}\n", base.release.display());
    let path = variables(&[("PATH", bin.to_str().unwrap())]);
    for (program, variables) in [
        ("bin/own", &Variables::new()),
        ("./bin/own", &Variables::new()),
        ("own", &path),
        (bin.join("own").to_str().unwrap(), &Variables::new()),
    ] {
        let words: Vec<_> = std::iter::once(program).chain(script).collect();
        let program = base.program(&words, variables, false);
        let output = Base::run(&program, program.preamble());
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{output:?}"
        );
    }
    let program = base.program(&["missing"], &Variables::new(), false);
    let output = Base::run(&program, program.preamble());
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    let program = base.program(&["-c"], &Variables::new(), false);
    let output = Base::run(&program, program.preamble());
    assert_eq!(output.status.code(), Some(127), "no option: {output:?}");
}

#[test]
fn an_environment_that_is_cut_starts_nothing() {
    let base = Base::new();
    let program = base.program(
        &["touch", "started"],
        &variables(&[("A", "1"), ("B", "")]),
        true,
    );
    let preamble = program.preamble();
    assert_eq!(preamble, b"A=1\0B=\0\0");
    for length in 0..preamble.len() {
        let output = Base::run(&program, &preamble[..length]);
        assert_eq!(output.status.code(), Some(125), "{length}: {output:?}");
        assert!(!base.release.join("started").exists(), "{length}");
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(shown.contains("before the environment"), "{shown}");
    }
    let output = Base::run(&program, preamble);
    assert!(output.status.success(), "{output:?}");
    assert!(base.release.join("started").exists());
}

#[test]
fn a_release_that_is_missing_starts_nothing() {
    let base = Base::new();
    let program = base.program(&["true"], &Variables::new(), false);
    fs::remove_dir(&base.release).unwrap();
    let output = Base::run(&program, program.preamble());
    assert_eq!(output.status.code(), Some(125), "{output:?}");
}

#[test]
fn only_a_program_that_reads_input_has_what_follows() {
    let base = Base::new();
    for has_stdin in [false, true] {
        let program = base.program(&["cat"], &variables(&[("A", "1")]), has_stdin);
        let input = [program.preamble(), b"more\0\ninput"].concat();
        let output = Base::run(&program, &input);
        let expected: &[u8] = if has_stdin { b"more\0\ninput" } else { b"" };
        assert_eq!(output.stdout, expected);
        assert!(output.status.success());
    }
}

#[test]
fn the_program_is_the_process_that_was_started() {
    let base = Base::new();
    let program = base.program(
        &["sh", "-c", "echo $$; kill -TERM $$"],
        &Variables::new(),
        false,
    );
    let mut child = Base::start(&program);
    child
        .stdin
        .take()
        .unwrap()
        .write_all(program.preamble())
        .unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{pid}\n")
    );
    assert_eq!(output.status.signal(), Some(15));
}

#[test]
fn variables_that_cannot_be_set_are_refused_by_name_and_without_their_values() {
    let mut given = variables(&[
        ("GOOD", "secret"),
        ("NOT GOOD", "secret"),
        ("1X", "secret"),
        ("A-B", "secret"),
        ("\u{e4}", "secret"),
        ("", "secret"),
        ("UID", "secret"),
        ("__pr_all", "secret"),
    ]);
    given.insert(OsString::from_vec(vec![b'X', 0xff]), "secret".into());
    let refused = |given: &Variables| {
        let program = Program::new(ProgramParts {
            base: "/b",
            release: "/b/r",
            program: "p",
            args: &[],
            variables: given,
            has_stdin: false,
        });
        program.unwrap_err().to_string()
    };
    let text = refused(&given);
    for name in ["NOT GOOD", "1X", "A-B", "UID", "__pr_all"] {
        assert!(text.contains(name), "{text}");
    }
    assert!(
        !text.contains("GOOD,") && !text.contains("secret"),
        "{text}"
    );
    let text = refused(&variables(&[("ZERO", "secret\0")]));
    assert!(text.contains("ZERO") && !text.contains("secret"), "{text}");
}

#[test]
fn words_that_no_program_can_be_given_are_refused() {
    let refused = |program: &str, args: &[String]| {
        let program = Program::new(ProgramParts {
            base: "/b",
            release: "/b/r",
            program,
            args,
            variables: &variables(&[]),
            has_stdin: false,
        });
        crate::error::StartError::from(program.unwrap_err())
    };
    for error in [
        refused("p\0q", &[]),
        refused("p", &["a".into(), "\0".into()]),
    ] {
        let text = error.to_string();
        assert!(text.contains("NUL"), "{text}");
        // The service would not start it, and that is looked upon as a failure that passes.
        assert!(error.is_permanent(), "{text}");
    }
}
