//! `submit`, `logs` and `cancel`, without the process around them.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path, sync::Arc, time::Duration};

use futures_util::stream;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::{Body, header};
use serde_json::{Value, json};

use super::{
    Cancel, Logs, Submit,
    definition::{Definition, experiment_name},
    follow, look,
    pack::PackingList,
    problem::short_finding,
    screen::{Screen, size},
    service::{ClientError, Service, cause},
};
use crate::domain::run::Status;

/// A request that changes something is sent again when it was not answered in this time.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What came of a command.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It did what it should.
    Done,
    /// A run was followed to its end.
    Ended(Status),
    /// A definition was judged, and is refused; the findings were written out.
    Refused,
    /// Ctrl-C.
    Interrupted,
    /// It could not.
    Failed(ClientError),
}

impl Outcome {
    /// The exit code; what went wrong is said on the way.
    pub(super) fn code(&self, screen: &Screen) -> u8 {
        match self {
            Self::Done | Self::Ended(Status::Completed) => 0,
            Self::Refused => 2,
            Self::Ended(Status::Canceled) => 3,
            Self::Ended(_) => 1,
            Self::Interrupted => 130,
            // Whoever read it has enough.
            Self::Failed(ClientError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Failed(error) => {
                screen.say(format!("error: {error}"));
                match error {
                    ClientError::Definition(_) | ClientError::Pack(_) => 2,
                    ClientError::Problem(problem) if matches!(problem.status, 400 | 413 | 415 | 422) => 2,
                    _ => 4,
                }
            }
        }
    }
}

impl From<Result<Self, ClientError>> for Outcome {
    fn from(result: Result<Self, ClientError>) -> Self {
        result.unwrap_or_else(Self::Failed)
    }
}

pub(super) async fn submit(args: &Submit, screen: &Screen, interrupted: impl Future<Output = ()>) -> Outcome {
    try_submit(args, screen, interrupted).await.into()
}

async fn try_submit(
    args: &Submit,
    screen: &Screen,
    interrupted: impl Future<Output = ()>,
) -> Result<Outcome, ClientError> {
    let service = Service::new(&args.connection, screen.clone())?;
    let mut definition = Definition::read(&args.definition)?;
    let snapshot = upload(&service, screen, &args.source).await?;
    if let Some(replaced) = definition.set_source_directory(&snapshot, &args.source) {
        let source = args.source.display();
        screen.say(format!("The definition's source_directory `{replaced}` is replaced by {source}."));
    }
    let experiment = args.experiment.clone().unwrap_or_else(|| experiment_name(&args.source));
    let run = create_run(&service, &experiment, definition).await?;
    let id = id_of(&run)?;
    tell_findings(&service, screen, &run).await;
    if !args.follow {
        look::write(screen, args.output, &run, |_| format!("{id}\n"))?;
        return Ok(Outcome::Done);
    }
    screen.say(format!("Run {id} in experiment {experiment}"));
    to_the_end(&service, screen, &id, None, interrupted).await
}

/// Packs and uploads the source directory and gives back the snapshot's id.
pub(super) async fn upload(service: &Service, screen: &Screen, source: &Path) -> Result<String, ClientError> {
    let list = {
        let source = source.to_owned();
        blocking(move || PackingList::of(&source)).await?
    };
    let (files, bytes) = (list.files.len(), list.bytes());
    let obeyed = list.ignore_file.map(|name| format!(", without what {name} names")).unwrap_or_default();
    screen.say(format!("Uploading {}: {files} files, {}{obeyed}", source.display(), size(bytes)));
    let bar = progress(screen, bytes, "packing");
    let (archive, length) = {
        let bar = bar.clone();
        blocking(move || list.pack(|packed| bar.set_position(packed))).await?
    };
    bar.finish_and_clear();
    let bar = progress(screen, length, "uploading");
    let archive = Arc::new(archive);
    let request = || {
        // From the start again, when an earlier try did not get through.
        let request = service.post(service.url(["snapshots"]));
        let request =
            request.header(header::CONTENT_TYPE, "application/gzip").header(header::CONTENT_LENGTH, length);
        request.body(bytes_of(&archive, &bar))
    };
    let response = service.send(request).await?;
    bar.finish_and_clear();
    let snapshot: Value = response.json().await.map_err(|error| ClientError::Answer(error.to_string()))?;
    id_of(&snapshot)
}

/// The archive as a body. Every body reads by a position of its own, so that a second try begins at the start.
fn bytes_of(archive: &Arc<File>, bar: &ProgressBar) -> Body {
    let bar = bar.clone();
    bar.set_position(0);
    let pieces = stream::try_unfold((Arc::clone(archive), 0_u64), move |(archive, position)| {
        let bar = bar.clone();
        async move {
            let (piece, archive) = blocking(move || {
                let mut piece = vec![0; 1 << 16];
                let count = archive.read_at(&mut piece, position)?;
                piece.truncate(count);
                Ok::<_, io::Error>((piece, archive))
            })
            .await?;
            let position = position + piece.len() as u64;
            bar.set_position(position);
            Ok::<_, io::Error>((!piece.is_empty()).then_some((piece, (archive, position))))
        }
    });
    Body::wrap_stream(pieces)
}

/// A bar where a person watches, nothing elsewhere.
fn progress(screen: &Screen, bytes: u64, what: &'static str) -> ProgressBar {
    if !screen.interactive {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg:9} {bar:40} {bytes}/{total_bytes} {eta}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(what)
}

/// Creates the run. The key makes a repeated request the same one to the service.
async fn create_run(
    service: &Service,
    experiment: &str,
    definition: Definition,
) -> Result<Value, ClientError> {
    let key = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
    let body = json!({"experiment_name": experiment, "estimator": definition.into_value()}).to_string();
    let request = || {
        let request = service.post(service.url(["runs"]));
        let request =
            request.header(header::CONTENT_TYPE, "application/json").header("Idempotency-Key", &key);
        request.timeout(ANSWER_WITHIN).body(body.clone())
    };
    let response = service.send(request).await?;
    let body = response.bytes().await.map_err(|error| ClientError::Answer(cause(&error)))?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Answer(error.to_string()))
}

/// Warnings and notes about an accepted definition. They stand with the stored estimator.
async fn tell_findings(service: &Service, screen: &Screen, run: &Value) {
    let mut findings = run["findings"].as_array().cloned();
    if let (None, Some(estimator)) = (&findings, run["estimator_id"].as_str()) {
        // The run was created: what cannot be shown now can be looked up later.
        let estimator = service.get_json(&service.url(["estimators", estimator])).await.unwrap_or_default();
        findings = estimator["findings"].as_array().cloned();
    }
    for finding in findings.unwrap_or_default() {
        screen.say(short_finding(&finding));
    }
}

fn id_of(answer: &Value) -> Result<String, ClientError> {
    let id = answer["id"].as_str().map(str::to_owned);
    id.ok_or_else(|| ClientError::Answer("it has no id".to_owned()))
}

/// Follows a run until it is over or somebody presses Ctrl-C.
async fn to_the_end(
    service: &Service,
    screen: &Screen,
    id: &str,
    path: Option<&str>,
    interrupted: impl Future<Output = ()>,
) -> Result<Outcome, ClientError> {
    let run = tokio::select! {
        run = follow::follow(service, screen, id, path) => run?,
        () = interrupted => {
            screen.say(format!("\nNo longer following. Run {id} goes on; `estimatord cancel {id}` ends it."));
            return Ok(Outcome::Interrupted);
        }
    };
    follow::summary(service, screen, &run).await;
    status_of(&run).map(Outcome::Ended)
}

pub(super) fn status_of(run: &Value) -> Result<Status, ClientError> {
    let status = run["status"].as_str().and_then(|word| word.parse().ok());
    status.ok_or_else(|| ClientError::Answer(format!("it has the status {}", run["status"])))
}

pub(super) async fn logs(args: &Logs, screen: &Screen, interrupted: impl Future<Output = ()>) -> Outcome {
    try_logs(args, screen, interrupted).await.into()
}

async fn try_logs(
    args: &Logs,
    screen: &Screen,
    interrupted: impl Future<Output = ()>,
) -> Result<Outcome, ClientError> {
    let service = Service::new(&args.connection, screen.clone())?;
    if args.follow {
        return to_the_end(&service, screen, &args.run, args.path.as_deref(), interrupted).await;
    }
    let list = service.get_json(&service.url(["runs", &args.run, "logs"])).await?;
    let wanted = follow::wanted(&list, args.path.as_deref());
    if wanted.is_empty() {
        let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let paths: Vec<_> = items.iter().filter_map(|item| item["path"].as_str()).collect();
        let there = if paths.is_empty() { "none".to_owned() } else { paths.join(", ") };
        let status = list["run_status"].as_str().unwrap_or("unknown");
        screen.say(format!("There is no such log yet. Logs: {there}; the run is {status}."));
    }
    for (path, _) in wanted {
        follow::print(&service, screen, &args.run, &path, args.path.is_none()).await?;
    }
    Ok(Outcome::Done)
}

pub(super) async fn cancel(args: &Cancel, screen: &Screen, interrupted: impl Future<Output = ()>) -> Outcome {
    try_cancel(args, screen, interrupted).await.into()
}

async fn try_cancel(
    args: &Cancel,
    screen: &Screen,
    interrupted: impl Future<Output = ()>,
) -> Result<Outcome, ClientError> {
    let service = Service::new(&args.connection, screen.clone())?;
    let url = service.url(["runs", &args.run, "cancel"]);
    let response = service.send(|| service.post(url.clone()).timeout(ANSWER_WITHIN)).await?;
    let run: Value = response.json().await.map_err(|error| ClientError::Answer(cause(&error)))?;
    let status = status_of(&run)?;
    if !args.wait || status.is_terminal() {
        screen.say(format!("Run {} is {status}.", args.run));
        look::write(screen, args.output, &run, |_| String::new())?;
        return Ok(Outcome::Done);
    }
    let run = tokio::select! {
        run = follow::until_over(&service, screen, &args.run) => run?,
        () = interrupted => return Ok(Outcome::Interrupted),
    };
    look::write(screen, args.output, &run, |_| String::new())?;
    // Being canceled is what was asked for, so that it is no failure here.
    match status_of(&run)? {
        Status::Canceled => Ok(Outcome::Done),
        other => Ok(Outcome::Ended(other)),
    }
}

/// Runs blocking work on a thread of its own; a panic in it goes on in the caller.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only a runtime that ends drops such work, and then nobody waits for it.
        Err(_) => std::future::pending().await,
    }
}
