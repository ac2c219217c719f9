//! What the objects of an attempt are called, and how they are found again.

use crate::domain::ids::RunId;

/// The label with the run's id.
pub const RUN_LABEL: &str = "estimatord/run-id";
/// The label with the attempt's number.
pub const ATTEMPT_LABEL: &str = "estimatord/attempt";
/// The label that tells the objects of this service from others'.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "estimatord");
/// The label that Kueue queues an object by.
pub const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";
/// The container that runs the script, or starts its ranks.
pub const SCRIPT: &str = "script";
/// The container that fetches source tree and data.
pub const STAGE: &str = "stage";
/// The container that installs packages.
pub const PACKAGES: &str = "packages";
/// The container that sends back what the script wrote.
pub const HAND_OVER: &str = "hand-over";
/// The container in which the ranks of a node run.
pub const WORKER: &str = "worker";

/// The name of an attempt's `Job` or `MPIJob`: made of run and attempt, so that it is found again whatever was lost, and never
/// used twice. A label of DNS that begins with a letter; with what the MPI operator adds to it it stays below 63 characters.
#[must_use]
pub fn object_name(run: RunId, attempt: u32) -> String {
    format!("run-{}-a{attempt}", run.as_uuid().simple())
}

/// The key under which that secret has the script's token.
pub const SCRIPT_TOKEN: &str = "script-token";

/// The name of the secret that holds the attempt's tokens.
#[must_use]
pub fn token_secret(object: &str) -> String {
    format!("{object}-token")
}

/// The name of the secret that its image is pulled with.
#[must_use]
pub fn registry_secret(object: &str) -> String {
    format!("{object}-registry")
}

/// The run and the attempt that an object's name is made of.
#[must_use]
pub fn attempt_of(name: &str) -> Option<(RunId, u32)> {
    let (run, attempt) = name.strip_prefix("run-")?.split_once("-a")?;
    let run = uuid::Uuid::try_parse(run).ok().filter(|_| run.len() == 32)?;
    Some((RunId::from_uuid(run), attempt.parse().ok()?))
}

/// The name of the attempt's object that a name of something that belongs to it begins with.
#[must_use]
pub fn attempt_name_in(name: &str) -> Option<&str> {
    let number = name.find("-a").map(|at| at + 2)?;
    let digits = name[number..].find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len() - number);
    let attempt = &name[..number + digits];
    attempt_of(attempt).map(|_| attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_leaves_room_for_what_the_operator_adds() {
        let run = RunId::from_uuid(uuid::Uuid::max());
        let name = object_name(run, 99);
        assert_eq!(name, "run-ffffffffffffffffffffffffffffffff-a99");
        // The MPI operator makes `<name>-worker-<index>` of it, and a name of 63 characters is the longest that a pod's host name
        // can be.
        assert!(format!("{name}-worker-99999").len() <= 63);
        assert!(name.starts_with(|c: char| c.is_ascii_lowercase()));
        assert_eq!(attempt_of(&name), Some((run, 99)));
    }

    #[test]
    fn what_belongs_to_an_attempt_is_known_by_its_name() {
        let name = format!("run-{}-a12", "0".repeat(32));
        for suffix in ["", "-x7k2p", "-worker-0", "-launcher-abcde"] {
            assert_eq!(attempt_name_in(&format!("{name}{suffix}")), Some(name.as_str()));
        }
        assert_eq!(attempt_name_in("train-a1-x"), None);
    }

    #[test]
    fn what_is_no_name_of_an_attempt_is_none() {
        for name in ["run-1-a1", "train-0123", "run-ffffffffffffffffffffffffffffffff", "run--a1"] {
            assert_eq!(attempt_of(name), None, "{name}");
        }
    }
}
