//! `validate`: what is said of plugins that have something wrong, and of those that have not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::program::{ANSWERING, Scratch, manifest, text};

/// What is printed by a run that ends with this exit code.
#[track_caller]
fn validate(scratch: &Scratch, path: &str, code: i32) -> String {
    let output = scratch.output(&format!("validate {path}"));
    scratch.assert_nothing_left();
    let said = text(&output.stderr);
    if code == 0 {
        assert_eq!(said, "");
    } else {
        let begins = format!("plugin-runner: {path} has ");
        assert!(said.starts_with(&begins), "{said}");
    }
    let printed = text(&output.stdout).to_owned();
    assert_eq!(output.status.code(), Some(code), "{path}: {printed}");
    printed
}

#[test]
fn good_plugins_are_told_what_they_are() {
    let scratch = Scratch::new();
    scratch.plugin("fine", &manifest("fine"), "#!/bin/sh\n");
    let is_fine = "plugin fine, version \"1.0.0\", over stdio";
    let said = validate(&scratch, "fine", 0);
    assert_eq!(said, format!("ok: fine is {is_fine}\n"));
    scratch.zipped("fine.zip", &manifest("fine"), "12345");
    let size = manifest("fine").to_string().len() + 5;
    let said = validate(&scratch, "fine.zip", 0);
    let files = format!("2 files of {size} bytes");
    assert_eq!(said, format!("ok: fine.zip is {is_fine}, {files}\n"));
}

#[test]
fn every_problem_is_told() {
    let scratch = Scratch::new();
    let bad = json!({"id": "a b", "author": "", "name": 3, "events_consumed": [""]});
    scratch.write("bad/manifest.json", bad.to_string());
    let said = validate(&scratch, "bad", 1);
    for field in ["`id`", "`author`", "`name`", "`events_consumed[0]`"] {
        let lines = said.lines().filter(|line| line.contains(field));
        assert_eq!(lines.count(), 1, "{field}: {said}");
    }
    assert!(
        said.lines().all(|line| line.starts_with("problem: ")),
        "{said}"
    );

    // The same for what is wrong with an archive.
    scratch.zip(
        "bad.zip",
        &[
            ("manifest.json", "{}", 0o644),
            ("../up", "", 0o644),
            ("a\\b", "", 0o644),
        ],
    );
    let said = validate(&scratch, "bad.zip", 1);
    for part in ["goes to a parent directory", "has a backslash"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_manifest_in_yaml_is_the_same_as_in_json() {
    let scratch = Scratch::new();
    let yaml = "# Says hello.\nid: fine\nauthor: me\nname: Fine\nversion: 1.0.0\ndescription: |\n  A\n  B\n\
                command: ./main\ntransport: stdio\n";
    scratch.plugin("fine", &manifest("fine"), ANSWERING);
    fs::remove_file(scratch.path("fine/manifest.json")).unwrap();
    scratch.write("fine/manifest.yaml", yaml);
    let said = validate(&scratch, "fine", 0);
    assert_eq!(
        said,
        "ok: fine is plugin fine, version \"1.0.0\", over stdio\n"
    );

    // Warnings are of that file too.
    scratch.write("fine/manifest.yaml", format!("{yaml}evnets_consumed: []\n"));
    let said = validate(&scratch, "fine", 0);
    let warning = "warning: manifest.yaml: there is no field `evnets_consumed`";
    assert!(said.starts_with(warning), "{said}");

    // Every problem is told, with its line where there is one.
    let bad = "id: a b\nversion: 1.10\nname: yes\nevents_consumed:\n  - x\n  - 3\n";
    scratch.write("bad/manifest.yaml", bad);
    let said = validate(&scratch, "bad", 1);
    for line in [
        "problem: manifest.yaml: line 1: field `id` must ",
        "problem: manifest.yaml: line 2: field `version` must be a string, found a number; put it in quotes\n",
        "problem: manifest.yaml: line 6: field `events_consumed[1]` must be a string, found a number; put it in quotes\n",
        "problem: manifest.yaml: field `author` is missing or empty\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }

    let long = format!("id: {}\n", "x".repeat(64 * 1024));
    scratch.write("long/manifest.yaml", long);
    let said = validate(&scratch, "long", 1);
    let limit = "problem: manifest.yaml: a manifest has at most 65536 bytes\n";
    assert_eq!(said, limit);
    scratch.write("latin/manifest.yaml", b"id: caf\xe9\n");
    let said = validate(&scratch, "latin", 1);
    assert!(
        said.starts_with("problem: manifest.yaml: cannot read it as UTF-8: "),
        "{said}"
    );
}

#[test]
fn the_command_must_be_there() {
    let scratch = Scratch::new();
    let folder = scratch.plugin("folder", &manifest("folder"), "#!/bin/sh\n");
    fs::set_permissions(folder.join("main"), fs::Permissions::from_mode(0o644)).unwrap();
    let said = validate(&scratch, "folder", 1);
    assert_eq!(
        said,
        "problem: the command \"./main\" is not executable; chmod +x makes it so\n"
    );
    fs::remove_file(folder.join("main")).unwrap();
    let said = validate(&scratch, "folder", 1);
    assert!(said.contains("\"./main\" cannot be found"), "{said}");

    let json = manifest("zipped").to_string();
    scratch.zip(
        "without.zip",
        &[("manifest.json", &json, 0o644), ("other", "", 0o644)],
    );
    let said = validate(&scratch, "without.zip", 1);
    assert_eq!(
        said,
        "problem: the command \"./main\" is not in the archive\n"
    );
    scratch.zip(
        "nested.zip",
        &[("sub/manifest.json", &json, 0o644), ("sub/main", "", 0o755)],
    );
    let said = validate(&scratch, "nested.zip", 1);
    assert!(said.contains("so write \"./sub/main\""), "{said}");

    let mut empty = manifest("empty");
    empty["command"] = "".into();
    scratch.plugin("empty", &empty, "");
    let said = validate(&scratch, "empty", 1);
    assert!(said.contains("`command` is missing or empty"), "{said}");
}

#[test]
fn what_may_be_meant_otherwise_is_a_warning() {
    let scratch = Scratch::new();
    let mut odd = manifest("odd");
    odd["events_consumed"] = json!(["EventThreadPublished", "EventThreadPublishd"]);
    let json = odd.to_string();
    scratch.zip(
        "odd.zip",
        &[("manifest.json", &json, 0o644), ("main", "", 0o644)],
    );
    let said = validate(&scratch, "odd.zip", 0);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].starts_with("warning: ") && lines[0].contains("\"EventThreadPublishd\""));
    assert!(lines[1].starts_with("warning: ") && lines[1].contains("made so when unpacked"));
    assert!(lines[2].starts_with("ok: "));

    odd["command"] = "no-such-program-anywhere".into();
    scratch.plugin("bare", &odd, "");
    let said = validate(&scratch, "bare", 0);
    assert!(said.contains("is not on this machine's PATH"), "{said}");
}

#[test]
fn damage_inside_an_archive_is_found() {
    let scratch = Scratch::new();
    let path = scratch.zipped("damaged.zip", &manifest("zipped"), "a unique content");
    let mut bytes = fs::read(&path).unwrap();
    let content = b"a unique content";
    let at = bytes
        .windows(content.len())
        .position(|window| window == content)
        .unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let said = validate(&scratch, "damaged.zip", 1);
    assert!(
        said.contains("\"main\" cannot be unpacked: Invalid checksum"),
        "{said}"
    );
}

#[test]
fn what_authors_mistake_is_told_with_the_way_out() {
    let scratch = Scratch::new();
    for (number, (change, program, told)) in [
        (
            json!({"command": "python3 main.py"}),
            "",
            "problem: the command \"python3 main.py\" is a whole command line; put the program in \
             `command`, \"python3\", and the rest in `args`: \"main.py\"\n",
        ),
        (
            json!({}),
            "#!/bin/sh\r\nexit\r\n",
            "problem: the command \"./main\" is a script whose first line ends with a carriage \
             return, as on Windows; save it with line feeds alone (dos2unix does that)\n",
        ),
        (
            json!({"eventsConsumed": []}),
            "",
            "warning: manifest.json: there is no field `eventsConsumed`; did you mean \
             `events_consumed`?\n",
        ),
        (
            json!({"args": ["src/mian.py"]}),
            "",
            "warning: the argument \"src/mian.py\" looks like a file of the plugin, which is not \
             there; paths begin at the directory that the plugin runs in\n",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut json = manifest("mistaken");
        let members = json.as_object_mut().unwrap();
        members.extend(change.as_object().unwrap().clone());
        let directory = format!("{number}");
        scratch.plugin(&directory, &json, program);
        let archive = format!("{number}.zip");
        scratch.zipped(&archive, &json, program);
        let expected = i32::from(told.starts_with("problem: "));
        for path in [directory, archive] {
            let said = validate(&scratch, &path, expected);
            assert!(said.starts_with(told), "{path}: {said}");
        }
    }
    let json = manifest("below").to_string();
    let files = [
        ("top/manifest.json", &*json, 0o644),
        ("top/main", "", 0o755),
    ];
    scratch.zip("below.zip", &files);
    let said = validate(&scratch, "below.zip", 1);
    assert_eq!(
        said,
        "problem: everything in the archive is in the directory \"top\", but paths begin at the \
         archive's root; zip from inside the directory: cd \"top\" && zip -r ../plugin.zip .; or \
         keep the directory, and so write \"./top/main\"\n"
    );
}

#[test]
fn a_run_tells_what_may_not_be_meant_and_runs() {
    let scratch = Scratch::new();
    let mut json = manifest("doubtful");
    json["evnets_consumed"] = json!([]);
    scratch.plugin("doubtful", &json, "#!/bin/sh\nexit 3\n");
    let output = scratch.output("run doubtful --max-restart-attempts 0");
    let said = text(&output.stderr);
    let told = "plugin doubtful: manifest.json: there is no field `evnets_consumed`; did you mean \
                `events_consumed`?";
    assert_eq!(said.matches(told).count(), 1, "{said}");
    assert!(said.contains("has errored"), "{said}");
}

#[test]
fn several_paths_are_each_told() {
    let scratch = Scratch::new();
    scratch.plugin("fine", &manifest("fine"), "#!/bin/sh\n");
    scratch.zipped("fine.zip", &manifest("fine"), "12345");
    scratch.write("bad/manifest.json", "{\"id\": \"bad\"}");
    for command in ["validate", "dev validate"] {
        let output = scratch.output(&format!("{command} bad nowhere fine"));
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stdout);
        assert!(said.contains("problem: bad: "), "{said}");
        assert!(said.contains("ok: fine is plugin fine"), "{said}");
        let said = text(&output.stderr);
        assert!(said.contains("plugin-runner: bad has "), "{said}");
        assert!(
            said.contains("plugin-runner: nowhere: cannot open it"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 2, "{said}");
    }
    let output = scratch.output("validate fine fine.zip");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout).lines().count(), 2);

    let output = scratch.output("validate --json fine.zip bad nowhere");
    assert_eq!(output.status.code(), Some(1));
    let lines = text(&output.stdout).lines();
    let objects: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [good, bad, nowhere] = &objects[..] else {
        panic!("{objects:?}");
    };
    assert_eq!(good["path"], "fine.zip");
    assert_eq!(good["valid"], true);
    assert_eq!(good["problems"], json!([]));
    assert_eq!(good["id"], "fine");
    assert_eq!(good["files"], 2);
    assert_eq!(bad["valid"], false);
    assert!(!bad["problems"].as_array().unwrap().is_empty(), "{bad}");
    assert_eq!(nowhere["path"], "nowhere");
    assert_eq!(nowhere["valid"], false);
    scratch.assert_nothing_left();
}
