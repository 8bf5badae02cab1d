//! The token of the HTTP API.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::{FREE, Server, command};
use crate::program::{Program, Scratch, make_pipe, text};

const TOKEN: &str = "0123456789abcdef-of-the-tests";

fn allows(server: &Server, token: &str) -> bool {
    let bearer = format!("Bearer {token}");
    match server.get("/api/plugins", &[("Authorization", &bearer)]).0 {
        200 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

/// What the server says before it ends.
fn refused(scratch: &Scratch, arguments: &str) -> String {
    let arguments = format!("--data data {FREE} {arguments}");
    let output = Program::start(command(scratch, &arguments)).end();
    // With which a service manager does not start it again.
    assert_eq!(output.status.code(), Some(2));
    text(&output.stderr).to_owned()
}

#[test]
fn a_token_is_generated_once() {
    let scratch = Scratch::new();
    let first = Server::start(&scratch, "");
    assert!(allows(&first, first.token.trim()));
    assert!(!allows(&first, TOKEN));
    assert_eq!(first.token.trim().len(), 64);
    let token = first.token.clone();
    first.program.stop();
    let second = Server::start(&scratch, "");
    assert_eq!(second.token, token);
    second.program.stop();
    // Without the file there is a new one.
    fs::remove_file(scratch.path("data/admin-token")).unwrap();
    let third = Server::start(&scratch, "");
    assert_ne!(third.token, token);
    third.program.stop();
}

#[test]
fn a_token_can_be_given_by_file_or_variable() {
    let scratch = Scratch::new();
    let path = scratch.write("token", format!("{TOKEN}\n"));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    symlink(&path, scratch.path("link")).unwrap();
    let server = Server::start(&scratch, "--admin-token-file link");
    assert!(allows(&server, TOKEN));
    let said = server.program.stop();
    assert!(!said.contains(TOKEN) && !said.contains("chmod"), "{said}");

    let mut command = command(&scratch, &format!("--data data {FREE}"));
    command.env("PLUGIN_RUNNER_ADMIN_TOKEN", TOKEN);
    let server = Server::of(&scratch, command);
    assert!(allows(&server, TOKEN));
    let said = server.program.stop();
    assert!(!said.contains(TOKEN), "{said}");
    assert!(!scratch.path("data/admin-token").exists());
}

#[test]
fn a_token_that_others_can_read_is_warned_about_and_one_that_they_can_write_refused() {
    let scratch = Scratch::new();
    let path = scratch.write("token", TOKEN);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let server = Server::start(&scratch, "--admin-token-file token");
    let said = server.program.stop();
    assert!(
        said.contains("other users can read the token in token; `chmod 600` it"),
        "{said}"
    );
    fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
    let said = refused(&scratch, "--admin-token-file token");
    assert!(
        said.contains("--admin-token-file: other users can write to token"),
        "{said}"
    );
}

#[test]
fn what_is_no_token_is_refused() {
    let scratch = Scratch::new();
    for (content, part) in [
        (
            "0123456789abcde",
            "a token has 16 to 256 characters, and this one 15",
        ),
        ("0123456789 abcdef", "visible ASCII characters"),
        (&"x".repeat(300), "longer than 257 bytes"),
        ("", "and this one 0"),
    ] {
        let path = scratch.write("token", content);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let said = refused(&scratch, "--admin-token-file token");
        assert!(said.contains(part), "{said}");
        assert!(content.is_empty() || !said.contains(content), "{said}");
    }
    let said = refused(&scratch, "--admin-token-file nowhere");
    assert!(
        said.contains("--admin-token-file: cannot open nowhere"),
        "{said}"
    );
    fs::remove_file(scratch.path("token")).unwrap();
    make_pipe(&scratch.path("token"));
    let said = refused(&scratch, "--admin-token-file token");
    assert!(said.contains("not a regular file"), "{said}");
}

#[test]
fn what_is_in_the_place_of_the_generated_token_is_neither_followed_nor_used() {
    let scratch = Scratch::new();
    let outside = scratch.write("outside", TOKEN);
    fs::create_dir(scratch.path("data")).unwrap();
    symlink(&outside, scratch.path("data/admin-token")).unwrap();
    let said = refused(&scratch, "");
    assert!(said.contains("cannot read the token in"), "{said}");
    fs::remove_file(scratch.path("data/admin-token")).unwrap();
    symlink("nowhere", scratch.path("data/admin-token")).unwrap();
    refused(&scratch, "");
    assert!(!scratch.path("data/nowhere").exists());
    fs::remove_file(scratch.path("data/admin-token")).unwrap();
    make_pipe(&scratch.path("data/admin-token"));
    let said = refused(&scratch, "");
    assert!(said.contains("not a regular file"), "{said}");
    fs::remove_file(scratch.path("data/admin-token")).unwrap();
    for content in ["short\n", ""] {
        let unusable = scratch.write("data/admin-token", content);
        fs::set_permissions(unusable, Permissions::from_mode(0o600)).unwrap();
        let said = refused(&scratch, "");
        assert!(
            said.contains("without the file a new token is generated"),
            "{said}"
        );
    }
}
