//! `ProcessLimits`: what one plugin's process may use of the machine, and how that is applied to it from
//! outside.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use serde_json::{Map, Value};

use crate::error::{Result, StartError};
use crate::settings::{require, settings};

settings! {
    /// What a supervised plugin's process may use. Each limit is optional; a resource without one is
    /// inherited from the host's process.
    /// [`HostBuilder::process_limits`](crate::HostBuilder::process_limits) sets the limits of all plugins,
    /// and [`Overrides`](crate::store::Overrides) those of one plugin, where the greatest possible value
    /// ([`u64::MAX`], [`Duration::MAX`]) lifts the host's limit. A limit on the host's own process is never
    /// exceeded.
    ///
    /// ```
    /// use plugin_runner::{Host, ProcessLimits};
    ///
    /// # fn main() -> plugin_runner::Result<()> {
    /// let limits = ProcessLimits::default()
    ///     .memory(512 << 20)
    ///     .open_files(256);
    /// let host = Host::builder().process_limits(limits).build()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The kernel enforces the limits (`setrlimit`, `setpriority`) on each process of a plugin separately:
    /// children inherit them, and their use is counted from zero. The host applies them right after the
    /// spawn, so the process runs without them for a moment, usually well under a millisecond, and keeps
    /// what it takes in that time. If a limit cannot be set, the process is killed and the run ends with
    /// [`EndCause::CouldNotLimit`](crate::report::EndCause::CouldNotLimit).
    ///
    /// The umask is not among them, because only a process itself can set it. A plugin inherits the host's,
    /// and its limit on the size of core files.
    ///
    /// Except for `nice`, limits exist on Linux only; elsewhere a start with any other limit fails.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(default)]
    pub struct ProcessLimits {
        /// Address space, in bytes. It counts all mapped memory, used or not, so it has to be well above
        /// what the process really uses. Over it, allocations in the program fail. Default none.
        memory: Option<u64> = None, optional u64;
        /// Processor time of all threads of the process together, rounded up to whole seconds. At the
        /// limit the process receives SIGXCPU, and a second later SIGKILL; the run then ends with
        /// [`EndCause::CpuTime`](crate::report::EndCause::CpuTime). Default none.
        cpu_time: Option<Duration> = None, optional Duration;
        /// Processes and threads of the user that the plugin runs as, including those that do not belong to
        /// the plugin. Over it, starting another fails. Root is exempt. Default none.
        processes: Option<u64> = None, optional u64;
        /// Open descriptors: one more than the highest descriptor number. Default none.
        open_files: Option<u64> = None, optional u64;
        /// Size of a core file, in bytes. Earlier versions could set it, and it holds where it is stored.
        core_size: Option<u64> = None, by_hand;
        /// Scheduling priority from -20, the highest, to 19, the lowest. Raising it above the host's needs
        /// privileges. Default none: inherited from the host.
        nice: Option<i32> = None, optional i32;
    }
}

impl ProcessLimits {
    pub(crate) fn validate(&self) -> Result<()> {
        for (name, limit) in [
            ("memory", self.memory),
            ("processes", self.processes),
            ("open_files", self.open_files),
        ] {
            require(limit != Some(0), name, "must be at least one, or none")?;
        }
        require(
            self.cpu_time != Some(Duration::ZERO),
            "cpu_time",
            "must be longer than zero, or none",
        )?;
        require(
            self.nice.is_none_or(|nice| (-20..=19).contains(&nice)),
            "nice",
            "must be from -20 to 19",
        )
    }

    /// Returns these limits, completed by those of `defaults`.
    pub(crate) fn or(&self, defaults: &Self) -> Self {
        let number = |own: Option<u64>, default: Option<u64>| {
            own.or(default).filter(|limit| *limit != u64::MAX)
        };
        Self {
            memory: number(self.memory, defaults.memory),
            cpu_time: self
                .cpu_time
                .or(defaults.cpu_time)
                .filter(|limit| *limit != Duration::MAX),
            processes: number(self.processes, defaults.processes),
            open_files: number(self.open_files, defaults.open_files),
            core_size: number(self.core_size, defaults.core_size),
            nice: self.nice.or(defaults.nice),
        }
    }

    /// Applies the limits to a child that has just been spawned, and returns those in force.
    ///
    /// # Errors
    /// [`StartError::Limit`] names the limit that could not be set.
    pub(crate) fn apply(&self, pid: Pid) -> Result<Self, StartError> {
        let mut in_force = self.clone();
        system::apply(pid, &mut in_force)?;
        if let Some(nice) = self.nice {
            let result = rustix::process::setpriority_process(Some(pid), nice);
            unless_gone("nice", result)?;
        }
        Ok(in_force)
    }

    /// Returns the limits by name for error details; times are in seconds.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let numbers = [
            ("memory", self.memory),
            ("cpu_time", self.cpu_time.map(whole_seconds)),
            ("processes", self.processes),
            ("open_files", self.open_files),
            ("core_size", self.core_size),
        ];
        let numbers = numbers
            .into_iter()
            .filter_map(|(name, limit)| Some((name.to_owned(), limit?.into())));
        let nice = self.nice.map(|nice| ("nice".to_owned(), nice.into()));
        numbers.chain(nice).collect()
    }
}

/// Rounded up: the kernel counts in whole seconds.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// Passes over the error of a process that is gone already, which needs no limits.
fn unless_gone<T>(limit: &'static str, result: rustix::io::Result<T>) -> Result<(), StartError> {
    match result {
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(failed(limit, error.into())),
    }
}

fn failed(limit: &'static str, error: io::Error) -> StartError {
    StartError::Limit {
        limit,
        source: Arc::new(error),
    }
}

#[cfg(target_os = "linux")]
mod system {
    //! Limits set by the parent, with `prlimit`.

    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

    use super::{Duration, ProcessLimits, StartError, unless_gone, whole_seconds};

    pub(super) fn apply(pid: Pid, limits: &mut ProcessLimits) -> Result<(), StartError> {
        let numbers = [
            ("memory", Resource::As, &mut limits.memory),
            ("processes", Resource::Nproc, &mut limits.processes),
            ("open_files", Resource::Nofile, &mut limits.open_files),
            ("core_size", Resource::Core, &mut limits.core_size),
        ];
        for (name, resource, limit) in numbers {
            if let Some(limit) = limit {
                *limit = at_most(*limit, getrlimit(resource).maximum);
                // The hard limit too, so that the plugin cannot raise it again.
                set(pid, name, resource, *limit, *limit)?;
            }
        }
        if let Some(limit) = &mut limits.cpu_time {
            let inherited = getrlimit(Resource::Cpu).maximum;
            let seconds = at_most(whole_seconds(*limit), inherited);
            *limit = Duration::from_secs(seconds);
            // SIGXCPU at the soft limit can be caught for an orderly end; SIGKILL at the hard one cannot.
            let last = at_most(seconds.saturating_add(1), inherited);
            set(pid, "cpu_time", Resource::Cpu, seconds, last)?;
        }
        Ok(())
    }

    /// Caps a limit at the host's own, even if the host has the privilege to exceed it.
    pub(super) fn at_most(limit: u64, inherited: Option<u64>) -> u64 {
        inherited.map_or(limit, |inherited| limit.min(inherited))
    }

    fn set(
        pid: Pid,
        name: &'static str,
        resource: Resource,
        current: u64,
        maximum: u64,
    ) -> Result<(), StartError> {
        let limit = Rlimit {
            current: Some(current),
            maximum: Some(maximum),
        };
        unless_gone(name, prlimit(Some(pid), resource, limit))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    //! No way to limit another process.

    use rustix::process::Pid;

    use super::{ProcessLimits, StartError, failed, io};

    pub(super) fn apply(_: Pid, limits: &mut ProcessLimits) -> Result<(), StartError> {
        let wanted = limits.to_json();
        for name in ["memory", "cpu_time", "processes", "open_files", "core_size"] {
            if wanted.contains_key(name) {
                return Err(failed(name, io::ErrorKind::Unsupported.into()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let none = ProcessLimits::default();
        none.validate().unwrap();
        let problem = |limits: ProcessLimits| limits.validate().unwrap_err().to_string();
        assert_eq!(
            problem(none.clone().open_files(0)),
            "setting open_files: must be at least one, or none"
        );
        assert_eq!(
            problem(none.clone().cpu_time(Duration::ZERO)),
            "setting cpu_time: must be longer than zero, or none"
        );
        assert_eq!(
            problem(none.clone().nice(20)),
            "setting nice: must be from -20 to 19"
        );
    }

    #[test]
    fn a_plugins_own_limits_go_before_the_hosts_and_can_lift_them() {
        let host = ProcessLimits::default()
            .memory(1000)
            .open_files(100)
            .cpu_time(Duration::from_secs(5))
            .nice(5);
        let own = ProcessLimits::default()
            .memory(u64::MAX)
            .open_files(50)
            .cpu_time(Duration::MAX);
        let both = own.or(&host);
        assert_eq!(
            Value::from(both.to_json()),
            json!({"open_files": 50, "nice": 5})
        );
        assert_eq!(ProcessLimits::default().or(&host), host);
    }

    #[test]
    fn times_are_rounded_up_to_whole_seconds() {
        let limits = ProcessLimits::default().cpu_time(Duration::from_millis(1001));
        assert_eq!(Value::from(limits.to_json()), json!({"cpu_time": 2}));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_host_itself_may_have_is_not_exceeded() {
        assert_eq!(system::at_most(100, None), 100);
        assert_eq!(system::at_most(100, Some(50)), 50);
        assert_eq!(system::at_most(100, Some(500)), 100);
    }
}
