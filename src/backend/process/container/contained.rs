//! How a script in a container ended: what the container wrote down, which the runtime's program may not know.

use std::{fs, path::Path};

use super::ContainerControl;
use crate::backend::{Exit, ExitReason};

/// The exit code by which Docker and Podman say that the fault is theirs.
const RUNTIME_FAILED: i32 = 125;
/// How much of what the runtime said explains a failed start.
const EXPLAINING_LINES: usize = 5;

/// The exit of the script, from the exit of the program that started its container; none when nobody can say how the
/// script ended.
pub(in super::super) fn exit(of_program: Exit, container: &ContainerControl, log: &Path) -> Option<Exit> {
    let read = |name: &str| fs::read_to_string(container.records.join(name)).unwrap_or_default();
    let has_begun = container.records.join("started").exists();
    let said = if has_begun { String::new() } else { last_lines(log) };
    conclude(of_program, has_begun, &read("status"), &read("usage"), &said)
}

fn conclude(of_program: Exit, has_begun: bool, status: &str, usage: &str, said: &str) -> Option<Exit> {
    let number =
        |key: &str| usage.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds of processor time fit a double for 285 years"
    )]
    let cpu_seconds = number("cpu_microseconds ").map(|microseconds| microseconds as f64 / 1e6);
    let exit = Exit {
        // The runtime's program used next to nothing; that is not what is asked for.
        cpu_seconds,
        peak_memory_bytes: number("peak_memory_bytes "),
        ..of_program
    };
    if let Ok(code) = status.trim().parse() {
        return Some(Exit { exit_code: Some(code), signal: None, ..exit });
    }
    if exit.reason != ExitReason::Exited {
        return Some(exit);
    }
    match exit.exit_code {
        _ if !has_begun => {
            Some(Exit { exit_code: None, signal: None, start_error: Some(said.to_owned()), ..exit })
        }
        // The container was killed as a whole, for want of memory most likely.
        Some(code) if code != RUNTIME_FAILED => Some(exit),
        _ => None,
    }
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(EXPLAINING_LINES)..].join("; ");
    format!("the container did not start: {last}")
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn of_program(reason: ExitReason, exit_code: Option<i32>, signal: Option<i32>) -> Exit {
        Exit {
            reason,
            exit_code,
            signal,
            started_at: Some(DateTime::UNIX_EPOCH),
            finished_at: DateTime::UNIX_EPOCH,
            cpu_seconds: Some(0.01),
            peak_memory_bytes: Some(1),
            start_error: None,
            build_error: None,
            remark: None,
        }
    }

    #[test]
    fn what_the_container_wrote_counts() {
        // The program was killed, the script had ended by itself before.
        let exit = of_program(ExitReason::Exited, None, Some(9));
        let usage = "peak_memory_bytes 4096\ncpu_microseconds 1500000\n";
        let exit = conclude(exit, true, "7\n", usage, "").unwrap();
        assert_eq!((exit.exit_code, exit.signal), (Some(7), None));
        assert_eq!((exit.cpu_seconds, exit.peak_memory_bytes), (Some(1.5), Some(4096)));
    }

    #[test]
    fn a_container_that_was_killed_whole_has_its_runtime_s_exit_code() {
        let exit = conclude(of_program(ExitReason::Exited, Some(137), None), true, "", "", "").unwrap();
        assert_eq!((exit.exit_code, exit.cpu_seconds), (Some(137), None));
    }

    #[test]
    fn a_container_that_never_began_says_why() {
        let exit = of_program(ExitReason::Exited, Some(125), None);
        let exit = conclude(exit, false, "", "", "no such runtime").unwrap();
        assert_eq!((exit.exit_code, exit.start_error.as_deref()), (None, Some("no such runtime")));
    }

    #[test]
    fn when_nobody_can_say_how_it_ended_nothing_is_said() {
        for (code, signal) in [(Some(125), None), (None, Some(9))] {
            assert_eq!(conclude(of_program(ExitReason::Exited, code, signal), true, "", "", ""), None);
        }
        let stopped = of_program(ExitReason::Canceled, None, Some(9));
        assert!(conclude(stopped, true, "", "", "").is_some());
    }
}
