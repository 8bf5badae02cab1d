//! A disk that fills while the server runs: what is said, what goes on, and that all is well once there is room.

use crate::support::disk::run_on_a_disk;

#[test]
fn a_full_disk_is_told_and_got_over() {
    run_on_a_disk(8, &["serve::full::alone::the_disk_fills_and_empties"]);
}

/// Run by others, in processes of their own.
mod alone {
    use std::fs;

    use serde_json::{Value, json};

    use crate::program::Scratch;
    use crate::serve::{FREE, Server, command};
    use crate::support::disk;
    use crate::support::names;

    #[test]
    #[ignore = "mounts; run by another test, in a namespace of its own"]
    fn the_disk_fills_and_empties() {
        let disk = disk::mounted().unwrap();
        let data = disk.join("data");
        let scratch = Scratch::new();
        let arguments = format!("--data {} {FREE}", data.display());
        let server = Server::on(data.clone(), command(&scratch, &arguments));
        let id = server.obedient(&scratch);
        let before = names(&data.join("archives"));
        let content = "x".repeat(2 << 20);
        let files = [("manifest.json", "{}", 0o644), ("content", &content, 0o644)];
        let large = fs::read(scratch.zip("large.zip", &files)).unwrap();
        let mut events = server.follow(id, None);
        while !events.data().starts_with("pid ") {}

        let ballast = disk::fill(&disk, 0);
        let (status, answer) = server.answer("POST", "/api/plugins", "application/zip", &large);
        let problem: Value = serde_json::from_str(&answer).unwrap();
        assert!(status >= 500, "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("No space left on device"), "{problem}");
        assert_eq!(server.plugins().as_array().unwrap().len(), 1);
        // The plugin goes on, and loses lines.
        server.print(id, 0, 100, 1000);
        server.call(id, "ping", &json!({}));
        assert_eq!(server.get("/healthz", &[]), (200, "ok\n".to_owned()));

        disk::empty(ballast);
        server.print(id, 100, 101, 10);
        let mut told = false;
        loop {
            let line = events.data();
            told |= line.contains("lines are missing here");
            if line.starts_with("line 100 ") {
                break;
            }
        }
        assert!(told, "nothing was said about what is missing");
        assert_eq!(names(&data.join("incoming")), [""; 0]);
        assert_eq!(names(&data.join("archives")), before);
        server.obedient(&scratch);
        assert_eq!(server.get("/readyz", &[]), (200, "ready\n".to_owned()));
        drop(events);

        server.program.stop();
    }
}
