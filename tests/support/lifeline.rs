//! Lifelines: a fixture connects here when it starts, says its process id, and keeps the socket
//! until it dies. The end of the socket is the proof of its death, whoever its parent was.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;

use super::attack::Process;
use super::{LONG, wait_until};

/// Accepts lifelines.
#[derive(Debug)]
pub(crate) struct Lifelines {
    address: SocketAddr,
    arrived: Receiver<Lifeline>,
    all: Arc<Mutex<Vec<Lifeline>>>,
    most_at_once: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The life of one process.
#[derive(Debug)]
pub(crate) struct Lifeline {
    pub(crate) pid: u32,
    stream: TcpStream,
}

impl Lifelines {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, arrived) = unbounded();
        let (all, ending) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let most_at_once = Arc::new(AtomicUsize::new(0));
        let (registry, most, over) = (all.clone(), most_at_once.clone(), ending.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let Some(lifeline) = Lifeline::begin(stream.unwrap()) else {
                    continue;
                };
                let mut all = registry.lock();
                all.push(lifeline.another_handle());
                let alive = all.iter().filter(|lifeline| lifeline.is_alive()).count();
                most.fetch_max(alive, Ordering::SeqCst);
                drop(all);
                let _ = sender.send(lifeline);
            }
        });
        Self {
            address,
            arrived,
            all,
            most_at_once,
            ending,
            thread: Some(thread),
        }
    }

    /// The value of `FIXTURE_LIFELINE`.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// The next process that has come up.
    #[track_caller]
    pub(crate) fn next(&self) -> Lifeline {
        self.arrived
            .recv_timeout(LONG)
            .expect("no process came up in time")
    }

    /// How many processes ever lived at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }

    /// Those that live now. Forgets the others, so that a long test holds no descriptor for each
    /// process that ever was; nothing for [`next`](Self::next) is left either.
    pub(crate) fn living(&self) -> Vec<Lifeline> {
        while self.arrived.try_recv().is_ok() {}
        let mut all = self.all.lock();
        all.retain(Lifeline::is_alive);
        all.iter().map(Lifeline::another_handle).collect()
    }

    /// Every process that ever came up must be dead by now or soon.
    #[track_caller]
    pub(crate) fn expect_all_dead(&self) {
        for lifeline in self.all.lock().iter() {
            lifeline.expect_end();
        }
    }
}

impl Drop for Lifelines {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // Wakes the thread.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Lifeline {
    /// `None` for a process that died before it said anything.
    fn begin(stream: TcpStream) -> Option<Self> {
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut line = String::new();
        // One line is all that ever comes, so nothing is lost in the buffer.
        BufReader::new(&stream).read_line(&mut line).ok()?;
        let pid = line.trim().parse().ok()?;
        Some(Self { pid, stream })
    }

    fn another_handle(&self) -> Self {
        Self {
            pid: self.pid,
            stream: self.stream.try_clone().unwrap(),
        }
    }

    /// Lets a step that waits for it go on.
    pub(crate) fn open_gate(&self) {
        (&self.stream).write_all(b"g").unwrap();
    }

    /// Lets go of it: a fixture that nothing else ends does so now.
    pub(crate) fn cut(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until the process is stopped by a signal.
    #[track_caller]
    pub(crate) fn expect_frozen(&self) {
        let process = Process::of(self.pid.cast_signed()).unwrap();
        wait_until("the process to be stopped", || process.state() == Some('T'));
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub(crate) fn expect_end(&self) {
        let mut byte = [0];
        match (&self.stream).read(&mut byte) {
            Ok(0) => {}
            // It died with a gate unread.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("process {} did not end in time: {other:?}", self.pid),
        }
    }

    /// Whether the process ends within that time.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        let mut descriptors = [PollFd::new(&self.stream, PollFlags::IN)];
        let time = Timespec::try_from(time).unwrap();
        // It says nothing but its process id, so what can be read is the end.
        poll(&mut descriptors, Some(&time)).unwrap() > 0
    }

    /// Whether the process still holds its lifeline, as far as can be told without waiting.
    pub(crate) fn is_alive(&self) -> bool {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        let received = rustix::net::recv(&self.stream, &mut [0_u8][..], flags);
        matches!(received, Err(rustix::io::Errno::WOULDBLOCK))
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nothing waits for this one any more; a fixture ends when its lifeline does.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}
