//! What a worker may do, and what must be true of each thing right after it was done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plugin_runner::duplex::memory;
use plugin_runner::duplex::websocket::WebSocket;
use plugin_runner::{ActiveState, Error, ErrorKind, ReportedState, Session, fault};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::World;
use crate::arena::{Arena, EVENT, GRACE, Plugin};
use crate::peers::CONNECT;
use crate::random::Random;
use crate::support::LONG;

/// For the answer to a call of a plugin that may be frozen.
const CALL: Duration = Duration::from_millis(400);
/// Beyond what an operation was given, on a machine that is busy with other things.
const SLACK: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Load,
    Unload,
    Start,
    Stop,
    StopAtOnce,
    Activate,
    Deactivate,
    Echo,
    CallBack,
    Forget,
    Exit,
    Close,
    Publish,
    Kill,
    Freeze,
    Thaw,
    ConnectMemory,
    ConnectSocket,
    DropPeer,
    Replay,
    Follow,
    Wait,
    Neighbour,
    Hold,
    Replace,
}

/// What there is to be done, and how often.
const SHARES: [(Operation, usize); 25] = [
    (Operation::Load, 10),
    (Operation::Unload, 2),
    (Operation::Start, 24),
    (Operation::Stop, 5),
    (Operation::StopAtOnce, 1),
    (Operation::Activate, 6),
    (Operation::Deactivate, 3),
    (Operation::Echo, 18),
    (Operation::CallBack, 5),
    (Operation::Forget, 5),
    (Operation::Exit, 3),
    (Operation::Close, 2),
    (Operation::Publish, 3),
    (Operation::Kill, 4),
    (Operation::Freeze, 2),
    (Operation::Thaw, 4),
    (Operation::ConnectMemory, 4),
    (Operation::ConnectSocket, 4),
    (Operation::DropPeer, 3),
    (Operation::Replay, 2),
    (Operation::Follow, 1),
    (Operation::Wait, 2),
    (Operation::Neighbour, 12),
    (Operation::Hold, 5),
    (Operation::Replace, 0),
];

/// What neither waits for the reaper nor comes to a point itself, so that it may be done by whoever
/// holds it up.
const WHILE_HELD: [Operation; 7] = [
    Operation::Start,
    Operation::Start,
    Operation::StopAtOnce,
    Operation::StopAtOnce,
    Operation::Kill,
    Operation::Thaw,
    Operation::Forget,
];

pub(crate) const STATES: [ActiveState; 2] = [ActiveState::Active, ActiveState::Inactive];

const POINTS: [&str; 6] = [
    fault::PREPARING,
    fault::SPAWNED,
    fault::EXITED,
    fault::REAPED,
    fault::RESERVED,
    fault::ATTACHED,
];

impl Operation {
    pub(crate) fn choose(random: &mut Random) -> Self {
        // Rare beside everything else, since it ends what everybody is doing.
        if random.one_in(1_500) {
            return Self::Replace;
        }
        let total = SHARES.iter().map(|(_, share)| share).sum();
        let mut left = random.below(total);
        for (operation, share) in SHARES {
            if left < share {
                return operation;
            }
            left -= share;
        }
        unreachable!("the shares add up")
    }

    /// Does it, counts it, and checks what must be true of it.
    pub(crate) fn perform(
        self,
        world: &World,
        arena: &Arena,
        plugin: &Plugin,
        random: &mut Random,
    ) {
        let began = Instant::now();
        let result = self.act(world, arena, plugin, random);
        let took = began.elapsed();
        world
            .verdict
            .count(&format!("{self:?}"), matches!(result, Ok(true)), took);
        if let Err(error) = &result
            && !self.allows(error)
        {
            let name = &plugin.name;
            world
                .verdict
                .violate(format!("{self:?} of {name} after {took:?}: {error}"));
        }
        if took > self.limit() + SLACK {
            let name = &plugin.name;
            world
                .verdict
                .violate(format!("{self:?} of {name} took {took:?}: {result:?}"));
        }
    }

    /// How long it may take.
    fn limit(self) -> Duration {
        match self {
            Self::Stop | Self::Deactivate | Self::Unload | Self::Replace => GRACE,
            Self::Echo | Self::CallBack | Self::Forget | Self::Exit | Self::Close => CALL,
            Self::Wait => Duration::from_millis(20),
            // Something in between may wait for an answer.
            Self::Hold => CALL * 6,
            _ => Duration::ZERO,
        }
    }

    /// Whether the world being what it is explains this error.
    fn allows(self, error: &Error) -> bool {
        match error {
            // The host, or the session, was somebody else's to end.
            Error::ShutDown | Error::NotLoaded(_) => true,
            Error::Disconnected(_) | Error::State { .. } | Error::AlreadyConnected(_) => !matches!(
                self,
                Self::Load | Self::Start | Self::Activate | Self::Neighbour
            ),
            error if error.kind() == ErrorKind::PluginFailed => matches!(self, Self::Wait),
            // A process may be frozen, or be one that never reads.
            Error::Timeout { .. } | Error::TooManyPending { .. } => matches!(
                self,
                Self::Echo
                    | Self::CallBack
                    | Self::Forget
                    | Self::Exit
                    | Self::Close
                    | Self::StopAtOnce
                    | Self::Wait
            ),
            // There was no time to look for all of it.
            error if error.kind() == ErrorKind::DescendantsLeft => {
                matches!(self, Self::StopAtOnce | Self::Wait)
            }
            // External plugins know no other method than `echo`, and a plugin may lose its
            // connection while it calls.
            Error::Rpc(_) => matches!(self, Self::CallBack | Self::Exit | Self::Close),
            // The listener is gone, or will be.
            Error::Io { .. } => matches!(self, Self::ConnectSocket),
            _ => false,
        }
    }

    /// Gives whether there was something to be done.
    fn act(
        self,
        world: &World,
        arena: &Arena,
        plugin: &Plugin,
        random: &mut Random,
    ) -> Result<bool, Error> {
        let verdict = &world.verdict;
        if let Self::Neighbour = self {
            let neighbour = random.choose(&world.neighbours);
            // Answered at once but for a machine that is busy: that it took too long is seen above.
            echo(world, neighbour, "the neighbour", LONG)?;
            return Ok(true);
        }
        if let Self::Replace = self {
            return Ok(arena.replace_host());
        }
        if let Self::Load = self {
            if random.one_in(3) {
                arena.want(plugin, *random.choose(&STATES));
            }
            arena.host().load(plugin.id)?;
            return Ok(true);
        }
        if let Self::Hold = self {
            let point: &'static str = POINTS[random.below(POINTS.len())];
            let hold = fault::hold(point, plugin.id);
            for _ in 0..2 {
                random
                    .choose(&WHILE_HELD)
                    .perform(world, arena, plugin, random);
            }
            let reached = hold.reached(Duration::from_millis(20));
            for _ in 0..random.below(5) {
                random
                    .choose(&WHILE_HELD)
                    .perform(world, arena, plugin, random);
            }
            return Ok(reached);
        }
        if let Self::Publish = self {
            arena
                .host()
                .publish(EVENT, &json!({"number": random.next()}))?;
            return Ok(true);
        }
        if let Self::Unload = self {
            let host = arena.host();
            let before = plugin.living();
            host.unload(plugin.id)?;
            expect_ended(world, plugin, "unload", &before);
            return Ok(true);
        }
        match self {
            Self::Kill => return Ok(plugin.signal_all(Signal::KILL) > 0),
            Self::Freeze => return Ok(plugin.signal_all(Signal::STOP) > 0),
            Self::Thaw => return Ok(plugin.signal_all(Signal::CONT) > 0),
            Self::DropPeer => return Ok(world.peers.close_one(random)),
            _ => {}
        }
        let Some(session) = arena.session(plugin) else {
            return Ok(false);
        };
        match self {
            Self::Start => match session.supervised() {
                Some(supervised) => supervised.start()?,
                None => session.set_active_state(ActiveState::Active)?,
            },
            Self::Stop => {
                let Some(supervised) = session.supervised() else {
                    return Ok(false);
                };
                let before = plugin.living();
                supervised.stop(LONG)?;
                expect_ended(world, plugin, "stop", &before);
            }
            Self::StopAtOnce => {
                let Some(supervised) = session.supervised() else {
                    return Ok(false);
                };
                supervised.stop(Duration::from_millis(1))?;
            }
            Self::Activate => session.set_active_state(ActiveState::Active)?,
            Self::Deactivate => session.set_active_state(ActiveState::Inactive)?,
            Self::Echo => echo(world, &session, &plugin.name, CALL)?,
            Self::CallBack => {
                let number = random.below(1_000_000);
                let params = json!({"method": "double", "params": {"number": number}});
                let answer: Value = session.call_raw("call_back", &params, CALL)?.read()?;
                if answer["answer"]["doubled"] != number * 2 {
                    verdict.violate(format!("{}: {number} doubled: {answer}", plugin.name));
                }
            }
            Self::Forget => drop(session.start_call_raw("echo", &json!({}), CALL)?),
            Self::Exit => {
                let code = random.below(3);
                session.call_raw("exit", &json!({ "code": code }), CALL)?;
            }
            Self::Close => {
                session.call_raw("close", &json!({}), CALL)?;
            }
            Self::ConnectMemory => {
                // Into a supervised one only rarely: its own process is refused then.
                if !world.peers.has_room() || !plugin.is_external() && !random.one_in(8) {
                    return Ok(false);
                }
                let (ours, theirs) = memory::pair(16);
                session.connect(ours, "stress")?;
                world.peers.serve(theirs);
            }
            Self::ConnectSocket => {
                let Some(token) = &plugin.token else {
                    return Ok(false);
                };
                if !world.peers.has_room() {
                    return Ok(false);
                }
                let url = format!("ws://{}/rpc?token={token}", arena.address());
                world.peers.serve(WebSocket::connect(&url, CONNECT)?);
            }
            Self::Replay => {
                let Some(url) = plugin.earlier_url() else {
                    return Ok(false);
                };
                if WebSocket::connect(&url, CONNECT).is_ok() {
                    verdict.violate(format!("{}: an earlier token works", plugin.name));
                }
            }
            Self::Follow => {
                if plugin.is_external() {
                    return Ok(false);
                }
                drop(arena.host().subscribe());
                let mut follower = session.follow_log()?;
                let _ = follower.next(Duration::ZERO);
            }
            Self::Wait => session.wait_for(
                *random.choose(&[ReportedState::Active, ReportedState::Inactive]),
                Duration::from_millis(20),
            )?,
            _ => unreachable!("done above"),
        }
        Ok(true)
    }
}

/// Calls `echo`; the answer must be to this very call.
pub(crate) fn echo(
    world: &World,
    session: &Session,
    name: &str,
    timeout: Duration,
) -> Result<(), Error> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let params = json!({"number": NUMBER.fetch_add(1, Ordering::Relaxed)});
    let answer: Value = session.call_raw("echo", &params, timeout)?.read()?;
    if answer["echo"] != params {
        world
            .verdict
            .violate(format!("{name}: {params} was answered with {answer}"));
    }
    Ok(())
}

/// What lived before a stop that has succeeded must be gone, whatever was started since.
fn expect_ended(
    world: &World,
    plugin: &Plugin,
    what: &str,
    before: &[crate::support::lifeline::Lifeline],
) {
    for lifeline in before {
        if !lifeline.ends_within(SLACK) {
            let (name, pid) = (&plugin.name, lifeline.pid);
            world
                .verdict
                .violate(format!("process {pid} of {name} lives after its {what}"));
        }
    }
}
