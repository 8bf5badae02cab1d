//! What the processes of plugins use of the machine, as `/proc` shows it: that of a whole process group at a time,
//! because the program that was started may be a shell or a launcher that only waits for the one that works.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use rustix::process::Pid;

use super::cpu_time;
use super::stat::{StatFields, processes};
use crate::deadline::Deadline;

/// What the processes of one group use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupUsage {
    /// Processor time, with that of children which they have waited for.
    pub(crate) cpu: Duration,
    /// Bytes of memory that are in use now. What several processes share is counted for each.
    pub(crate) resident: u64,
    pub(crate) processes: u64,
}

/// Returns what the groups with these leaders use. Those are missing whose leader is no child of this process: it has
/// ended, and another process may have its id. Descendants that have left their group are not counted.
///
/// Blocks for one short file for each process of the machine. Returns `None` at the deadline, and where there is no
/// `/proc`: a part of a group would say nothing.
pub(crate) fn of_groups(
    leaders: impl IntoIterator<Item = u32>,
    deadline: Deadline,
) -> Option<HashMap<u32, GroupUsage>> {
    let mut groups: HashMap<u32, Group> = (leaders.into_iter())
        .map(|leader| (leader, Group::default()))
        .collect();
    if groups.is_empty() {
        return Some(HashMap::new());
    }
    let mut line = [0; 4096];
    for pid in processes().ok()? {
        if deadline.has_passed() {
            return None;
        }
        // It may have ended meanwhile.
        let Some(process) = read(pid, &mut line) else {
            continue;
        };
        if let Some(group) = groups.get_mut(&process.group) {
            group.usage.cpu += process.usage.cpu;
            group.usage.resident += process.usage.resident;
            group.usage.processes += 1;
            group.is_ours |= process.is_leader && process.parent == std::process::id();
        }
    }
    let ours = groups.into_iter().filter(|(_, group)| group.is_ours);
    Some(ours.map(|(leader, group)| (leader, group.usage)).collect())
}

#[derive(Default)]
struct Group {
    usage: GroupUsage,
    is_ours: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct ProcessUsage {
    parent: u32,
    group: u32,
    is_leader: bool,
    usage: GroupUsage,
}

/// Reads `/proc/<pid>/stat`, a line of a few hundred bytes that the system writes at once.
fn read(pid: Pid, line: &mut [u8]) -> Option<ProcessUsage> {
    let pid = pid.as_raw_pid();
    let mut file = File::open(format!("/proc/{pid}/stat")).ok()?;
    let count = file.read(line).ok()?;
    let pid = u32::try_from(pid).ok()?;
    let (ticks, page) = (
        rustix::param::clock_ticks_per_second(),
        rustix::param::page_size() as u64,
    );
    parse(&line[..count], pid, ticks, page)
}

fn parse(line: &[u8], pid: u32, ticks_per_second: u64, page_size: u64) -> Option<ProcessUsage> {
    let fields = StatFields::of(line)?;
    let group = u32::try_from(fields.number(5)?).ok()?;
    Some(ProcessUsage {
        parent: u32::try_from(fields.number(4)?).ok()?,
        group,
        is_leader: group == pid,
        usage: GroupUsage {
            // The process in user mode and in the kernel, and its children in both.
            cpu: cpu_time::sum(&fields, 14..=17, ticks_per_second)?,
            resident: fields.number(24)?.checked_mul(page_size)?,
            processes: 1,
        },
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;
    use crate::testing::{LONG, wait_until};

    #[test]
    fn the_line_is_read() {
        let line = b"7 (a) (b c) S 3 5 7 0 -1 4194560 104 20 0 0 150 30 15 5 20 0 1 0 94 9999 21 0";
        let expected = ProcessUsage {
            parent: 3,
            group: 5,
            is_leader: false,
            usage: GroupUsage {
                cpu: Duration::from_secs(2),
                resident: 21 * 4096,
                processes: 1,
            },
        };
        assert_eq!(parse(line, 7, 100, 4096), Some(expected));
        assert!(parse(line, 5, 100, 4096).unwrap().is_leader);
        assert_eq!(parse(b"7 (x) S 3 5", 7, 100, 4096), None);
        assert_eq!(parse(line, 7, 0, 4096), None);
    }

    #[test]
    fn a_group_is_added_up_and_is_missing_when_its_leader_is_no_child() {
        // It ends at the end of its input, and so does the process beside it.
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "exec 3<&0; cat <&3 & echo ready; wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(shell.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        let leader = shell.id();
        let usage = || of_groups([leader, 1], Deadline::after(LONG)).unwrap();
        let alone = || read(Pid::from_child(&shell), &mut [0; 4096]).unwrap();
        assert_eq!((alone().group, alone().is_leader), (leader, true));
        // The system is late with what a process uses at its very beginning.
        wait_until("the memory of two processes", || {
            usage()[&leader].resident > alone().usage.resident
        });
        let found = usage();
        assert_eq!(found[&leader].processes, 2);
        assert_eq!(
            found.len(),
            1,
            "process 1 is not a child of this: {found:?}"
        );

        assert_eq!(of_groups([leader], Deadline::at(Instant::now())), None);
        drop(shell.stdin.take());
        output.read_to_end(&mut Vec::new()).unwrap();
        shell.wait().unwrap();
        assert_eq!(usage(), HashMap::new());
    }
}
