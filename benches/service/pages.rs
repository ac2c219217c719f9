//! Whether a page costs the same however many runs there are.

use std::{sync::Arc, time::Duration};

use crate::{
    context::Context,
    database::Database,
    figure::{Figure, Goal, Outcome},
    http::Call,
    load::{self, Calls},
    many_runs,
    read::middle,
    rounds::in_turn,
    service::Service,
};

/// As few as have a full page of everything that is compared.
const FEW: u64 = 1000;

/// Which pages are compared; none of them is filtered so that a thousand runs do not fill it.
const COMPARED: [(&str, &str); 4] = [
    ("the first page", ""),
    ("a frequent status", "status=Completed"),
    ("a frequent tag", "tag.team=vision"),
    ("a target", "compute_target=gpu"),
];

/// One connection, so that nothing is measured but the answer.
///
/// # Errors
/// When a side does not work.
pub fn measure(
    context: &Context,
    database: &Database,
    many: &Service,
    runs: u64,
) -> anyhow::Result<Vec<Figure>> {
    let (rounds, duration) =
        if context.short { (2, Duration::from_millis(250)) } else { (7, Duration::from_secs(1)) };
    many_runs::create(context, database, "few", FEW)?;
    let few = Service::start(context, "few", &database.url("few"), &["--role", "api"])?;
    let mut compared: Vec<(&str, String, String)> =
        COMPARED.iter().map(|(what, query)| (*what, (*query).to_owned(), (*query).to_owned())).collect();
    compared.push(("a page in the middle", middle(many, "", runs)?, middle(&few, "", FEW)?));
    compared.truncate(if context.short { 2 } else { compared.len() });
    let mut figures = Vec::new();
    for (what, query, query_of_few) in compared {
        let calls = |query: &str| anyhow::Ok::<Calls>(Arc::from([Call::get(&format!("/v1/runs?{query}"))?]));
        let (of_many, of_few) = (calls(&query)?, calls(&query_of_few)?);
        let (ours, fewer) = in_turn(
            rounds,
            || load::closed(many.address(), &of_many, 1, duration),
            || load::closed(few.address(), &of_few, 1, duration),
        )?;
        figures.push(Figure {
            what: format!("a page of 50 of {runs} runs, {what}, one connection"),
            ours: ours.to_string(),
            peer: format!("the same page of {FEW} runs: {fewer}"),
            outcomes: vec![Outcome {
                of: "p50",
                value: ours.percentile(0.5) / fewer.percentile(0.5),
                unit: "×",
                goal: Goal::AtMost(1.2),
                floor: None,
            }],
        });
    }
    Ok(figures)
}
