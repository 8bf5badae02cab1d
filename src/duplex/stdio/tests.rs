//! The stdio transport over real pipes; the test holds the child's ends.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::thread;
use std::time::Duration;

use super::*;
use crate::deadline::Deadline;
use crate::duplex::{Halves, Message, ReadingHalf, Received, SendError, WaitPolicy, WritingHalf};
use crate::error::Disconnect;
use crate::line_splitter::CONTINUES;
use crate::protocol::jsonrpc::Incoming;
use crate::testing::{LONG, assert_matches};

fn long() -> Deadline {
    Deadline::after(LONG)
}

fn settings() -> DuplexSettings {
    DuplexSettings::new("test")
}

/// Our halves, the lines that went to the output hook, and the child's stdin and stdout.
struct Setup {
    halves: Halves,
    output: crossbeam_channel::Receiver<Vec<u8>>,
    stdin: PipeReader,
    stdout: PipeWriter,
}

fn setup(settings: &DuplexSettings) -> Setup {
    let (reader, stdout) = io::pipe().unwrap();
    let (stdin, writer) = io::pipe().unwrap();
    let (lines, output) = crossbeam_channel::unbounded();
    let stdio = Stdio::new(reader, writer).on_output(move |line| {
        let _ = lines.send(line.to_vec());
    });
    Setup {
        halves: Halves::of(stdio, settings).unwrap(),
        output,
        stdin,
        stdout,
    }
}

fn text(reader: &mut ReadingHalf) -> String {
    match reader.receive() {
        Ok(Received::Line(message)) => message.to_string(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn printed(reader: &mut ReadingHalf, line: &[u8]) {
    match reader.receive() {
        Ok(Received::Output { beginning }) => assert_eq!(&*beginning, line),
        other => panic!("{other:?}"),
    }
}

fn wait_for_threads(settings: &DuplexSettings) {
    assert_eq!(settings.threads.join_all(long()), 0);
}

#[test]
fn lines_are_sorted_into_messages_and_output() {
    let mut setup = setup(&settings());
    let reader = &mut setup.halves.reader;
    setup
        .stdout
        .write_all(
            b"{\"a\":1}\nstarting up\n\n   \n \t{\"b\":2}\r\n[1]\n{\"\xff\"}\n{not json}\n{\"half\":",
        )
        .unwrap();
    assert_eq!(text(reader), "{\"a\":1}");
    printed(reader, b"starting up");
    assert_eq!(text(reader), " \t{\"b\":2}\r");
    printed(reader, b"[1]");
    printed(reader, b"{\"\xff\"}");
    let message = Message::from(&*text(reader));
    assert!(reader.not_a_message(&message));
    for line in [&b"starting up"[..], b"[1]", b"{\"\xff\"}", b"{not json}"] {
        assert_eq!(setup.output.try_recv().unwrap(), line);
    }
    setup.stdout.write_all(b"true}\nlast words").unwrap();
    assert_eq!(text(reader), "{\"half\":true}");
    drop(setup.stdout);
    assert_matches!(reader.receive(), Err(Disconnect::Lost));
    assert_eq!(setup.output.try_recv().unwrap(), b"last words");
    assert_matches!(reader.receive(), Err(Disconnect::Lost));
    assert!(setup.output.is_empty());
}

#[test]
fn the_line_limit_is_exact() {
    let mut settings = settings();
    settings.inbound_message = 20_000;
    for over in [0, 1] {
        let mut setup = setup(&settings);
        let line = format!(" {{ \"id\"{}", "x".repeat(19_993 + over));
        let writing = thread::spawn(move || {
            // The reader may hang up half-way.
            let _ = setup.stdout.write_all(line.as_bytes());
            let _ = setup.stdout.write_all(b"\n");
        });
        if over == 0 {
            assert_eq!(text(&mut setup.halves.reader).len(), 20_000);
        } else {
            let cause = setup.halves.reader.receive().unwrap_err();
            assert_matches!(cause, Disconnect::TooLarge { limit: 20_000 });
            let cause = setup.halves.writer.send("{}", long()).unwrap_err();
            assert!(cause.to_string().contains("over the limit"), "{cause}");
        }
        writing.join().unwrap();
    }
}

#[test]
fn what_ends_without_a_line_end_is_output_and_a_message_is_named() {
    for (tail, is_message) in [
        (r#"{"jsonrpc":"2.0","id":"x","result":{}}"#, true),
        (r#"{"id":"x","result":{}}"#, true),
        (r#"{"level":"info"}"#, false),
        (r#"{"jsonrpc":"2.0","#, false),
        ("last words", false),
    ] {
        let mut setup = setup(&settings());
        setup.stdout.write_all(tail.as_bytes()).unwrap();
        drop(setup.stdout);
        let cause = setup.halves.reader.receive().unwrap_err();
        assert_eq!(
            matches!(cause, Disconnect::NoLineEnd),
            is_message,
            "{cause}"
        );
        assert_eq!(setup.output.try_recv().unwrap(), tail.as_bytes());
    }
}

#[test]
fn a_byte_order_mark_before_a_message_is_skipped() {
    let mut setup = setup(&settings());
    let line = "\u{feff} {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"}";
    writeln!(setup.stdout, "{line}").unwrap();
    let line = text(&mut setup.halves.reader);
    assert!(Incoming::parse_line(&line).is_ok(), "{line}");
}

/// The output of one line, which comes in pieces, put together again.
fn pieces(output: &crossbeam_channel::Receiver<Vec<u8>>) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let piece = output.try_recv().unwrap();
        assert!(piece.len() <= 64 * 1024);
        let Some(more) = piece.strip_suffix(CONTINUES.as_bytes()) else {
            whole.extend(piece);
            return whole;
        };
        whole.extend(more);
    }
}

#[test]
fn output_over_the_limit_comes_in_pieces_and_messages_go_on() {
    let mut settings = settings();
    settings.inbound_message = 100_000;
    for begins in [
        "x",
        "{\"level\":\"info\",\"text\":\"",
        "[{\"id\":",
        "{{{",
        "{\"idx\":",
    ] {
        let mut setup = setup(&settings);
        let line = format!("{begins}{}", "x".repeat(1_000_000));
        let all = format!("{line}\n{{\"id\":1}}\n{line}");
        let mut stdout = setup.stdout;
        let writing = thread::spawn(move || stdout.write_all(all.as_bytes()).unwrap());
        let reader = &mut setup.halves.reader;
        assert_eq!(text(reader), "{\"id\":1}");
        assert!(pieces(&setup.output) == line.as_bytes(), "{begins}");
        assert_matches!(reader.receive(), Err(Disconnect::Lost));
        assert!(
            pieces(&setup.output) == line.as_bytes(),
            "{begins}, at the end"
        );
        writing.join().unwrap();
    }
}

#[test]
fn a_message_without_end_is_not_kept_for_ever() {
    let mut settings = settings();
    settings.inbound_message = 100_000;
    let mut setup = setup(&settings);
    let writing = thread::spawn(move || {
        let _ = setup.stdout.write_all(b"{\"result\":\"");
        while setup.stdout.write_all(&[b'x'; 1000]).is_ok() {}
    });
    let cause = setup.halves.reader.receive().unwrap_err();
    assert_matches!(cause, Disconnect::TooLarge { .. });
    drop(setup.halves);
    writing.join().unwrap();
}

#[test]
fn messages_are_lines_even_with_line_breaks_inside() {
    let setup = setup(&settings());
    let writer = setup.halves.writer;
    writer.send("{\"a\":1}", long()).unwrap();
    writer.send("{\r\n\"b\":2\n}", long()).unwrap();
    writer.post("{\"posted\":true}").unwrap();
    let mut lines = BufReader::new(setup.stdin).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "{\"a\":1}");
    assert_eq!(lines.next().unwrap().unwrap(), "{  \"b\":2 }");
    assert_eq!(lines.next().unwrap().unwrap(), "{\"posted\":true}");
}

#[test]
fn many_writers_never_mix() {
    let settings = settings();
    let setup = setup(&settings);
    let writers: Vec<_> = (0..4)
        .map(|number| {
            let writer = setup.halves.writer.clone();
            thread::spawn(move || {
                for message in 0..500 {
                    let filler = "f".repeat(message * 20);
                    let text = format!("{{{number} {message} {filler}}}");
                    writer.send(&text, long()).unwrap();
                }
            })
        })
        .collect();
    let mut next = [0; 4];
    for line in BufReader::new(setup.stdin).lines().take(2000) {
        let line = line.unwrap();
        let inner = line.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
        let mut parts = inner.split(' ');
        let writer: usize = parts.next().unwrap().parse().unwrap();
        let message: usize = parts.next().unwrap().parse().unwrap();
        assert_eq!(message, next[writer]);
        assert_eq!(parts.next().unwrap().len(), message * 20);
        next[writer] += 1;
    }
    assert_eq!(next, [500; 4]);
    for writer in writers {
        writer.join().unwrap();
    }
    drop(setup.halves.reader);
    wait_for_threads(&settings);
}

/// Sends what the pipe cannot take whole, until its time is over.
#[track_caller]
fn begin(writer: &WritingHalf, large: &str) {
    let late = loop {
        match writer.send(large, Deadline::after(Duration::from_millis(50))) {
            // So busy a machine that the time was over before it was begun.
            Err(SendError::Timeout { withdrawn: true }) => {}
            other => break other,
        }
    };
    assert_matches!(late, Err(SendError::Timeout { withdrawn: false }));
}

#[test]
fn a_callers_deadline_harms_nobody() {
    let settings = settings();
    let mut setup = setup(&settings);
    let large = "l".repeat(500_000);
    begin(&setup.halves.writer, &large);
    let withdrawn = setup.halves.writer.send("withdrawn", long()).unwrap();
    setup.halves.writer.send("last", long()).unwrap();
    assert!(setup.halves.writer.withdraw(withdrawn));
    let reading = thread::spawn(move || {
        let mut all = String::new();
        setup.stdin.read_to_string(&mut all).unwrap();
        all
    });
    // Waits for what is begun, drops what is not: so let it all be begun first.
    while settings.threads.count() > 0 {
        thread::yield_now();
    }
    setup.halves.writer.close(1000, "closed", long());
    assert!(reading.join().unwrap() == format!("{large}\nlast\n"));
}

#[test]
fn a_close_ends_the_plugins_stdin_and_wakes_the_reader() {
    let settings = settings();
    let mut setup = setup(&settings);
    let mut reader = setup.halves.reader;
    let reading = thread::spawn(move || (reader.receive().unwrap_err(), reader));
    setup.halves.writer.send("{}", long()).unwrap();
    setup.halves.writer.close(1000, "closed", long());
    let (cause, mut reader) = reading.join().unwrap();
    assert_eq!(cause.to_string(), "closed by the host: closed");
    assert!(reader.receive().is_err());
    let mut all = String::new();
    setup.stdin.read_to_string(&mut all).unwrap();
    assert_eq!(all, "{}\n");
    wait_for_threads(&settings);
}

#[test]
fn a_close_ends_in_time_with_a_plugin_that_never_reads() {
    let settings = settings();
    let setup = setup(&settings);
    let large = "l".repeat(500_000);
    let short = || Deadline::after(Duration::from_millis(50));
    assert!(setup.halves.writer.send(&large, short()).is_err());
    setup.halves.writer.close(1000, "closed", short());
    let mut reader = setup.halves.reader;
    assert_matches!(reader.receive(), Err(Disconnect::ByHost { .. }));
    wait_for_threads(&settings);
    drop(setup.stdin);
}

#[test]
fn an_interrupt_wakes_the_reader_and_the_writers() {
    let settings = settings();
    let setup = setup(&settings);
    let mut reader = setup.halves.reader;
    let reading = thread::spawn(move || (reader.receive().unwrap_err(), reader));
    let writer = setup.halves.writer.clone();
    let writing = thread::spawn(move || {
        let text = "w".repeat(10_000);
        while writer.send(&text, long()).is_ok() {}
    });
    setup.halves.writer.interrupt();
    let (_, mut reader) = reading.join().unwrap();
    assert!(reader.receive().is_err());
    writing.join().unwrap();
    wait_for_threads(&settings);
}

#[test]
fn a_plugin_that_never_reads_is_given_up() {
    let mut settings = settings();
    settings.write_stall = Duration::from_millis(200);
    let mut setup = setup(&settings);
    let error = setup.halves.writer.send(&"l".repeat(500_000), long());
    assert_eq!(
        error.unwrap_err().to_string(),
        "not connected: the plugin read nothing for 200ms"
    );
    let cause = setup.halves.reader.receive().unwrap_err();
    assert_matches!(cause, Disconnect::Stalled { .. });
}

#[test]
fn what_the_plugin_said_before_it_died_is_not_lost() {
    let mut setup = setup(&settings());
    setup
        .stdout
        .write_all(b"{\"answer\":1}\ngoodbye\n")
        .unwrap();
    drop(setup.stdin);
    let error = setup.halves.writer.send("{}", long()).unwrap_err();
    assert_eq!(error.to_string(), "not connected: connection lost");
    assert_eq!(text(&mut setup.halves.reader), "{\"answer\":1}");
    printed(&mut setup.halves.reader, b"goodbye");
    assert_eq!(setup.output.recv().unwrap(), b"goodbye");
    // Its stdout is still open, but there is nobody to talk to.
    let cause = setup.halves.reader.receive().unwrap_err();
    assert_matches!(cause, Disconnect::Lost);
    drop(setup.stdout);
}

#[test]
fn posts_that_are_not_read_end_the_connection() {
    let settings = settings();
    let mut setup = setup(&settings);
    let large = "l".repeat(500_000);
    let short = Deadline::after(Duration::from_millis(50));
    assert!(setup.halves.writer.send(&large, short).is_err());
    while setup.halves.writer.post("{}").is_ok() {}
    assert_matches!(
        setup.halves.reader.receive(),
        Err(Disconnect::ControlOverflow)
    );
    wait_for_threads(&settings);
}

#[test]
fn a_shared_descriptor_is_written_in_pieces_and_stays_blocking() {
    let (reader, _stdout) = io::pipe().unwrap();
    let (mut stdin, writer) = io::pipe().unwrap();
    let shared = writer.try_clone().unwrap();
    let mut stdio = Stdio::new(reader, writer);
    stdio.shared_writer = true;
    let settings = settings();
    let halves = Halves::of(stdio, &settings).unwrap();
    let large = "l".repeat(300_000);
    begin(&halves.writer, &large);
    let flags = rustix::fs::fcntl_getfl(&shared).unwrap();
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    let mut all = vec![0; large.len() + 1];
    stdin.read_exact(&mut all).unwrap();
    assert!(all.ends_with(b"ll\n"));
}

/// A timed read that has so many milliseconds.
fn receive_within(halves: &mut Halves, milliseconds: u64) -> Option<Received> {
    let policy = WaitPolicy {
        spin_until: None,
        deadline: Deadline::after(Duration::from_millis(milliseconds)),
        is_coarse: false,
    };
    halves.reader.own().unwrap().receive_within(policy)
}

#[test]
fn a_timed_read_leaves_output_to_the_one_that_has_time() {
    let settings = settings();
    let Setup {
        mut halves,
        output,
        mut stdout,
        stdin: _stdin,
    } = setup(&settings);
    assert!(
        halves
            .reader
            .own()
            .unwrap()
            .set_timed(Some(Duration::from_millis(1)))
    );
    assert!(receive_within(&mut halves, 1).is_none());
    stdout.write_all(b"{\"half\":").unwrap();
    assert!(receive_within(&mut halves, 1).is_none());
    stdout.write_all(b"1}\nprinted\n{\"next\":1}\n").unwrap();
    let first = receive_within(&mut halves, 30_000);
    assert_matches!(first, Some(Received::Line(message)) if &*message == "{\"half\":1}");
    for _ in 0..2 {
        assert!(receive_within(&mut halves, 30_000).is_none());
        assert!(output.is_empty(), "the hook was run");
    }
    printed(&mut halves.reader, b"printed");
    assert_eq!(output.recv_timeout(LONG).unwrap(), b"printed");
    assert_eq!(text(&mut halves.reader), "{\"next\":1}");
    // Its last words, without a line end.
    stdout.write_all(b"fatal").unwrap();
    drop(stdout);
    assert!(receive_within(&mut halves, 30_000).is_none());
    assert!(output.is_empty(), "the hook was run");
    assert_matches!(halves.reader.receive(), Err(Disconnect::Lost));
    assert_eq!(output.recv_timeout(LONG).unwrap(), b"fatal");
}

#[test]
fn a_timed_read_ends_however_much_is_printed() {
    let settings = settings();
    let Setup {
        mut halves,
        stdin: _stdin,
        mut stdout,
        ..
    } = setup(&settings);
    let (done, is_done) = crossbeam_channel::bounded::<()>(0);
    let flooding = thread::spawn(move || {
        let lines = b"\n".repeat(4096);
        while is_done.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
            if stdout.write_all(&lines).is_err() {
                return;
            }
        }
    });
    assert!(receive_within(&mut halves, 20).is_none());
    drop(done);
    drop(halves);
    flooding.join().unwrap();
}
