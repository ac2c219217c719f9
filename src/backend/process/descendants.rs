//! Who descends from whom, read from `/proc`.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A process as `/proc/<pid>/stat` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    /// Clock ticks since the boot: with the pid it names one process for ever.
    pub(super) start_ticks: u64,
}

/// More than a file in `/proc` has that says something of one process.
const PROC_BYTES: usize = 4096;

/// A file of a process in `/proc`, in one piece: asked for bit by bit, as files of unknown size are, it takes several times as many calls.
pub(super) fn of_process(pid: i32, file: &str) -> io::Result<String> {
    let mut text = String::with_capacity(PROC_BYTES);
    File::open(format!("/proc/{pid}/{file}"))?.take(u64::MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The process of that number, if there is one.
pub(super) fn find(pid: i32) -> Option<Process> {
    parse_stat(&of_process(pid, "stat").ok()?)
}

/// `pid (name) state parent … starttime …`: the name may hold spaces and brackets, so what counts comes after the
/// last one.
fn parse_stat(stat: &str) -> Option<Process> {
    let (before, after) = stat.rsplit_once(')')?;
    let pid = before.split_once(' ')?.0.parse().ok()?;
    let mut fields = after.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    // The parent is field 4 of proc(5), the start time field 22.
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, start_ticks })
}

/// The numbers of all processes.
fn numbers() -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/proc")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(numbers)
}

/// Every process there is. Some may have ended since.
fn all() -> io::Result<Vec<Process>> {
    Ok(numbers()?.into_iter().filter_map(find).collect())
}

/// Every process that descends from one of `roots`, the roots themselves left out.
fn select_descendants(processes: &[Process], roots: &HashSet<i32>) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in processes {
        children.entry(process.parent).or_default().push(*process);
    }
    let mut found = Vec::new();
    let mut seen = roots.clone();
    let mut open: Vec<i32> = roots.iter().copied().collect();
    while let Some(parent) = open.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if seen.insert(child.pid) {
                found.push(*child);
                open.push(child.pid);
            }
        }
    }
    found
}

/// Every process that descends from this one.
pub(super) fn of(pid: i32) -> io::Result<Vec<Process>> {
    Ok(select_descendants(&all()?, &HashSet::from([pid])))
}

/// Every process of which `is_meant` holds, and all that descend from one; never this process.
pub(super) fn matching(is_meant: impl Fn(&Process) -> bool) -> io::Result<Vec<Process>> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let processes = all()?;
    let meant: Vec<Process> =
        processes.iter().filter(|process| process.pid != own && is_meant(process)).copied().collect();
    let roots = meant.iter().map(|process| process.pid).collect();
    let mut found = select_descendants(&processes, &roots);
    found.extend(meant);
    // What has ended and waits to be read needs no ending.
    found.retain(|process| process.pid != own && !is_zombie(process.pid));
    Ok(found)
}

/// Every process of whose number `is_meant` holds and that has not ended; never this one.
pub(super) fn living(is_meant: impl Fn(i32) -> bool) -> io::Result<Vec<Process>> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let meant = numbers()?.into_iter().filter(|pid| *pid != own && is_meant(*pid) && !is_zombie(*pid));
    Ok(meant.filter_map(find).collect())
}

/// Fields 3, 5, 6 and 7 of proc(5).
fn details(pid: i32) -> Option<(String, i32, i32, i32)> {
    let stat = of_process(pid, "stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.to_owned();
    let mut number = |skip| fields.nth(skip)?.parse().ok();
    Some((state, number(1)?, number(0)?, number(0)?))
}

fn is_zombie(pid: i32) -> bool {
    details(pid).is_none_or(|(state, ..)| state == "Z" || state == "X")
}

/// Whether it is in the process group, or the session, of that number.
pub(super) fn is_in_group(pid: i32, leader: i32) -> bool {
    details(pid).is_some_and(|(_, group, session, _)| group == leader || session == leader)
}

/// Whether it works below this directory, also one that was removed, and at no terminal: there sits a person.
pub(super) fn works_in(pid: i32, directory: &Path) -> bool {
    details(pid).is_some_and(|(.., terminal)| terminal == 0)
        && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| {
            let mut bytes = cwd.into_os_string().into_vec();
            if bytes.ends_with(b" (deleted)") {
                bytes.truncate(bytes.len() - b" (deleted)".len());
            }
            PathBuf::from(OsString::from_vec(bytes)).starts_with(directory)
        })
}

/// Whether it is the supervisor of the attempt in this directory.
pub(super) fn supervises(pid: i32, directory: &Path) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        let mut words = line.split(|byte| *byte == 0).skip(1);
        words.next() == Some(b"supervise") && words.next() == Some(directory.as_os_str().as_bytes())
    })
}

/// The supervisor of the attempt in this directory, if one is there: known by its command line, which no script can change.
pub(super) fn supervisor_of(directory: &Path) -> io::Result<Option<Process>> {
    Ok(all()?.into_iter().find(|process| supervises(process.pid, directory) && !is_zombie(process.pid)))
}

/// Whether it was stopped (SIGSTOP), and does nothing until it is continued.
pub(super) fn is_stopped(pid: i32) -> bool {
    details(pid).is_some_and(|(state, ..)| state == "T")
}

/// Whether its environment holds exactly this entry.
pub(super) fn carries(pid: i32, entry: &str) -> bool {
    // Another user's process cannot be read, and cannot be of this service.
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|line| line == entry.as_bytes()))
}

/// Sends a signal to exactly this process, not to another that has its number by now.
pub(super) fn signal(process: Process, signal: Signal) -> io::Result<()> {
    if find(process.pid).is_none_or(|now| now.start_ticks != process.start_ticks) {
        return Ok(());
    }
    match kill(Pid::from_raw(process.pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The identity of this boot of the machine.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn process(pid: i32, parent: i32) -> Process {
        Process { pid, parent, start_ticks: 7 }
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_mislead() {
        let stat = "42 (a) R 1 (b) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";
        assert_eq!(parse_stat(stat), Some(Process { pid: 42, parent: 7, start_ticks: 98765 }));
        assert_eq!(parse_stat("42 (a"), None);
    }

    #[test]
    fn this_process_is_found() {
        let own = i32::try_from(std::process::id()).unwrap();
        let found = find(own).unwrap();
        assert_eq!(found.pid, own);
        assert!(found.start_ticks > 0);
    }

    #[test]
    fn descendants_are_found_at_every_depth() {
        let processes = [process(1, 0), process(5, 1), process(6, 5), process(7, 6), process(8, 1)];
        let mut found: Vec<i32> =
            select_descendants(&processes, &HashSet::from([5])).iter().map(|process| process.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [6, 7]);
    }

    #[test]
    fn a_snapshot_that_bites_its_tail_ends() {
        let processes = [process(5, 6), process(6, 5)];
        assert_eq!(select_descendants(&processes, &HashSet::from([5])), [process(6, 5)]);
    }
}
