//! Looking at what is there: `runs`, `run`, `outputs` and `targets`.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::{
    arguments::{Output, Outputs, Runs, ShowRun, Targets},
    commands::{Outcome, status_of},
    follow,
    screen::{Screen, size},
    service::{ClientError, Service, cause},
    table::{printable, table},
};

/// The longest page that the service gives.
const PAGE: u32 = 200;

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Writes a result: as JSON, or as the text that `text` makes of it.
pub(super) fn write(
    screen: &Screen,
    output: Output,
    value: &Value,
    text: impl FnOnce(&Value) -> String,
) -> Result<(), ClientError> {
    let written = match output {
        Output::Json => format!("{value}\n"),
        Output::Text => text(value),
    };
    Ok(screen.out(written.as_bytes())?)
}

pub(super) async fn runs(args: &Runs, screen: &Screen) -> Outcome {
    try_runs(args, screen).await.into()
}

async fn try_runs(args: &Runs, screen: &Screen) -> Result<Outcome, ClientError> {
    let service = Service::new(&args.asked.connection, screen.clone())?;
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let left = args.limit - u32::try_from(found.len()).unwrap_or(args.limit);
        let mut url = service.url(["runs"]);
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("limit", &left.min(PAGE).to_string());
            let filters = [
                ("experiment_name", &args.experiment),
                ("status", &args.status),
                ("compute_target", &args.target),
                ("cursor", &cursor),
            ];
            for (name, value) in filters {
                if let Some(value) = value {
                    query.append_pair(name, value);
                }
            }
            for (name, value) in &args.tags {
                query.append_pair(&format!("tag.{name}"), value);
            }
        }
        let page = service.get_json(&url).await?;
        found.extend(items(&page).iter().cloned());
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() || u32::try_from(found.len()).unwrap_or(u32::MAX) >= args.limit {
            break;
        }
    }
    let more = cursor.is_some();
    write(screen, args.asked.output, &json!({"items": found, "next_cursor": cursor}), |list| {
        let rows: Vec<_> = items(list).iter().map(row_of_run).collect();
        table(&["ID", "STATUS", "EXPERIMENT", "TARGET", "CREATED", "DURATION", "NAME"], &rows)
    })?;
    if more && args.asked.output == Output::Text {
        screen.say("There are more: ask for them with --limit.");
    }
    Ok(Outcome::Done)
}

fn row_of_run(run: &Value) -> Vec<String> {
    let duration = follow::seconds_between(&run["started_at"], &run["finished_at"]);
    vec![
        text(run, "id").to_owned(),
        text(run, "status").to_owned(),
        text(run, "experiment_name").to_owned(),
        text(run, "compute_target").to_owned(),
        text(run, "created_at").chars().take(19).collect(),
        duration.map_or_else(String::new, |seconds| format!("{seconds:.1} s")),
        text(run, "display_name").to_owned(),
    ]
}

pub(super) async fn run(args: &ShowRun, screen: &Screen, interrupted: impl Future<Output = ()>) -> Outcome {
    try_run(args, screen, interrupted).await.into()
}

async fn try_run(
    args: &ShowRun,
    screen: &Screen,
    interrupted: impl Future<Output = ()>,
) -> Result<Outcome, ClientError> {
    let service = Service::new(&args.asked.connection, screen.clone())?;
    let run = if args.wait {
        tokio::select! {
            run = follow::until_over(&service, screen, &args.run) => run?,
            () = interrupted => return Ok(Outcome::Interrupted),
        }
    } else {
        service.get_json(&service.url(["runs", &args.run])).await?
    };
    write(screen, args.asked.output, &run, described)?;
    if args.wait { status_of(&run).map(Outcome::Ended) } else { Ok(Outcome::Done) }
}

/// What a person wants to know of a run.
fn described(run: &Value) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            lines.push(format!("{name:<12}{}", printable(value)));
        }
    };
    line("run", text(run, "id"));
    line("status", text(run, "status"));
    line("cause", text(run, "cause"));
    line("detail", text(run, "detail"));
    for blocked in run["blocked_by"].as_array().into_iter().flatten() {
        line("waits for", text(blocked, "detail"));
        line("", text(blocked, "unblocked_by"));
    }
    line("experiment", text(run, "experiment_name"));
    line("name", text(run, "display_name"));
    line("target", text(run, "compute_target"));
    for (name, value) in run["tags"].as_object().into_iter().flatten() {
        line("tag", &format!("{name}={}", value.as_str().unwrap_or_default()));
    }
    for (name, member) in [("created", "created_at"), ("started", "started_at"), ("finished", "finished_at")]
    {
        line(name, text(run, member));
    }
    for member in ["exit_code", "signal"] {
        if let Some(number) = run[member].as_i64() {
            line(member, &number.to_string());
        }
    }
    for attempt in run["attempts"].as_array().into_iter().flatten() {
        let number = attempt["number"].as_u64().unwrap_or(0);
        let how = match (text(attempt, "cause"), text(attempt, "finished_at")) {
            ("", "") => "under way",
            ("", _) => "ended",
            (cause, _) => cause,
        };
        let place = attempt["host"].as_str().unwrap_or("the cluster");
        line("attempt", &format!("{number} on {place}: {how}"));
    }
    if let Some(evidence) = run["cancellation"]["evidence"].as_str() {
        line("canceled", evidence);
    }
    lines.join("\n") + "\n"
}

pub(super) async fn outputs(args: &Outputs, screen: &Screen) -> Outcome {
    try_outputs(args, screen).await.into()
}

async fn try_outputs(args: &Outputs, screen: &Screen) -> Result<Outcome, ClientError> {
    let service = Service::new(&args.asked.connection, screen.clone())?;
    let list = service.get_json(&service.url(["runs", &args.run, "outputs"])).await?;
    let wanted: Vec<Value> = items(&list)
        .iter()
        .filter(|item| args.paths.is_empty() || args.paths.iter().any(|path| path == text(item, "path")))
        .cloned()
        .collect();
    let found: BTreeSet<&str> = wanted.iter().map(|item| text(item, "path")).collect();
    if let Some(missing) = args.paths.iter().find(|path| !found.contains(path.as_str())) {
        return Err(ClientError::NoOutput { run: args.run.clone(), path: missing.clone() });
    }
    if let Some(directory) = &args.download {
        for item in &wanted {
            download(&service, &args.run, item, directory).await?;
        }
        screen.say(format!("{} files are in {}.", wanted.len(), directory.display()));
    }
    write(screen, args.asked.output, &json!({"items": wanted}), |list| {
        let row = |item: &Value| {
            vec![
                text(item, "path").to_owned(),
                size(item["bytes"].as_u64().unwrap_or(0)),
                text(item, "sha256").to_owned(),
            ]
        };
        table(&["PATH", "SIZE", "SHA-256"], &items(list).iter().map(row).collect::<Vec<_>>())
    })?;
    Ok(Outcome::Done)
}

/// Downloads a file beside its place, and puts it there when it is whole and what the service says that it is.
async fn download(service: &Service, run: &str, item: &Value, directory: &Path) -> Result<(), ClientError> {
    let path = text(item, "path");
    let place = directory.join(below(path)?);
    if let Some(parent) = place.parent() {
        tokio::fs::create_dir_all(parent).await?;
    }
    let mut url = service.url(["runs", run, "outputs"].into_iter().chain(path.split('/')));
    url.query_pairs_mut().append_pair("attempt", &item["attempt"].as_u64().unwrap_or(1).to_string());
    let mut response = service.send(|| service.get(url.clone())).await?;
    let part = tempfile::NamedTempFile::new_in(place.parent().unwrap_or(directory))?;
    let mut file = tokio::fs::File::from_std(part.reopen()?);
    let mut digest = Sha256::new();
    while let Some(bytes) = response.chunk().await.map_err(|error| ClientError::Answer(cause(&error)))? {
        digest.update(&bytes);
        file.write_all(&bytes).await?;
    }
    file.flush().await?;
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if digest != text(item, "sha256") {
        let detail =
            format!("`{path}` arrived with the digest {digest}, and should have {}", text(item, "sha256"));
        return Err(ClientError::Answer(detail));
    }
    part.persist(&place).map_err(|error| error.error)?;
    Ok(())
}

/// Where a file goes, below the directory: a name that leads out of it is no name of an output.
fn below(path: &str) -> Result<PathBuf, ClientError> {
    let relative = Path::new(path);
    let is_plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if is_plain && !path.is_empty() {
        return Ok(relative.to_owned());
    }
    Err(ClientError::Answer(format!(
        "it names an output `{}`, which leads out of the directory",
        printable(path)
    )))
}

pub(super) async fn targets(args: &Targets, screen: &Screen) -> Outcome {
    try_targets(args, screen).await.into()
}

async fn try_targets(args: &Targets, screen: &Screen) -> Result<Outcome, ClientError> {
    let service = Service::new(&args.asked.connection, screen.clone())?;
    let list = service.get_json(&service.url(["compute-targets"])).await?;
    write(screen, args.asked.output, &list, |list| {
        let row = |target: &Value| {
            let health = match target["health"]["reachable"].as_bool() {
                Some(true) => "reachable".to_owned(),
                Some(false) => format!("unreachable: {}", text(&target["health"], "detail")),
                None => "not looked at yet".to_owned(),
            };
            vec![
                text(target, "name").to_owned(),
                text(target, "type").to_owned(),
                text(&target["backend"], "kind").to_owned(),
                target["max_nodes"].as_u64().unwrap_or(0).to_string(),
                target["gpus_per_node"].as_u64().unwrap_or(0).to_string(),
                health,
            ]
        };
        let rows: Vec<_> = items(list).iter().map(row).collect();
        table(&["NAME", "TYPE", "BACKEND", "NODES", "GPUS/NODE", "HEALTH"], &rows)
    })?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_output_is_written_outside_the_directory() {
        assert_eq!(below("models/a b.npz").expect("below"), Path::new("models/a b.npz"));
        for outside in ["", "../x", "a/../../x", "/etc/passwd", "./../x"] {
            assert!(below(outside).is_err(), "{outside}");
        }
    }
}
