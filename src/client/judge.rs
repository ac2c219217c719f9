//! Asking what the service thinks of a definition: `validate` and `render`.

use std::path::Path;

use reqwest::header;
use serde_json::{Value, json};

use super::{
    arguments::{Render, Validate},
    commands::{ANSWER_WITHIN, Outcome, upload},
    definition::Definition,
    look::write,
    problem::finding,
    screen::Screen,
    service::{ClientError, Service, cause},
};

/// The definition, with the uploaded directory as its source where one is given.
async fn read(
    service: &Service,
    screen: &Screen,
    path: &Path,
    source: Option<&Path>,
) -> Result<Value, ClientError> {
    let mut definition = Definition::read(path)?;
    if let Some(source) = source {
        let snapshot = upload(service, screen, source).await?;
        if let Some(replaced) = definition.set_source_directory(&snapshot, source) {
            let source = source.display();
            screen.say(format!("The definition's source_directory `{replaced}` is replaced by {source}."));
        }
    }
    Ok(definition.into_value())
}

async fn post(service: &Service, parts: [&str; 2], body: &Value) -> Result<Value, ClientError> {
    let text = body.to_string();
    let request = || {
        let request = service.post(service.url(parts)).header(header::CONTENT_TYPE, "application/json");
        request.timeout(ANSWER_WITHIN).body(text.clone())
    };
    let answer = service.send(request).await?.bytes().await;
    let answer = answer.map_err(|error| ClientError::Answer(cause(&error)))?;
    serde_json::from_slice(&answer).map_err(|error| ClientError::Answer(error.to_string()))
}

pub(super) async fn validate(args: &Validate, screen: &Screen) -> Outcome {
    try_validate(args, screen).await.into()
}

async fn try_validate(args: &Validate, screen: &Screen) -> Result<Outcome, ClientError> {
    let service = Service::new(&args.asked.connection, screen.clone())?;
    let definition = read(&service, screen, &args.definition, args.source.as_deref()).await?;
    let verdict = post(&service, ["estimators", "validate"], &definition).await?;
    let is_valid = verdict["valid"].as_bool();
    let is_valid = is_valid.ok_or_else(|| ClientError::Answer("it has no `valid`".to_owned()))?;
    write(screen, args.asked.output, &verdict, |verdict| {
        let mut text = String::new();
        for one in verdict["findings"].as_array().into_iter().flatten() {
            text.push_str(&finding(one));
            text.push('\n');
        }
        text.push_str(if is_valid { "valid\n" } else { "refused\n" });
        text
    })?;
    if !is_valid && args.source.is_none() {
        screen.say("A source_directory that is a directory here is uploaded with --source DIR.");
    }
    Ok(if is_valid { Outcome::Done } else { Outcome::Refused })
}

pub(super) async fn render(args: &Render, screen: &Screen) -> Outcome {
    try_render(args, screen).await.into()
}

async fn try_render(args: &Render, screen: &Screen) -> Result<Outcome, ClientError> {
    let service = Service::new(&args.asked.connection, screen.clone())?;
    let definition = read(&service, screen, &args.definition, args.source.as_deref()).await?;
    let body = json!({"format": args.format, "estimator": definition, "compute_target": args.target});
    let rendering = post(&service, ["estimators", "render"], &body).await?;
    for one in rendering["not_expressed"].as_array().into_iter().flatten() {
        let text = |member: &str| one[member].as_str().unwrap_or_default();
        screen.say(format!("not expressed: {} {}", text("parameter"), text("note")));
    }
    write(screen, args.asked.output, &rendering, |rendering| {
        rendering["text"].as_str().unwrap_or_default().to_owned()
    })?;
    Ok(Outcome::Done)
}
