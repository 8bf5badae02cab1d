//! What `/proc` shows of processes: which there are, and the fields of `/proc/<pid>/stat`.

use std::{fs, io};

use rustix::process::Pid;

/// Lists all processes but this one, the youngest first.
pub(super) fn processes() -> io::Result<Vec<Pid>> {
    let own = rustix::process::getpid();
    let mut processes: Vec<Pid> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|pid| *pid != own)
        .collect();
    processes.reverse();
    Ok(processes)
}

/// The fields of the line from the third on.
pub(super) struct StatFields<'a>(Vec<&'a str>);

impl<'a> StatFields<'a> {
    pub(super) fn of(line: &'a [u8]) -> Option<Self> {
        // The second field is the program's name in parentheses, which may contain anything.
        let end_of_name = line.iter().rposition(|&byte| byte == b')')?;
        let fields = std::str::from_utf8(&line[end_of_name + 1..]).ok()?;
        Some(Self(fields.split_whitespace().collect()))
    }

    /// Returns a numeric field; the first field of the line is number 1.
    pub(super) fn number(&self, field: usize) -> Option<u64> {
        self.0.get(field - 3)?.parse().ok()
    }

    pub(super) fn state(&self) -> Option<&str> {
        self.0.first().copied()
    }

    pub(super) fn started_at(&self) -> Option<u64> {
        self.number(22)
    }
}
