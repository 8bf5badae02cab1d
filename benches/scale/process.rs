//! What the system says of this process: memory, threads, descriptors, wake-ups.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holdings {
    /// Resident memory, in KiB.
    pub(crate) resident: f64,
    /// Page tables, in KiB.
    pub(crate) tables: f64,
    pub(crate) threads: f64,
    pub(crate) descriptors: f64,
}

impl Holdings {
    /// Those of this process now.
    pub(crate) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count() as f64;
        Self {
            resident: field(&status, "VmRSS:"),
            tables: field(&status, "VmPTE:"),
            threads: field(&status, "Threads:"),
            descriptors,
        }
    }
}

/// What threads have done.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Activity {
    /// How often they have waited and been woken.
    pub(crate) wake_ups: f64,
    /// Processor time, in microseconds.
    pub(crate) processor: f64,
}

impl Activity {
    /// That of all threads of this process so far, or of those with this name; but for the calling one.
    pub(crate) fn of_others(name: Option<&str>) -> Self {
        let own = rustix::thread::gettid().as_raw_nonzero().to_string();
        let mut total = Self::default();
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            let task = task.unwrap();
            if task.file_name().to_str() == Some(&own) {
                continue;
            }
            // What cannot be read belonged to a thread that has ended meanwhile.
            let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            if name.is_some_and(|name| read("comm").trim_end() != name) {
                continue;
            }
            let (status, statistics) = (read("status"), read("schedstat"));
            if let Some(nanoseconds) = statistics.split_whitespace().next()
                && !status.is_empty()
            {
                total.wake_ups += field(&status, "voluntary_ctxt_switches:");
                total.processor += nanoseconds.parse::<f64>().unwrap() / 1e3;
            }
        }
        total
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            wake_ups: self.wake_ups - earlier.wake_ups,
            processor: self.processor - earlier.processor,
        }
    }
}

fn field(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap().split_whitespace().next().unwrap();
    value.parse().unwrap()
}

/// Lets this process have as many descriptors as the system allows; gives how many.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}
