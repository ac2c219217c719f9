//! What a node has to have.

use super::Subject;
use crate::domain::framework;

/// The resources of one node, as far as they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resources {
    /// CPUs and MiB of memory: of a one-off target, whose size is in the table.
    pub(super) size: Option<(u32, u32)>,
    /// GPUs; 0 where none are asked for.
    pub(super) gpus: u32,
}

/// What the nodes of a run have to have.
pub(super) fn resources(subject: &Subject<'_>) -> Resources {
    let one_off = subject.plan.one_off_target.as_ref().and_then(|target| framework::vm_size(&target.vm_size));
    // A plan of an earlier version has no number.
    let gpus = if subject.plan.use_gpu { subject.plan.gpus_per_node.max(1) } else { 0 };
    Resources { size: one_off.map(|size| (size.vcpus, size.memory_mib)), gpus }
}

/// A name made of the entry script's: letters and digits in lower case with single `-` between them, never empty.
pub(super) fn name_of_script(entry_script: &str, longest: usize) -> String {
    let file = entry_script.rsplit('/').next().unwrap_or(entry_script);
    let stem = file.strip_suffix(".py").unwrap_or(file);
    let mut name = String::new();
    for c in stem.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(longest);
    let name = name.trim_end_matches('-');
    if name.is_empty() { "run".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::name_of_script;

    #[test]
    fn names_are_harmless() {
        for (script, name) in [
            ("sub/Train_Model.py", "train-model"),
            ("-x %j $(id).py", "x-j-id"),
            ("é.py", "run"),
            ("abcdefgh-i.py", "abcdefgh"),
        ] {
            assert_eq!(name_of_script(script, 9), name.get(..9).unwrap_or(name), "{script}");
        }
    }
}
