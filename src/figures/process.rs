//! What the process takes of its machine, by the names that all programs use.

use std::fs;

use chrono::{DateTime, Utc};
use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeValLike as _,
};
use prometheus_client::{
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

/// Has the process's own figures shown; what the machine does not tell is left out.
pub fn register(registry: &mut Registry, started_at: DateTime<Utc>) {
    let process = registry.sub_registry_with_prefix("process");
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let seconds = microseconds as f64 / 1e6;
        let counter = ConstCounter::<f64>::new(seconds);
        process.register_with_unit("cpu", "Processor time, of user and system", Unit::Seconds, counter);
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        for (line, name, help) in [
            ("VmRSS:", "resident_memory", "Memory that is held in RAM"),
            ("VmSize:", "virtual_memory", "Memory that was asked for"),
        ] {
            if let Some(bytes) = kibibytes(&status, line) {
                process.register_with_unit(name, help, Unit::Bytes, ConstGauge::<i64>::new(bytes));
            }
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The directory that is being read is one of them.
        let open = i64::try_from(open.count()).unwrap_or(i64::MAX) - 1;
        process.register("open_fds", "Open files and connections", ConstGauge::<i64>::new(open));
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let limit = i64::try_from(soft).unwrap_or(i64::MAX);
        process.register(
            "max_fds",
            "How many files and connections may be open",
            ConstGauge::<i64>::new(limit),
        );
    }
    let started = started_at.timestamp_micros() as f64 / 1e6;
    let gauge = ConstGauge::<f64>::new(started);
    process.register_with_unit("start_time", "When the process started, since 1970", Unit::Seconds, gauge);
}

/// A line of `/proc/self/status` in bytes.
fn kibibytes(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}
