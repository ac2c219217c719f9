//! Where the documentation and the last SDK disagree, and what this service does.

use serde::Serialize;
use utoipa::ToSchema;

/// One disagreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Disagreement {
    /// What it is about.
    #[schema(example = "distributed jobs")]
    pub about: &'static str,
    /// What the documentation says, paraphrased.
    pub documentation: &'static str,
    /// What the last SDK (azureml-train-core 1.62.0) does.
    pub sdk: &'static str,
    /// What this service does.
    pub here: &'static str,
}

const fn entry(
    about: &'static str,
    documentation: &'static str,
    sdk: &'static str,
    here: &'static str,
) -> Disagreement {
    Disagreement { about, documentation, sdk, here }
}

/// All of them.
pub static DISAGREEMENTS: &[Disagreement] = &[
    entry(
        "distributed jobs",
        "More than one node or process starts an MPI job.",
        "It refuses such a definition unless MPI is stated.",
        "Refused unless MPI is stated (`distributed-requires-mpi`).",
    ),
    entry(
        "stating the backend",
        "The backend parameter is required for more than one node or process.",
        "The training object alone is enough, even one that means nothing.",
        "Either is enough; values that mean nothing are refused.",
    ),
    entry(
        "where distributed jobs run",
        "Both counts above 1 are supported on AmlCompute only.",
        "Only the node count is tied to a type of target; Kubernetes is allowed, targets given by name are refused.",
        "As documented; names are looked up (`distributed-requires-amlcompute`).",
    ),
    entry(
        "required parameters",
        "Translated pages label every parameter as required.",
        "It asks for the source directory, and for a target or a size.",
        "As the SDK, and for an entry script: without one there is nothing to run.",
    ),
    entry(
        "priority",
        "Two values, of which dedicated is the default.",
        "It stays null and takes any text.",
        "As documented.",
    ),
    entry(
        "the old image parameter",
        "It names the image.",
        "It has no effect.",
        "It names the image unless the new one is given or an environment is.",
    ),
    entry(
        "precedence of an environment",
        "It takes precedence over other parameters.",
        "It clashes with them.",
        "A clash is an error; precedence holds over the two parameters that cannot clash.",
    ),
    entry("shared memory", "Its size has a default.", "It is sent as null.", "2g by default."),
    entry(
        "paths",
        "Files are given relative to the source directory.",
        "Absolute paths and paths that lead out of it pass.",
        "As documented; for safety they are refused.",
    ),
    entry(
        "a python pin in the conda packages",
        "The packages are added to the environment.",
        "The pin is replaced by 3.6.2.",
        "The pin holds.",
    ),
    entry(
        "validation",
        "It is switched off by default.",
        "When switched on it cannot refuse anything.",
        "It is always on.",
    ),
    entry(
        "horovod and mpi4py",
        "The image has horovod and no mpi4py.",
        "The build asks for mpi4py and not for horovod.",
        "mpi4py always; horovod only where the image brings it.",
    ),
    entry(
        "the MPI implementation",
        "Intel MPI.",
        "The word for the communicator depends on how MPI was spelled.",
        "One way to start MPI for each backend.",
    ),
    entry(
        "types and formats",
        "They are stated.",
        "Sizes, priorities, durations, variables and names are hardly checked.",
        "They are checked.",
    ),
    entry(
        "repeated names",
        "Nothing is said about them.",
        "The later one wins silently.",
        "They are refused.",
    ),
];

#[cfg(test)]
mod tests {
    use super::DISAGREEMENTS;

    #[test]
    fn every_one_says_all_three() {
        assert_eq!(DISAGREEMENTS.len(), 15);
        for entry in DISAGREEMENTS {
            assert!(!entry.about.is_empty() && !entry.documentation.is_empty());
            assert!(!entry.sdk.is_empty() && !entry.here.is_empty());
        }
    }
}
