//! What a process takes, as the kernel counts it.

use std::{fs, path::Path};

use anyhow::Context as _;

/// The unit of the times in `/proc/<pid>/stat`, which every Linux has.
const TICKS_PER_SECOND: f64 = 100.0;

/// The memory of a process, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// What is resident now.
    pub resident: f64,
    /// The most that ever was.
    pub peak: f64,
}

/// What a process has of the memory.
///
/// # Errors
/// When it is gone, or may not be looked at.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mebibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        Ok::<_, anyhow::Error>(kibibytes.with_context(|| format!("no {name} of process {pid}"))? / 1024.0)
    };
    Ok(Memory { resident: mebibytes("VmRSS")?, peak: mebibytes("VmHWM")? })
}

/// The parent of a process.
///
/// # Errors
/// When it is gone.
pub fn parent(pid: u32) -> anyhow::Result<u32> {
    Ok(stat(Path::new(&format!("/proc/{pid}")))?.parent)
}

/// How long a process has had a core, in seconds.
///
/// # Errors
/// When it is gone.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    Ok(stat(Path::new(&format!("/proc/{pid}")))?.seconds)
}

/// How long a process and all that come from it have had a core, those included that have ended, in seconds.
///
/// # Errors
/// When it is gone.
pub fn cpu_seconds_of_tree(pid: u32) -> anyhow::Result<f64> {
    let all: Vec<Stat> =
        fs::read_dir("/proc")?.flatten().filter_map(|entry| stat(&entry.path()).ok()).collect();
    let mut tree = vec![pid];
    let mut seconds = 0.0;
    let mut looked_at = 0;
    while let Some(parent) = tree.get(looked_at).copied() {
        looked_at += 1;
        tree.extend(all.iter().filter(|stat| stat.parent == parent).map(|stat| stat.pid));
        seconds += all.iter().find(|stat| stat.pid == parent).map_or(0.0, |stat| stat.seconds + stat.ended);
    }
    Ok(seconds)
}

struct Stat {
    pid: u32,
    parent: u32,
    /// Of the process.
    seconds: f64,
    /// Of its children that have ended.
    ended: f64,
}

fn stat(process: &Path) -> anyhow::Result<Stat> {
    let text = fs::read_to_string(process.join("stat"))?;
    // The name, in parentheses, may have anything in it.
    let (name, rest) = text.rsplit_once(')').context("no name")?;
    let numbers: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |place: usize| numbers.get(place).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    Ok(Stat {
        pid: name.split_whitespace().next().context("no id")?.parse()?,
        parent: numbers.get(1).context("no parent")?.parse()?,
        seconds: (ticks(11) + ticks(12)) / TICKS_PER_SECOND,
        ended: (ticks(13) + ticks(14)) / TICKS_PER_SECOND,
    })
}
