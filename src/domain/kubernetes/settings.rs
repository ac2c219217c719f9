//! How a namespace of a Kubernetes cluster is used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::node_size::NodeSizes;

/// How long an attempt may wait for something on the cluster, in seconds, where the target does not say.
pub const DEFAULT_PENDING_TIMEOUT_SECONDS: u32 = 3600;

/// A toleration, as a pod has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Toleration {
    /// Of the taint; every taint when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "kubernetes.azure.com/scalesetpriority")]
    pub key: Option<String>,
    /// Of the taint; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "spot")]
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`; each when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "NoSchedule")]
    pub effect: Option<String>,
}

/// What makes pods of low priority: that they may be pre-empted, and where such nodes are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct LowPriority {
    /// Their priority class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<String>,
    /// The labels of spot nodes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    pub node_selector: BTreeMap<String, String>,
    /// For the taints of spot nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub tolerations: Vec<Toleration>,
}

/// A namespace of a Kubernetes cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct KubernetesSettings {
    /// Where jobs are made.
    #[schema(example = "estimatord-runs")]
    pub namespace: String,
    /// The absolute path, on the workers' machines, of the file that says how the cluster is reached; the account of the pod that
    /// the worker runs in when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/etc/estimatord/kubeconfig")]
    pub kubeconfig: Option<String>,
    /// The context in that file; its current one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Where the pods reach this service: they fetch source tree and data from it, and send back what the script wrote.
    #[schema(example = "http://estimatord.estimatord.svc:8080")]
    pub service_url: String,
    /// The image of this service, as the cluster pulls it: pods have `estimatord` from it.
    #[schema(example = "registry.example/estimatord:0.1.0")]
    pub service_image: String,
    /// Images in place of the documented base image, by the version of the framework.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    pub images: BTreeMap<String, String>,
    /// The queue of Kueue that jobs wait in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The account of the pods, which needs no rights; the namespace's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// A claim that several nodes can write to: installed packages are kept there, by what they are. Without it every run
    /// installs its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_claim: Option<String>,
    /// What pods ask of a node for Azure's sizes, by their names; Azure's own numbers for what is not there.
    #[serde(default, skip_serializing_if = "NodeSizes::is_empty")]
    #[schema(required = false)]
    pub vm_sizes: NodeSizes,
    /// What makes runs on targets of low priority ones that may be pre-empted. Without it no target for one run can be of low
    /// priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_priority: Option<LowPriority>,
    /// How many seconds an attempt may wait for something (nodes, an image, a quota) before it is given up; 3600 when absent. What
    /// a queue of Kueue holds back is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub pending_timeout_seconds: Option<u32>,
}

impl KubernetesSettings {
    /// How many seconds an attempt may wait for something.
    #[must_use]
    pub fn pending_timeout(&self) -> u32 {
        self.pending_timeout_seconds.unwrap_or(DEFAULT_PENDING_TIMEOUT_SECONDS)
    }
}
