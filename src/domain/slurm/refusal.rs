//! Telling a command that Slurm refuses from one that it could not answer.

/// What Slurm's commands say when the controller is down, slow, starting, or busy: the same command may work later.
/// (The texts of `slurm_strerror` in Slurm 22.05 to 25.05.)
const PASSING: [&str; 17] = [
    "Unable to contact slurm controller",
    "Unable to contact slurmdbd",
    "Unable to connect to database",
    "Socket timed out",
    "Communication connection failure",
    "Connection refused",
    "Connection timed out",
    "Connection reset",
    "No route to host",
    "Zero Bytes were transmitted",
    "Transport endpoint is not connected",
    "Message connect failure",
    "Message receive failure",
    "standby mode",
    "Slurm temporarily unable to accept job",
    "Resource temporarily unavailable",
    "Protocol authentication error",
];

/// Whether what a command wrote to its standard error says that asking again may help.
#[must_use]
pub fn is_passing(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    PASSING.iter().any(|text| said.contains(&text.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_is_down_is_not_a_refusal() {
        assert!(is_passing(include_str!("recorded/sbatch-controller-down.txt")));
        assert!(is_passing(include_str!("recorded/squeue-controller-down.txt")));
        assert!(!is_passing(include_str!("recorded/sbatch-refused.txt")));
        assert!(!is_passing(""));
    }
}
