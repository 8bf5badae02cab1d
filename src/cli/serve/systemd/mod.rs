//! What a service manager such as systemd is told: that the program is ready, reloads, stops, and is alive. The
//! protocol is systemd's `sd_notify`: datagrams to a socket that a variable names. Where there is none, nothing is
//! told.
//!
//! The variables stay in this process's environment, since taking them out is not safe while threads run. No plugin
//! inherits them: what it gets is listed name by name. The keeper does, and has no use for them.

// The crate `sd-notify` takes the variables out with `unsafe` and sends without a limit of time; what is left of
// it is in the standard library.

mod watchdog;

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use plugin_runner::text::escape;
use rustix::time::{ClockId, clock_gettime};

pub(crate) use watchdog::{Part, Watchdog, watch};

/// How long the service manager may take to read a message.
const SEND_LIMIT: Duration = Duration::from_secs(1);

/// The service manager that started this program, if it wants to be told anything.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl ServiceManager {
    /// Finds the service manager by `NOTIFY_SOCKET`. One that cannot be reached is logged, and is none.
    pub(crate) fn find() -> Self {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| match reach(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                let name = name.to_string_lossy();
                log::warn!("cannot notify NOTIFY_SOCKET={}: {error}", escape(&name));
                None
            }
        });
        Self { socket }
    }

    /// Tells that starting may take so long from now, whatever time the service manager has set.
    pub(crate) fn starting(&self, within: Duration) {
        let within = within.as_micros();
        self.tell(&format!("EXTEND_TIMEOUT_USEC={within}\nSTATUS=starting\n"));
    }

    /// Tells that everything is up, the first time or after reloading.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}\n", escape(status)));
    }

    /// Tells that the configuration is being read again; [`ready`](Self::ready) ends that.
    pub(crate) fn reloading(&self) {
        // So that the service manager knows which of its requests this answers.
        let now = clock_gettime(ClockId::Monotonic);
        let now = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reloading\n"
        ));
    }

    /// Tells that the program stops, which may take so long from now.
    pub(crate) fn stopping(&self, within: Duration) {
        let within = within.as_micros();
        self.tell(&format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={within}\nSTATUS=stopping\n"
        ));
    }

    /// Tells that everything is alive.
    fn alive(&self) {
        self.tell("WATCHDOG=1\n");
    }

    fn tell(&self, message: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            log::warn!("cannot notify the service manager: {error}");
        }
    }
}

/// Returns a socket to send from, and the address with this name: a path, or an abstract name after `@`.
fn reach(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(name)?
        }
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            let problem = "it is neither an absolute path nor an abstract name after '@'";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_LIMIT))?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;

    /// A service manager that a test plays.
    pub(super) struct Played {
        pub(super) manager: Arc<ServiceManager>,
        socket: UnixDatagram,
        path: Option<PathBuf>,
    }

    impl Played {
        pub(super) fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("{name}-{}", std::process::id()));
            let socket = UnixDatagram::bind(&path).unwrap();
            let manager = to(path.as_os_str());
            let path = Some(path);
            Self {
                manager,
                socket,
                path,
            }
        }

        /// The next message.
        pub(super) fn told(&self) -> String {
            let limit = Duration::from_secs(30);
            self.socket.set_read_timeout(Some(limit)).unwrap();
            let mut message = [0; 512];
            let length = self.socket.recv(&mut message).expect("a message");
            String::from_utf8(message[..length].to_vec()).unwrap()
        }

        /// A message that is there already.
        pub(super) fn untold(&self) -> Option<Vec<u8>> {
            self.socket.set_nonblocking(true).unwrap();
            let mut message = [0; 512];
            let read = self.socket.recv(&mut message).ok();
            self.socket.set_nonblocking(false).unwrap();
            read.map(|length| message[..length].to_vec())
        }
    }

    impl Drop for Played {
        fn drop(&mut self) {
            if let Some(path) = &self.path {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn to(name: &OsStr) -> Arc<ServiceManager> {
        let socket = Some(reach(name).unwrap());
        Arc::new(ServiceManager { socket })
    }

    #[test]
    fn it_is_told_what_happens_in_its_own_words() {
        let played = Played::new("notified");
        played.manager.starting(Duration::from_millis(1500));
        let told = played.told();
        assert_eq!(told, "EXTEND_TIMEOUT_USEC=1500000\nSTATUS=starting\n");
        played.manager.ready("3 plugins\nREADY=0");
        assert_eq!(played.told(), "READY=1\nSTATUS=3 plugins\\nREADY=0\n");
        let micros = || {
            let now = clock_gettime(ClockId::Monotonic);
            now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
        };
        let before = micros();
        played.manager.reloading();
        let told = played.told();
        let (_, rest) = told.split_once("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let (now, rest) = rest.split_once('\n').unwrap();
        assert!((before..=micros()).contains(&now.parse().unwrap()), "{now}");
        assert_eq!(rest, "STATUS=reloading\n");
        played.manager.stopping(Duration::from_secs(2));
        assert_eq!(
            played.told(),
            "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000\nSTATUS=stopping\n"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_name_is_an_address_too() {
        use std::os::linux::net::SocketAddrExt as _;

        let name = format!("notified-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let played = Played {
            manager: to(OsStr::new(&format!("@{name}"))),
            socket: UnixDatagram::bind_addr(&address).unwrap(),
            path: None,
        };
        played.manager.ready("up");
        assert_eq!(played.told(), "READY=1\nSTATUS=up\n");
    }

    #[test]
    fn an_address_that_is_none_says_so() {
        for name in ["relative", "vsock:2:1", ""] {
            let error = reach(OsStr::new(name)).unwrap_err();
            assert!(error.to_string().contains("absolute path"), "{error}");
        }
    }

    #[test]
    fn a_service_manager_that_is_gone_stops_nothing() {
        let played = Played::new("gone");
        drop(std::fs::remove_file(played.path.as_ref().unwrap()));
        played.manager.ready("up");
    }
}
