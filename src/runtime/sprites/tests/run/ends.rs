//! Runs whose connection holds: what is printed and read, and how they end.

use super::*;
use crate::runtime::sprites::tests::fake::{Exit, Info, Unstartable};

#[test]
fn both_streams_come_apart_and_the_environment_is_there() {
    let setup = Setup::new();
    let script =
        r#"printf %s "$GREETING"; pwd; echo "$PLUGIN_DATA_DIR"; cat; echo err >&2; exit 3"#;
    let (exit, stdout, stderr) = setup.start(script).end();
    assert_eq!(exit.end, code(3));
    assert!(!exit.was_forced);
    let place = |path: &str| setup.fake.path("one", path).unwrap();
    let (release, data) = (place(RELEASE), place(BASE).join("data"));
    let expected = format!("it's $(me)\n{}\n{}\n", release.display(), data.display());
    assert_eq!(stdout, expected);
    assert_eq!(stderr, "err\n");
    let current = std::fs::read_to_string(place(BASE).join("current")).unwrap();
    assert_eq!(current, "abc123");
    assert!(data.is_dir());
    assert_eq!(setup.notes(), Vec::<String>::new());
    // The list and the kill are for what goes wrong.
    assert_eq!(setup.fake.calls().count("* /v1/sprites/one/exec*"), 1);
    setup.finish();
}

#[test]
fn an_exit_is_understood_however_it_is_told() {
    let setup = Setup::new();
    for exit in [Exit::Frame, Exit::Text, Exit::Both, Exit::EmptyFrame] {
        setup.fake.set(|switches| switches.exit = exit);
        setup.start("exit 0").ends(code(0));
        setup.start("exit 128").ends(code(128));
        setup.start("kill -TERM $$").ends(signal(15));
        setup.start("kill -KILL $$").ends(signal(9));
    }
    setup.finish();
}

#[test]
fn a_plugin_reads_what_the_host_writes_and_its_end() {
    let setup = Setup::new();
    let mut run = setup.start_with_stdin("cat; echo end");
    let mut stdin = run.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    run.read_to("one\n");
    let sent = "0123456789abcdef".repeat(64 * 1024);
    let writing = std::thread::spawn({
        let sent = sent.clone();
        move || stdin.write_all(sent.as_bytes()).unwrap()
    });
    let mut received = String::new();
    run.stdout.read_to_string(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == sent + "end\n", "{} bytes", received.len());
    run.ends(code(0));
    setup.finish();
}

#[test]
fn the_hosts_end_of_stdin_breaks_with_the_end_of_the_run() {
    let setup = Setup::new();
    let mut run = setup.start_with_stdin("exit 4");
    assert_eq!(run.wait().end, code(4));
    assert_eq!(setup.threads.join_all(Deadline::after(LONG)), 0);
    let written = run.stdin.take().unwrap().write(b"x");
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    drop(run);
    setup.finish();
}

#[test]
fn much_output_in_one_go_arrives_whole_before_the_end() {
    let setup = Setup::new();
    let mut run = setup.start("head -c 4194304 /dev/zero");
    let mut count = 0;
    let mut part = vec![0; 100_000];
    loop {
        let read = run.stdout.read(&mut part).unwrap();
        if read == 0 {
            break;
        }
        count += read;
    }
    assert_eq!(count, 4 * 1024 * 1024);
    run.ends(code(0));
    setup.finish();
}

#[test]
fn output_that_nobody_reads_for_a_while_waits_and_is_no_silence() {
    let mut setup = Setup::new();
    setup.limits.silence = Some((Duration::from_millis(50), Duration::from_secs(1)));
    // What the pipe takes, and one message that waits, after which the service has nothing to say.
    let mut run = setup.start("head -c 65536 /dev/zero; sleep 0.1; echo; exec sleep 60");
    wait_until("a full pipe", || {
        rustix::io::ioctl_fionread(&run.stdout).unwrap() >= 65_536
    });
    // Waits out the silence that is borne.
    let ended = poll::readable(
        run.handle.as_fd(),
        Deadline::after(Duration::from_millis(500)),
    );
    assert!(!ended.unwrap());
    run.read_to("\n");
    assert_eq!(setup.notes(), Vec::<String>::new());
    assert_eq!(setup.fake.calls().count("GET */exec/*"), 0);
    drop(run);
    setup.finish();
}

#[test]
fn output_without_a_reader_is_dropped_and_the_run_goes_on() {
    let setup = Setup::new();
    let mut run = setup.start("head -c 1000000 /dev/zero >&2; echo still; exit 5");
    drop(std::mem::replace(
        &mut run.stderr,
        File::open("/dev/null").unwrap(),
    ));
    run.read_to("still\n");
    run.ends(code(5));
    setup.finish();
}

#[test]
fn a_run_without_a_session_id_or_with_a_number_is_the_same() {
    let setup = Setup::new();
    for info in [Info::Missing, Info::Number] {
        setup.fake.set(|switches| switches.info = info);
        setup.start("exit 6").ends(code(6));
        let mut run = setup.start("echo up; exec sleep 60");
        run.read_to("up\n");
        run.signal(StopSignal::Terminate);
        run.ends(signal(15));
    }
    setup.finish();
}

#[test]
fn a_program_that_is_missing_is_said_to_be() {
    let setup = Setup::new();
    let program = Program::new(ProgramParts {
        base: BASE,
        release: RELEASE,
        program: "./missing",
        args: &[],
        variables: &BTreeMap::new(),
        has_stdin: false,
    });
    let run = setup.try_start(&program.unwrap()).unwrap();
    let (exit, _, stderr) = run.end();
    assert_eq!(exit.end, code(127));
    assert!(stderr.contains("/missing: "), "{stderr}");
    setup.finish();
}

#[test]
fn a_service_that_starts_no_program_is_blamed() {
    for has_stdin in [false, true] {
        let mut setup = Setup::new();
        setup.limits.early = LONG;
        // Without its directory no program can be started by the fake.
        setup
            .fake
            .set(|switches| switches.unstartable = Unstartable::ErrorText);
        let root = setup.fake.path("one", "/").unwrap();
        std::fs::rename(&root, root.with_extension("away")).unwrap();
        let program = Setup::script("exit 0", has_stdin);
        let exit = setup.try_start(&program).unwrap().wait();
        let SpriteEnd::Lost(loss @ Loss::NotStarted(Some(_))) = exit.end else {
            panic!("{exit:?}");
        };
        let text = loss.to_string();
        let expected = "the service did not start the program: failed to start: ";
        assert!(text.starts_with(expected), "{text}");
        setup
            .fake
            .set(|switches| switches.unstartable = Unstartable::Close);
        setup
            .try_start(&program)
            .unwrap()
            .ends(SpriteEnd::Lost(Loss::NotStarted(None)));
        setup
            .fake
            .set(|switches| switches.unstartable = Unstartable::Refused);
        setup.try_start(&program).map(drop).unwrap_err();
        std::fs::rename(root.with_extension("away"), &root).unwrap();
        setup.finish();
    }
}

#[test]
fn a_run_that_cannot_have_its_threads_starts_nothing() {
    let mut setup = Setup::new();
    setup.threads = Threads::with_limit(1);
    let program = Setup::script("exit 0", true);
    let error = setup.try_start(&program).map(drop).unwrap_err();
    assert!(error.to_string().contains("threads"), "{error}");
    assert_eq!(setup.fake.calls().count("* /v1/sprites/one/exec*"), 0);
    setup.finish();
}

#[test]
fn the_environment_is_never_logged() {
    let alone = "runtime::sprites::tests::run::ends::no_log_line_has_the_environment";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", alone])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
#[ignore = "takes the process's logger; run by another test, in a process of its own"]
fn no_log_line_has_the_environment() {
    static LINES: Lines = Lines(Mutex::new(Vec::new()));
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let setup = Setup::new();
    let (exit, stdout, _) = setup.start("printf %s \"$KEY\" | wc -c").end();
    assert_eq!((exit.end, stdout), (code(0), format!("{}\n", SECRET.len())));
    let hexadecimal = data_encoding::HEXLOWER.encode(SECRET.as_bytes());
    let token = setup.fake.token().to_owned();
    setup.finish();
    let lines = LINES.0.lock();
    let line = |text: &str| lines.iter().find(|line| line.contains(text));
    assert!(line("received frame").is_some(), "nothing was logged");
    for secret in [SECRET, &hexadecimal, &token] {
        assert_eq!(line(secret), None);
    }
}

/// A logger that keeps every line but the service's.
struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // The fake reads the environment with the same library.
        if std::thread::current().name() == Some("fake-sprites") {
            return;
        }
        let line = format!("{} {}", record.target(), record.args());
        self.0.lock().push(line);
    }

    fn flush(&self) {}
}
