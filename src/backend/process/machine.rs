//! What the worker's own machine has.

use std::{fs, io};

use crate::domain::one_off_target::Machine;

/// Looks at the machine: CPUs that this process may use, memory, NVIDIA's devices.
pub(super) fn this() -> io::Result<Machine> {
    let cpus = std::thread::available_parallelism()?;
    Ok(Machine {
        cpus: u32::try_from(cpus.get()).unwrap_or(u32::MAX),
        memory_mib: memory_mib(&fs::read_to_string("/proc/meminfo")?)
            .ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))?,
        gpus: gpus()?,
    })
}

fn memory_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

/// The driver makes a device for each: `nvidia0`, `nvidia1`, …
fn gpus() -> io::Result<u32> {
    let mut count = 0;
    for entry in fs::read_dir("/dev")? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("nvidia"));
        count += u32::from(number.is_some_and(|number| number.parse::<u32>().is_ok()));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mib() {
        assert_eq!(memory_mib("MemTotal:       24689764 kB\nMemFree: 1 kB\n"), Some(24111));
        assert_eq!(memory_mib("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn this_machine_has_something() {
        let machine = this().unwrap();
        assert!(machine.cpus > 0 && machine.memory_mib > 0);
    }
}
