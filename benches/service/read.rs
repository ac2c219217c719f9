//! Reading runs where there are a million: one, and pages of lists with filters, beside the same statements in `pgbench`.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use rand::RngExt as _;
use serde_json::{Value, json};

use crate::{
    captured,
    context::Context,
    database::Database,
    figure::{Figure, Goal, Outcome},
    http::Call,
    load::{self, Calls},
    many_runs::{self, LIVE},
    pages,
    pgbench::Pgbench,
    rounds::in_turn,
    service::Service,
};

/// What the row is called.
pub const NAME: &str = "read";

const CONNECTIONS: usize = 8;

/// How many different runs are asked for.
const DIFFERENT: usize = 5000;

/// Lists with a filter each, and with several.
const FILTERED: [(&str, &str); 9] = [
    ("a frequent status", "status=Completed"),
    ("a rare status", "status=Running"),
    ("an experiment", "experiment_name=experiment-7"),
    ("an experiment and a rare status", "experiment_name=experiment-7&status=Failed"),
    ("a target", "compute_target=batch"),
    ("a frequent tag", "tag.team=vision"),
    ("a rare tag", "tag.owner=ada"),
    (
        "an experiment, a target and a tag",
        "experiment_name=experiment-20&compute_target=local&tag.team=vision",
    ),
    ("a time", "created_after=2024-01-01T12:00:00Z"),
];

/// In the short form.
const FEW: usize = 1;

/// Reads, each beside its peer; then pages beside those of a database with a thousand runs.
///
/// # Errors
/// When a side does not work.
pub fn measure(context: &Context) -> anyhow::Result<Vec<Figure>> {
    let runs = if context.short { 20_000 } else { 1_000_000 };
    let database = Database::start(context)?;
    many_runs::create(context, &database, "many", runs)?;
    let service = Service::start(context, "many", &database.url("many"), &["--role", "api"])?;
    let reading = Reading { context, database: &database, service: &service, runs };
    let mut figures = vec![reading.one()?, reading.list("the first page", "")?];
    if !context.short {
        figures.push(reading.list("a page in the middle", &middle(&service, "", runs)?)?);
    }
    for (what, filter) in &FILTERED[..if context.short { FEW } else { FILTERED.len() }] {
        figures.push(reading.list(&format!("filtered by {what}, `{filter}`"), filter)?);
    }
    figures.extend(pages::measure(context, &database, &service, runs)?);
    Ok(figures)
}

/// The query of a page in the middle of a list: that of the second page, with another place in its cursor.
///
/// # Errors
/// When there is no second page.
pub fn middle(service: &Service, filter: &str, runs: u64) -> anyhow::Result<String> {
    let first = service.ask_json(&Call::get(&format!("/v1/runs?{filter}"))?)?;
    let cursor = first["next_cursor"].as_str().context("there is another page")?;
    let mut cursor: Value = serde_json::from_slice(&unhex(cursor)?)?;
    let run = service.ask_json(&Call::get(&format!("/v1/runs/{}", many_runs::id(runs / 2)))?)?;
    cursor["after"] = json!([run["created_at"], run["id"]]);
    let hexadecimal: String = cursor.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{filter}&cursor={hexadecimal}").trim_start_matches('&').to_owned())
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    ensure!(text.is_ascii() && text.len().is_multiple_of(2), "{text} is not hexadecimal");
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16);
    Ok((0..text.len()).step_by(2).map(byte).collect::<Result<_, _>>()?)
}

/// What is read of.
struct Reading<'a> {
    context: &'a Context,
    database: &'a Database,
    service: &'a Service,
    runs: u64,
}

impl Reading<'_> {
    /// `GET /v1/runs/{id}` of runs that have ended.
    fn one(&self) -> anyhow::Result<Figure> {
        let ended = self.runs - LIVE;
        let mut random = rand::rng();
        let paths = (0..DIFFERENT)
            .map(|_| Call::get(&format!("/v1/runs/{}", many_runs::id(random.random_range(1..=ended)))));
        let calls: Calls = paths.collect::<anyhow::Result<_>>()?;
        let known = many_runs::id(1);
        let statements =
            captured::statements(self.database, self.service, &Call::get(&format!("/v1/runs/{known}"))?)?;
        let (script, variables) = captured::script(&statements, |value| {
            let expression = many_runs::id_expression(":number");
            let list = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let ids: Vec<&str> = list.into_iter().flat_map(|list| list.split(',')).collect();
            // The service names one id several times.
            if !ids.is_empty() && ids.iter().all(|id| *id == known) {
                return Some(format!("array_fill({expression}, ARRAY[{}])", ids.len()));
            }
            (value == known).then_some(expression)
        })?;
        ensure!(script.contains(":number"), "the id is in none of the statements: {script}");
        let script = format!("\\set number random(1, {ended})\n{script}");
        let what = format!("`GET /v1/runs/{{id}}`, {} runs", thousands(self.runs));
        self.compare(what, &calls, &format!("{} statements", statements.len()), script, variables)
    }

    /// A page of a list.
    fn list(&self, name: &str, query: &str) -> anyhow::Result<Figure> {
        let call = Call::get(&format!("/v1/runs?{query}"))?;
        let statements = captured::statements(self.database, self.service, &call)?;
        let (script, variables) = captured::script(&statements, |_| None)?;
        let what = format!("`GET /v1/runs`, {} runs, {name}", thousands(self.runs));
        let sent = format!("{} statements", statements.len());
        self.compare(what, &Arc::from([call]), &sent, script, variables)
    }

    fn compare(
        &self,
        what: String,
        calls: &Calls,
        sent: &str,
        script: String,
        variables: Vec<(String, String)>,
    ) -> anyhow::Result<Figure> {
        let (rounds, seconds) = if self.context.short { (1, 1) } else { (3, 3) };
        let duration = Duration::from_secs(seconds);
        let directory = &self.context.directory;
        let peer = Pgbench { database: self.database, name: "many", script, variables, directory };
        let (ours, peers) = in_turn(
            rounds,
            || load::closed(self.service.address(), calls, CONNECTIONS, duration),
            || peer.run(CONNECTIONS, None, duration),
        )?;
        Ok(Figure {
            what: format!("{what}, {CONNECTIONS} connections"),
            ours: ours.to_string(),
            peer: format!("`pgbench`, the {sent} that the service sends for it: {peers}"),
            outcomes: vec![Outcome {
                of: "rate",
                value: ours.rate() / peers.rate(),
                unit: "×",
                goal: Goal::AtLeast(0.7),
                floor: Some(Goal::AtLeast(0.08)),
            }],
        })
    }
}

/// With commas, for people.
fn thousands(number: u64) -> String {
    match (number / 1_000_000, number / 1000 % 1000, number % 1000) {
        (0, 0, rest) => rest.to_string(),
        (0, thousands, rest) => format!("{thousands},{rest:03}"),
        (millions, thousands, rest) => format!("{millions},{thousands:03},{rest:03}"),
    }
}
