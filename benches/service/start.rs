//! From the answer to the start of the script, on a service that has nothing else to do.

use std::time::Duration;

use crate::{
    context::Context,
    figure::{Figure, Goal, Outcome},
    latencies::{Latencies, milliseconds},
    script_starts::ScriptStarts,
};

/// What the row is called.
pub const NAME: &str = "start";

/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a script through the service and by hand, in turn.
///
/// # Errors
/// When anything that is needed fails.
pub fn measure(context: &Context) -> anyhow::Result<Vec<Figure>> {
    let starts = if context.short { 5 } else { 100 };
    let mut stage = ScriptStarts::prepare(context, NAME)?;
    let call = stage.scripted().user_managed()?;
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    // What only a first one has to do is left out.
    for start in 0..=starts {
        let through = stage.through_the_service(&call, PATIENCE)?.map_err(anyhow::Error::msg)?;
        let hand = stage.by_hand()?;
        if start > 0 {
            ours.push(through);
            by_hand.push(hand);
        }
    }
    let (ours, by_hand) = (Latencies::from(ours), Latencies::from(by_hand));
    let at = |latencies: &Latencies, share| milliseconds(latencies.at(share));
    // Without a floor: what is broken where it is short shows in ratios, and never in seconds.
    let more = |of, share, goal| Outcome {
        of,
        value: at(&ours, share) - at(&by_hand, share),
        unit: "ms more",
        goal: Goal::AtMost(goal),
        floor: None,
    };
    let both = |latencies| format!("p50 {:.1} ms, p99 {:.1} ms", at(latencies, 0.5), at(latencies, 0.99));
    Ok(vec![Figure {
        what: format!("from the 201 to the first statement of the script, {starts} times"),
        ours: both(&ours),
        peer: format!("`python3 script` by hand: {}", both(&by_hand)),
        outcomes: vec![more("p50", 0.5, 10.0), more("p99", 0.99, 50.0)],
    }])
}
