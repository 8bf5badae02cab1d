//! Attempts that fail, and those after them.

use std::fs;
use std::time::Duration;

use serde_json::json;

use super::super::fake::{Answer, Fault, SocketFault, Switches};
use super::{LIMITS, SPRITE, Sprite, make_ready, of_many, release, tree};
use crate::error::{ErrorKind, PackageError, SpritesError, SpritesProblem, StartError};
use crate::runtime::sprites::deploy::{DeployError, deploy_by};
use crate::runtime::sprites::interrupt::Interrupt;
use crate::runtime::sprites::interrupt::Within;
use crate::runtime::sprites::{retry, script};
use crate::testing::{LONG, assert_matches, wait_until};

/// Whether a start that fails so may succeed later.
fn is_passing(error: &DeployError) -> bool {
    matches!(error, DeployError::Service(error) if retry::is_passing(&error.problem))
}

const UPLOAD: &str = "PUT */fs/write";

fn refusal() -> Fault {
    Fault::Answer(Answer::json(400, &json!({"error": "quota"})))
}

#[track_caller]
fn service(outcome: Result<String, DeployError>) -> SpritesProblem {
    match outcome {
        Err(DeployError::Service(error)) => error.problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_uploaded_before_a_failure_is_not_uploaded_again() {
    let sprite = Sprite::new();
    let release = of_many(40);
    sprite.fake.set(|switches| {
        switches.next(20, UPLOAD, Fault::Delay(Duration::ZERO));
        switches.next(1, UPLOAD, refusal());
    });
    let problem = service(sprite.deploy_with(1, &release));
    assert_matches!(problem, SpritesProblem::Refused { status: 400, .. });
    assert_eq!(sprite.uploads(), 21);

    sprite.fake.forget_calls();
    sprite.deploy(&release).unwrap();
    assert_eq!(sprite.uploads(), 41 - 20);
    assert_eq!(tree(&sprite.of(&release, "")).len(), 41 + 7 + 1);

    sprite.fake.forget_calls();
    sprite.deploy(&release).unwrap();
    assert_eq!(sprite.fake.calls().0.len(), 1);
}

#[test]
fn an_empty_staging_directory_is_nothing() {
    let sprite = Sprite::new();
    let release = of_many(3);
    // It is listed as `null`, and so is a directory in it.
    let staging = sprite.path(&format!("staging-{}", release.sha256()));
    fs::create_dir_all(&staging).unwrap();
    sprite.deploy(&release).unwrap();
    assert_eq!(sprite.uploads(), 4);

    let second = of_many(4);
    let staging = sprite.path(&format!("staging-{}", second.sha256()));
    fs::create_dir_all(staging.join("dir-1")).unwrap();
    sprite.fake.forget_calls();
    sprite.deploy(&second).unwrap();
    assert_eq!(sprite.uploads(), 5);
    assert_eq!(sprite.fake.calls().count("GET */fs/list"), 2);
}

#[test]
fn damaged_files_are_found_by_content_and_sent_again() {
    let sprite = Sprite::new();
    let release = release(&[("run", "good", 0o644), ("other", "x", 0o644)]);
    let staging = sprite.path(&format!("staging-{}", release.sha256()));
    fs::create_dir_all(&staging).unwrap();
    fs::write(staging.join("run"), "evil").unwrap();
    let error = sprite.deploy(&release).unwrap_err();
    assert!(is_passing(&error), "{error}");
    assert_matches!(
        error,
        DeployError::Service(SpritesError {
            problem: SpritesProblem::Damaged,
            ..
        })
    );
    assert!(!staging.exists());
    assert!(!sprite.of(&release, "").exists());
    sprite.fake.forget_calls();
    sprite.deploy(&release).unwrap();
    assert_eq!(sprite.uploads(), 3);
    assert_eq!(fs::read(sprite.of(&release, "run")).unwrap(), b"good");
}

#[test]
fn links_and_strangers_in_the_staging_directory_are_not_taken_for_files() {
    let sprite = Sprite::new();
    let outside = crate::testing::TestDir::new("deploy");
    fs::write(outside.path().join("run"), "good").unwrap();
    let release = release(&[("lib/run", "good", 0o644)]);
    let staging = sprite.path(&format!("staging-{}", release.sha256()));
    fs::create_dir_all(&staging).unwrap();
    fs::write(staging.join("stranger"), "").unwrap();
    fs::write(staging.join(".complete"), "").unwrap();
    std::os::unix::fs::symlink(outside.path(), staging.join("lib")).unwrap();
    let problem = service(sprite.deploy(&release));
    assert_matches!(problem, SpritesProblem::Damaged);
    sprite.deploy(&release).unwrap();
    sprite.assert_deployed(
        &release,
        &[("manifest.json", "{}", 0o644), ("lib/run", "good", 0o644)],
    );
    assert_eq!(fs::read(outside.path().join("run")).unwrap(), b"good");
}

#[test]
fn a_marker_that_does_not_match_is_not_trusted() {
    let sprite = Sprite::new();
    let release = of_many(3);
    sprite.deploy(&release).unwrap();
    let marker = sprite.of(&release, ".complete");
    let good = fs::read(&marker).unwrap();
    let spoil: [&dyn Fn(); 4] = [
        &|| fs::write(&marker, &good[1..]).unwrap(),
        &|| fs::write(&marker, "").unwrap(),
        &|| fs::remove_file(&marker).unwrap(),
        &|| {
            fs::remove_file(&marker).unwrap();
            fs::create_dir(&marker).unwrap();
        },
    ];
    for spoil in spoil {
        spoil();
        // Also that it is the release itself that is replaced loses nothing of the plugin's own.
        fs::write(sprite.of(&release, "own"), "kept").unwrap();
        fs::write(sprite.of(&release, "dir-1/file-1"), "changed").unwrap();
        sprite.fake.forget_calls();
        sprite.deploy(&release).unwrap();
        assert_eq!(sprite.uploads(), 4);
        assert_eq!(fs::read(&marker).unwrap(), good);
        assert_eq!(fs::read(sprite.of(&release, "own")).unwrap(), b"kept");
        assert_eq!(fs::read(sprite.of(&release, "dir-1/file-1")).unwrap(), b"1");
        assert_eq!(sprite.names("releases"), [release.sha256()]);
    }
}

#[test]
fn files_over_the_limit_are_refused_by_name_before_anything_is_asked() {
    let sprite = Sprite::new();
    let large = "x".repeat(super::super::fake::LARGEST + 1);
    let release = release(&[("assets/model.bin", &large, 0o644)]);
    let error = release.check().unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("assets/model.bin has 16777217 bytes"),
        "{text}"
    );
    assert!(text.contains("16777216"), "{text}");
    assert_eq!(
        crate::error::Error::from(error).kind(),
        ErrorKind::PackageTooLarge
    );
    let error = sprite.deploy(&release).unwrap_err();
    assert_matches!(
        error,
        DeployError::Package(PackageError::TooLargeForService { .. })
    );
    assert_eq!(sprite.fake.calls().0.len(), 0);
}

#[test]
fn the_services_own_limit_is_reported_and_is_no_passing_failure() {
    let sprite = Sprite::new();
    let answer = Answer::json(413, &json!({"error": "file too large"}));
    sprite
        .fake
        .set(|switches| switches.next(1, UPLOAD, Fault::Answer(answer)));
    let error = sprite.deploy(&of_many(1)).unwrap_err();
    assert!(!is_passing(&error));
    assert!(error.to_string().contains("413"), "{error}");
}

#[test]
fn passing_failures_of_an_upload_pass() {
    let sprite = Sprite::new();
    sprite.fake.set(|switches| {
        switches.next(1, UPLOAD, Fault::Drop);
        switches.next(1, UPLOAD, Fault::DoneDrop);
        switches.next(1, UPLOAD, Fault::Answer(Answer::json(503, &json!({}))));
    });
    sprite.deploy(&of_many(10)).unwrap();
    assert_eq!(sprite.uploads(), 11 + 3);
}

#[test]
fn at_most_four_files_are_uploaded_at_once_and_a_cancelled_attempt_ends_soon() {
    let sprite = Sprite::new();
    sprite
        .fake
        .set(|switches| switches.next(100, UPLOAD, Fault::Hang));
    let release = of_many(30);
    let interrupt = Interrupt::new().unwrap();
    std::thread::scope(|scope| {
        let (release, client) = (&release, &sprite.setup.client);
        let within = Within::new(LONG, &interrupt);
        let deploying = scope.spawn(move || make_ready(client, release, &[], within));
        wait_until("four uploads", || sprite.uploads() == 4);
        interrupt.cancel();
        let error = deploying.join().unwrap().unwrap_err();
        assert_matches!(StartError::from(error), StartError::Cancelled);
    });
    // Each of the four was still waiting for its answer.
    assert_eq!(sprite.uploads(), 4);
    sprite.fake.set(|switches| *switches = Switches::default());
    sprite.deploy(&release).unwrap();
}

#[test]
fn a_deployment_ends_at_its_deadline_whatever_it_is_doing() {
    let sprite = Sprite::new();
    let release = of_many(3);
    let short = || {
        let within = sprite.setup.within(super::super::SHORT);
        make_ready(&sprite.setup.client, &release, &[], within)
    };
    for pattern in ["GET */fs/read", "GET */fs/list", UPLOAD, "GET */exec"] {
        sprite
            .fake
            .set(|switches| switches.next(100, pattern, Fault::Hang));
        assert_matches!(
            service(short()),
            SpritesProblem::Timeout { .. },
            "{pattern}"
        );
        sprite.fake.set(|switches| *switches = Switches::default());
    }
    sprite.fake.set(|switches| switches.silence = true);
    assert_matches!(service(short()), SpritesProblem::Timeout { .. });
    sprite.fake.set(|switches| switches.silence = false);
}

#[test]
fn a_script_that_says_nothing_is_cancelled() {
    let sprite = Sprite::new();
    sprite.fake.set(|switches| switches.silence = true);
    let release = of_many(3);
    let interrupt = Interrupt::new().unwrap();
    std::thread::scope(|scope| {
        let (release, client) = (&release, &sprite.setup.client);
        let within = Within::new(LONG, &interrupt);
        let deploying = scope.spawn(move || make_ready(client, release, &[], within));
        wait_until("a script", || sprite.fake.attached(SPRITE) == 1);
        interrupt.cancel();
        let error = deploying.join().unwrap().unwrap_err();
        assert_matches!(StartError::from(error), StartError::Cancelled);
    });
}

#[test]
fn a_script_that_is_cut_off_is_a_passing_failure_and_uploads_nothing_again() {
    for fault in [
        SocketFault::CutAfterSent(0),
        SocketFault::CutAfterReceived(1),
        SocketFault::CutAfterReceived(2),
        SocketFault::CloseAfterSent(1, 1001),
    ] {
        let sprite = Sprite::new();
        let release = of_many(5);
        let cut = fault.clone();
        sprite.fake.set(|switches| switches.sockets.push_back(cut));
        let error = sprite.deploy(&release).unwrap_err();
        assert!(is_passing(&error), "{fault:?}: {error}");
        // As a start does it before it deploys.
        for session in sprite.fake.sessions(SPRITE) {
            let (client, within) = (&sprite.setup.client, sprite.setup.long());
            let id = session.to_string();
            client
                .kill(SPRITE, &id, "KILL", Duration::from_secs(1), within)
                .unwrap();
        }
        sprite.fake.forget_calls();
        sprite.deploy(&release).unwrap();
        assert_eq!(sprite.uploads(), 0, "{fault:?}");
        assert_eq!(tree(&sprite.of(&release, "")).len(), 6 + 5 + 1);
    }
}

#[test]
fn what_the_script_says_when_it_fails_is_in_the_error() {
    let sprite = Sprite::new();
    let release = of_many(1);
    fs::create_dir_all(sprite.path("")).unwrap();
    // As with a link on this machine, but a file is nobody's to remove.
    fs::write(sprite.path("data"), "").unwrap();
    let error = sprite.deploy(&release).unwrap_err();
    assert!(!is_passing(&error));
    let text = error.to_string();
    assert!(text.contains("exit code 1: "), "{text}");
    assert!(text.contains("File exists"), "{text}");
    let error = StartError::from(error);
    assert!(!error.is_permanent());
    assert!(error.to_string().contains("File exists"), "{error}");
    fs::remove_file(sprite.path("data")).unwrap();
    sprite.deploy(&release).unwrap();
}

#[test]
fn without_a_thread_nothing_is_uploaded_and_the_error_says_so() {
    let sprite = Sprite::new();
    let release = of_many(8);
    let problem = service(sprite.deploy_with(0, &release));
    assert_matches!(problem, SpritesProblem::Thread(_));
    assert_eq!(sprite.uploads(), 0);
    sprite.deploy_with(1, &release).unwrap();
}

#[test]
fn a_script_has_its_input_and_what_it_prints_is_bounded() {
    let sprite = Sprite::new();
    let input = vec![b'x'; 3_000_000];
    let script = "shift\nwc -c\nprintf %s \"$@\"\nseq 1 50000\nseq 1 50000 >&2; exit 7\n";
    let arguments = ["one ", "$(two)"];
    let (client, within) = (&sprite.setup.client, sprite.setup.long());
    let end = script::run(client, SPRITE, script, &arguments, &input, within).unwrap();
    assert_eq!(end.code, 7);
    assert!(end.stdout.starts_with(b"3000000\none $(two)1\n2\n"));
    assert_eq!(end.stdout.len(), 64 * 1024);
    assert!(end.stderr.ends_with(b"49999\n50000\n"));
    assert_eq!(end.stderr.len(), 2 * 1024);
}

/// At one command in 5 with `PLUGIN_RUNNER_LONG=1`, else at one in 37.
#[test]
fn a_script_that_is_killed_anywhere_leaves_nothing_half_done_and_is_gone_on_from() {
    let step = match std::env::var_os("PLUGIN_RUNNER_LONG") {
        Some(_) => 5,
        None => 37,
    };
    let one = release(&[("lib/code", "one", 0o644)]);
    let two = release(&[("lib/code", "two", 0o644), ("empty/", "", 0)]);
    let mut killed = [0, 0];
    for (at, replaced) in (1_usize..)
        .step_by(step)
        .flat_map(|at| [(at, false), (at, true)])
    {
        let sprite = Sprite::new();
        sprite.deploy(&one).unwrap();
        fs::create_dir(sprite.of(&one, "lib/own")).unwrap();
        fs::write(sprite.of(&one, "lib/own/file"), "kept").unwrap();
        fs::write(sprite.path("data/state"), "kept").unwrap();
        // An update, or a release in its own place.
        let next = if replaced { &one } else { &two };
        if replaced {
            fs::write(sprite.of(&one, ".complete"), "").unwrap();
        }
        let script = format!(
            "set -T; n=0; trap '((++n == {at})) && kill -KILL $$' DEBUG\n{}",
            crate::runtime::sprites::deploy::SCRIPT
        );
        let (client, within) = (&sprite.setup.client, sprite.setup.long());
        let is_whole = || {
            fs::read(sprite.of(next, ".complete")).is_ok_and(|text| text == next.outline().listing)
        };
        let assert_whole = |when: &str| {
            let read = |path: &str| fs::read(sprite.of(next, path)).unwrap();
            assert_eq!(read("lib/own/file"), b"kept", "{when} at {at}");
            let code = if replaced { b"one" } else { b"two" };
            assert_eq!(read("lib/code"), code, "{when} at {at}");
            assert!(
                replaced || sprite.of(next, "empty").is_dir(),
                "{when} at {at}"
            );
            let state = fs::read(sprite.path("data/state")).unwrap();
            assert_eq!(state, b"kept", "{when} at {at}");
        };
        match deploy_by(&script, client, SPRITE, next, &LIMITS, &[], within) {
            Ok(()) => {
                assert!(killed.iter().all(|&count| count > 0), "never killed");
                break;
            }
            Err(error) => assert!(error.to_string().contains("exit code 137"), "{error}"),
        }
        killed[usize::from(replaced)] += 1;
        if is_whole() {
            assert_whole("left");
        }
        sprite.deploy(next).unwrap();
        assert_whole("deployed again");
        if !replaced {
            let old = fs::read(sprite.of(&one, "lib/own/file")).unwrap();
            assert_eq!(old, b"kept", "the old release at {at}");
        }
    }
}
