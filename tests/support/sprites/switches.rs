//! What the service does wrong, and which of its undocumented ways it has.

use std::collections::VecDeque;
use std::time::Duration;

use super::http::Answer;

/// The state of every switch. [`Default`] is a service in good health.
#[derive(Clone, Debug)]
pub(crate) struct Switches {
    /// How sessions are announced on a socket.
    pub(crate) info: Info,
    /// How the end of a command is told.
    pub(crate) exit: Exit,
    /// What happens to a command that cannot be started.
    pub(crate) unstartable: Unstartable,
    /// Whether upgrades announce that signals may be sent on the socket.
    pub(crate) signal_capability: bool,
    /// Whether plain `GET .../exec` returns an array instead of an object.
    pub(crate) bare_session_list: bool,
    /// Whether errors of the file system come without `code` and `path`.
    pub(crate) bare_file_errors: bool,
    /// Whether counters of sprites stand under `org` instead of at the top of a list.
    pub(crate) counters_under_org: bool,
    /// How many bytes of earlier output an attach without a terminal replays.
    pub(crate) replay: usize,
    /// How long a command without a terminal may run on without a client, where the client says nothing.
    pub(crate) max_run: Duration,
    /// How long a socket is held after the end of its command.
    pub(crate) hold: Duration,
    /// Exec sockets neither read nor write while this is set: no output, no pongs.
    pub(crate) silence: bool,
    /// No connection lives while this is set: those that are open end, new ones are closed unread.
    pub(crate) away: bool,
    /// How many seconds the service's clock is fast; negative for slow.
    pub(crate) clock_offset: i64,
    /// The version of the runtime, sent with every answer about a sprite.
    pub(crate) version: String,
    /// What becomes of the exec sockets opened next, one entry for each.
    pub(crate) sockets: VecDeque<SocketFault>,
    /// What becomes of requests.
    pub(super) rules: Vec<Rule>,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            info: Info::default(),
            exit: Exit::default(),
            unstartable: Unstartable::default(),
            signal_capability: true,
            bare_session_list: false,
            bare_file_errors: false,
            counters_under_org: false,
            replay: 0,
            max_run: Duration::from_secs(10),
            hold: Duration::from_secs(5),
            silence: false,
            away: false,
            clock_offset: 0,
            version: "0.0.1-rc48".to_owned(),
            sockets: VecDeque::new(),
            rules: Vec::new(),
        }
    }
}

/// How a session is announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Info {
    #[default]
    Text,
    /// With the id as a number.
    Number,
    /// Not at all.
    Missing,
}

/// How the end of a command without a terminal is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Exit {
    #[default]
    Frame,
    /// As a text message, as with a terminal.
    Text,
    /// Both, the frame first.
    Both,
    /// As a frame without a payload where the code is 0.
    EmptyFrame,
    /// Not at all: the socket is closed with 1000.
    Close,
    /// Not at all: the connection ends without a close frame.
    Drop,
}

/// What happens to a command that cannot be started, after an upgrade that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unstartable {
    /// A text message of the type `error`, then a close without an exit.
    #[default]
    ErrorText,
    /// A close without an exit.
    Close,
    /// The exit code 127.
    Exit127,
    /// No upgrade, but a 400.
    Refused,
}

/// A fault of one exec socket. "Message" means text and binary messages, no pings.
#[derive(Clone, Debug)]
pub(crate) enum SocketFault {
    /// None: the fault is meant for a later socket.
    None,
    /// The connection ends without a close frame after so many messages to the client.
    CutAfterSent(usize),
    /// The same in the middle of that message, which is counted from 1.
    CutWithin(usize),
    /// The same after so many messages from the client.
    CutAfterReceived(usize),
    /// A close with this code after so many messages to the client, while the command goes on.
    CloseAfterSent(usize, u16),
    /// These bytes come behind the session's announcement, right or wrong; see [`frame`].
    Inject(Vec<u8>),
    /// The same bytes over and over.
    Flood(Vec<u8>),
}

/// The bytes of a frame from a server, with the first byte as given (0x82 is a whole binary message, 0x81
/// a text).
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(u8::try_from(length).expect("below 126")),
        length => {
            bytes.push(127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is not done, and answered so.
    Answer(Answer),
    /// It is done, and answered so.
    Done(Answer),
    /// It is done after this time.
    Delay(Duration),
    /// It is never answered.
    Hang,
    /// The connection ends without an answer.
    Drop,
    /// It is done, and the connection ends without an answer.
    DoneDrop,
    /// It is done, and answered after this time. Only where a program is started.
    DoneDelay(Duration),
    /// It is done, and the connection ends after so many bytes of the answer.
    Cut(usize),
    /// It is done, and the JSON of its answer has about so many bytes.
    Pad(usize),
    /// It is done, and its answer comes byte by byte, each after this time.
    Trickle(Duration),
    /// Its answer has headers without end.
    EndlessHead,
    /// Its answer has a body without end, in chunks.
    EndlessBody,
    /// Its answer says that its body has 2^63 - 1 bytes, and sends for as long as it is read.
    VastBody,
    /// Its answer is no HTTP.
    Garbage,
    /// The upgrade is answered with a wrong `Sec-WebSocket-Accept`.
    WrongAccept,
}

/// For which requests a fault is meant.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) pattern: String,
    pub(super) left: usize,
    pub(super) fault: Fault,
}

impl Switches {
    /// Has the next so many requests that match meet this fault. Earlier rules come first.
    pub(crate) fn next(&mut self, times: usize, pattern: &str, fault: Fault) {
        self.rules.push(Rule {
            pattern: pattern.to_owned(),
            left: times,
            fault,
        });
    }

    /// The fault of a request, used up by it.
    pub(super) fn fault(&mut self, request: &str) -> Option<Fault> {
        let meant = |rule: &&mut Rule| rule.left > 0 && matches(&rule.pattern, request);
        let rule = self.rules.iter_mut().find(meant)?;
        rule.left -= 1;
        Some(rule.fault.clone())
    }
}

/// Whether a request as `GET /v1/sprites` matches a pattern, in which `*` stands for anything.
pub(super) fn matches(pattern: &str, request: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == request;
    };
    let Some(request) = request.strip_prefix(start) else {
        return false;
    };
    (0..=request.len())
        .filter(|&at| request.is_char_boundary(at))
        .any(|at| matches(rest, &request[at..]))
}
