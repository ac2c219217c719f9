//! Targets that are made for one run: a definition names a size and no target.

use super::{
    compute_target::{Backend, ComputeTarget, ComputeTargetType, Conda},
    framework::VmSize,
    ids::RunId,
    plan::Plan,
};

/// The target that is made for a run, where its plan asks for one: on the backend that the operator chose for such targets, with
/// as many nodes as the run has.
#[must_use]
pub fn one_off_target(run: RunId, plan: &Plan, backend: &Backend) -> Option<ComputeTarget> {
    let asked = plan.one_off_target.as_ref()?;
    // The end of a run's id is random.
    let id = run.as_uuid().simple().to_string();
    let name = format!("one-off-{}", &id[16..]).parse().ok()?;
    Some(ComputeTarget {
        name,
        kind: ComputeTargetType::AmlCompute,
        backend: backend.clone(),
        max_nodes: u32::try_from(plan.node_count).unwrap_or(u32::MAX),
        vm_size: Some(asked.vm_size.clone()),
        vm_priority: Some(asked.vm_priority.clone()),
        gpus_per_node: backend.size(&asked.vm_size).and_then(|size| size.gpus).unwrap_or(0),
        containers: plan.containers,
        conda: Conda::Auto,
        projects: Vec::new(),
    })
}

/// What a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// CPUs that the service may use.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// GPUs.
    pub gpus: u32,
}

/// What is to be said of a machine that stands for a size: an error when the run cannot be what was asked for.
///
/// # Errors
/// When GPUs are missing: a script that was promised one finds none.
pub fn stands_for(machine: Machine, size: &VmSize) -> Result<String, String> {
    if machine.gpus < size.gpus {
        return Err(format!(
            "a {} has {} GPU(s), and this machine, the only one of the default backend, has {}. Name a compute target that \
             has them, or a size without",
            size.name, size.gpus, machine.gpus
        ));
    }
    let fits = machine.cpus >= size.vcpus && machine.memory_mib >= u64::from(size.memory_mib);
    let verdict = if fits { "enough" } else { "less than asked for; the run gets what there is" };
    Ok(format!(
        "made for this run: a {} has {} vCPU and {} MiB; this machine has {} CPU and {} MiB: {verdict}",
        size.name, size.vcpus, size.memory_mib, machine.cpus, machine.memory_mib
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::framework;

    fn size(name: &str) -> &'static VmSize {
        framework::vm_size(name).unwrap()
    }

    #[test]
    fn a_machine_without_the_gpus_cannot_stand_for_the_size() {
        let machine = Machine { cpus: 64, memory_mib: 1 << 20, gpus: 0 };
        let error = stands_for(machine, size("Standard_NC6")).unwrap_err();
        assert!(error.contains("STANDARD_NC6") && error.contains("has 0"), "{error}");
        assert!(
            stands_for(Machine { gpus: 1, ..machine }, size("Standard_NC6")).unwrap().ends_with("enough")
        );
    }

    #[test]
    fn a_smaller_machine_is_said() {
        let machine = Machine { cpus: 1, memory_mib: 1 << 20, gpus: 0 };
        assert!(stands_for(machine, size("Standard_D2_v2")).unwrap().contains("less than asked for"));
    }
}
