//! What stands for a size of Azure's virtual machines on a cluster: the operator's table, and behind it the one of this service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{framework, plan::Plan};

/// What a job asks of each node in place of a size. What is absent is taken from Azure's size where a target is made for one
/// run, and is not asked for where a registered target has the size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct NodeSize {
    /// Cores of each node.
    #[schema(minimum = 1, maximum = 65536)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Memory of each node in MiB.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// GPUs of each node, for definitions that ask for GPUs.
    #[schema(minimum = 0, maximum = 1024)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// Features that a node must have: `--constraint`.
    #[schema(example = "skylake")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraint: Option<String>,
    /// The labels of such nodes, on Kubernetes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    pub node_selector: BTreeMap<String, String>,
}

impl NodeSize {
    /// The same, with what is absent taken from another.
    fn or(self, other: Self) -> Self {
        Self {
            cores: self.cores.or(other.cores),
            memory_mib: self.memory_mib.or(other.memory_mib),
            gpus: self.gpus.or(other.gpus),
            constraint: self.constraint.or(other.constraint),
            node_selector: if self.node_selector.is_empty() {
                other.node_selector
            } else {
                self.node_selector
            },
        }
    }
}

/// An operator's sizes by their names, which are compared in any case of letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct NodeSizes(BTreeMap<String, NodeSize>);

impl NodeSizes {
    /// Whether the operator said nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The operator's entry for a size.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&NodeSize> {
        let mut sizes = self.0.iter();
        sizes.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, size)| size)
    }

    /// The names, as the operator wrote them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What stands for a size that a definition asks for: the operator's entry, completed by Azure's table; none when the size is in
    /// neither.
    #[must_use]
    pub fn standing_for(&self, name: &str) -> Option<NodeSize> {
        let azure = framework::vm_size(name).map(|size| NodeSize {
            cores: Some(size.vcpus),
            memory_mib: Some(size.memory_mib),
            gpus: Some(size.gpus),
            constraint: None,
            node_selector: BTreeMap::new(),
        });
        match (self.get(name).cloned(), azure) {
            (Some(own), azure) => Some(own.or(azure.unwrap_or_default())),
            (None, azure) => azure,
        }
    }
}

impl NodeSizes {
    /// What a run asks of each of its nodes: what stands for the size of a target that is made for it, or the operator's entry for the
    /// size that a registered target says it has.
    #[must_use]
    pub fn asked_by(&self, plan: &Plan) -> NodeSize {
        let size = match (&plan.one_off_target, &plan.target_nodes) {
            (Some(one_off), _) => self.standing_for(&one_off.vm_size),
            (None, Some(nodes)) => nodes.vm_size.as_deref().and_then(|name| self.get(name)).cloned(),
            (None, None) => None,
        };
        size.unwrap_or_default()
    }
}

impl FromIterator<(String, NodeSize)> for NodeSizes {
    fn from_iter<I: IntoIterator<Item = (String, NodeSize)>>(sizes: I) -> Self {
        Self(sizes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> NodeSizes {
        let own = NodeSize { cores: Some(4), constraint: Some("fast".to_owned()), ..NodeSize::default() };
        [("Standard_D2_v2".to_owned(), own), ("lab-big".to_owned(), NodeSize::default())]
            .into_iter()
            .collect()
    }

    #[test]
    fn the_operators_entry_wins_and_azures_completes_it() {
        let size = sizes().standing_for("STANDARD_D2_V2").unwrap();
        let expected = NodeSize {
            cores: Some(4),
            memory_mib: Some(7168),
            gpus: Some(0),
            constraint: Some("fast".to_owned()),
            node_selector: BTreeMap::new(),
        };
        assert_eq!(size, expected);
        assert_eq!(NodeSizes::default().standing_for("standard_nc6").unwrap().gpus, Some(1));
    }

    #[test]
    fn a_size_may_be_the_operators_alone_or_unknown() {
        assert_eq!(sizes().standing_for("LAB-BIG"), Some(NodeSize::default()));
        assert_eq!(sizes().standing_for("huge"), None);
    }
}
