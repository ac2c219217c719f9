//! What is shown of a run.

use estimatord::{
    domain::ids::RunId,
    storage::{Storage, shown_runs::ShownRun},
};

/// A run of the first project, which is there.
pub async fn shown(storage: &Storage, id: RunId) -> ShownRun {
    let found = storage.shown_runs(&[(Default::default(), id)]).await.expect("read");
    found.into_iter().next().flatten().expect("there")
}
