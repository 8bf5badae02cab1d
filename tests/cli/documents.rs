//! `completions` and `man`: every command is in them, but none that is hidden.

use std::fs;
use std::process::Command;

use crate::program::{Scratch, text};
use crate::support::names;

/// The commands that the help of the program lists.
fn commands(scratch: &Scratch) -> Vec<String> {
    let help = scratch.output("--help");
    let lines = text(&help.stdout).lines();
    let lines = lines.skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    // Deeper ones are the rest of a text.
    let lines = lines.filter(|line| !line.starts_with("   "));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    let names: Vec<_> = names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 20, "{names:?}");
    names
}

#[test]
fn every_command_is_in_the_document_for_operators() {
    const OPERATE: &str = include_str!("../../src/OPERATE.md");
    const OF_AUTHORS: [&str; 4] = ["run", "validate", "dev", "serve"];
    let section = OPERATE.split_once("## From the command line\n").unwrap().1;
    let section = section.split("\n## ").next().unwrap();
    let table = section.lines().filter(|line| line.starts_with("| `"));
    let named: Vec<_> = table
        .flat_map(|line| {
            line.split('|')
                .nth(1)
                .unwrap()
                .split('`')
                .skip(1)
                .step_by(2)
        })
        .collect();
    let commands = commands(&Scratch::new());
    for command in &commands {
        let is_operators = !OF_AUTHORS.contains(&command.as_str());
        assert_eq!(named.contains(&command.as_str()), is_operators, "{command}");
    }
    for name in named {
        assert!(
            commands.iter().any(|command| command == name),
            "{name} is no command"
        );
    }
}

#[test]
fn completions_have_every_command() {
    let scratch = Scratch::new();
    let commands = commands(&scratch);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = scratch.output(&format!("completions {shell}"));
        assert_eq!(output.status.code(), Some(0));
        let script = text(&output.stdout);
        for command in commands.iter().map(String::as_str).chain(["no-activate"]) {
            assert!(script.contains(command), "{shell}: {command}");
        }
        for hidden in ["keeper", "sample-plugin"] {
            assert!(!script.contains(hidden), "{shell}: {hidden}");
        }
        if shell == "bash" {
            let path = scratch.write("completions", script);
            let status = Command::new("bash").arg("-n").arg(path).status().unwrap();
            assert!(status.success());
        }
    }
    assert_eq!(scratch.output("completions tcsh").status.code(), Some(2));
}

#[test]
fn every_command_has_a_manual_page() {
    let scratch = Scratch::new();
    let output = scratch.output("man --dir pages/man1");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let pages = names(&scratch.path("pages/man1"));
    let top = fs::read_to_string(scratch.path("pages/man1/plugin-runner.1")).unwrap();
    for command in commands(&scratch) {
        let page = format!("plugin-runner-{command}.1");
        assert!(pages.contains(&page), "{page}: {pages:?}");
        let name = command.replace('-', r"\-");
        assert!(
            top.contains(&format!("plugin\\-runner\\-{name}(1)")),
            "{name}: {top}"
        );
        // The same on standard output.
        let output = scratch.output(&format!("man {command}"));
        let written = fs::read_to_string(scratch.path("pages/man1").join(page)).unwrap();
        assert_eq!(text(&output.stdout), written);
    }
    assert!(
        pages.contains(&"plugin-runner-dev-package.1".to_owned()),
        "{pages:?}"
    );
    for hidden in ["keeper", "sample"] {
        let shown = pages.iter().any(|page| page.contains(hidden));
        assert!(!shown && !top.contains(hidden), "{hidden}: {pages:?}");
    }
    let output = scratch.output("man dev package");
    let page = text(&output.stdout);
    assert!(page.contains(r"plugin\-runner dev package"), "{page}");
    let output = scratch.output("man dev pack");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no command dev pack"));
    // The pages that were there are replaced; what is no directory is refused.
    assert_eq!(
        scratch.output("man --dir pages/man1").status.code(),
        Some(0)
    );
    scratch.write("file", "");
    assert_eq!(scratch.output("man --dir file").status.code(), Some(1));
}
