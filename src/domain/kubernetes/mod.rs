//! What the Kubernetes API says of an attempt, and what that means: pure. The API is asked in `backend::kubernetes`.
//!
//! One attempt is one `Job` or one `MPIJob`, whose name is made of run and attempt. It is never started again on the cluster:
//! another start is another attempt, and that is this service's to decide.

mod end;
mod log;
mod names;
mod objects;
mod observe;
mod settings;
mod submission;
mod waiting;

pub use self::{
    end::{CANNOT_START, is_worker},
    log::{LogPosition, LogReader},
    names::{
        ATTEMPT_LABEL, HAND_OVER, MANAGED_BY, PACKAGES, QUEUE_LABEL, RUN_LABEL, SCRIPT, SCRIPT_TOKEN, STAGE,
        WORKER, attempt_name_in, attempt_of, object_name, registry_secret, token_secret,
    },
    objects::{
        Condition, ContainerStatus, Event, Involved, Metadata, Pod, PodStatus, Terminated, Workload,
        WorkloadStatus, read,
    },
    observe::{Kind, Seen, SeenPod, Stop, StopReason, Verdict, judge},
    settings::{KubernetesSettings, LowPriority, Toleration},
    submission::made_for_one_run,
};
