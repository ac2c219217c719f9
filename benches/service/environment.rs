//! What a run waits for when its environment is there already: beside one that needs none.

use std::time::Duration;

use serde_json::json;

use crate::{
    context::Context,
    figure::{Figure, Goal, Outcome},
    latencies::{Latencies, milliseconds},
    script_starts::ScriptStarts,
};

/// What the row is called.
pub const NAME: &str = "environment";

/// How often each is started.
const STARTS: usize = 30;

/// How long a run may take whose environment is there.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long building may take.
const BUILD_PATIENCE: Duration = Duration::from_secs(1800);

/// Builds an environment, and then starts runs with it and without one in turn. Nothing in the short form: building takes minutes
/// and the network.
///
/// # Errors
/// When anything but the build fails.
pub fn measure(context: &Context) -> anyhow::Result<Vec<Figure>> {
    if context.short {
        return Ok(vec![left_out("building one takes too long for the short form")]);
    }
    let mut stage = ScriptStarts::prepare(context, NAME)?;
    let plain = stage.scripted().user_managed()?;
    let members = json!({"framework_version": "7.0.0", "pip_packages": ["scikit-learn"]});
    let managed = stage.scripted().call(&members)?;
    if let Err(why) = stage.through_the_service(&managed, BUILD_PATIENCE)? {
        return Ok(vec![left_out(&format!("it cannot be built here: {why}"))]);
    }
    let (mut hits, mut without) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        hits.push(stage.through_the_service(&managed, PATIENCE)?.map_err(anyhow::Error::msg)?);
        without.push(stage.through_the_service(&plain, PATIENCE)?.map_err(anyhow::Error::msg)?);
    }
    let middle = |all| milliseconds(Latencies::from(all).at(0.5));
    let (hit, without) = (middle(hits), middle(without));
    Ok(vec![Figure {
        what: format!("from the 201 to the script, environment built before, {STARTS} times"),
        ours: format!("p50 {hit:.1} ms"),
        peer: format!("`user_managed`: p50 {without:.1} ms"),
        outcomes: vec![Outcome {
            of: "p50",
            value: hit - without,
            unit: "ms more",
            goal: Goal::AtMost(50.0),
            floor: None,
        }],
    }])
}

fn left_out(why: &str) -> Figure {
    Figure {
        what: "from the 201 to the script, environment built before".to_owned(),
        ours: format!("not measured: {why}"),
        peer: "`user_managed`".to_owned(),
        outcomes: Vec::new(),
    }
}
