//! The logs of the fake kubelet's containers, and how they are asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, Bytes},
    http::{Response, header},
};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use estimatord::clock::{Clock as _, SystemClock};
use futures_util::stream;
use serde_json::Value;
use tokio::sync::watch;

use super::store::{Refusal, Store, refusal, time};

/// One line, or the unfinished last one.
#[derive(Clone, Debug)]
struct Line {
    at: DateTime<Utc>,
    text: Vec<u8>,
}

#[derive(Debug, Default)]
struct Log {
    lines: Vec<Line>,
    closed: bool,
}

/// All logs, by pod and container.
#[derive(Debug)]
pub struct Logs {
    logs: Mutex<HashMap<(String, String), Log>>,
    changed: watch::Sender<u64>,
    /// Streams of an earlier epoch break off.
    pub epoch: watch::Sender<u64>,
}

impl Default for Logs {
    fn default() -> Self {
        Self { logs: Mutex::default(), changed: watch::channel(0).0, epoch: watch::channel(0).0 }
    }
}

impl Logs {
    pub fn open(&self, pod: &str, container: &str) {
        let key = (pod.to_owned(), container.to_owned());
        self.logs.lock().unwrap().entry(key).or_default();
        self.changed.send_modify(|version| *version += 1);
    }

    /// Adds a line, its end included; the last one may have none.
    pub fn line(&self, pod: &str, container: &str, text: &[u8]) {
        let key = (pod.to_owned(), container.to_owned());
        let line = Line { at: SystemClock.now(), text: text.to_vec() };
        self.logs.lock().unwrap().entry(key).or_default().lines.push(line);
        self.changed.send_modify(|version| *version += 1);
    }

    pub fn close(&self, pod: &str, container: &str) {
        let key = (pod.to_owned(), container.to_owned());
        self.logs.lock().unwrap().entry(key).or_default().closed = true;
        self.changed.send_modify(|version| *version += 1);
    }

    /// The end of a log: what `FallbackToLogsOnError` makes of it.
    pub fn tail(&self, pod: &str, container: &str) -> String {
        let logs = self.logs.lock().unwrap();
        let lines = logs.get(&(pod.to_owned(), container.to_owned())).map_or(&[][..], |log| &log.lines);
        let text: Vec<u8> = lines.iter().flat_map(|line| line.text.clone()).collect();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(2048)..]).into_owned();
        text.trim_end().to_owned()
    }

    /// Answers a request for a log (fact 3.13).
    pub fn answer(
        self: &Arc<Self>,
        store: &Store,
        pod: &str,
        query: &HashMap<String, String>,
    ) -> Result<Response<Body>, Refusal> {
        if store.get("pods", pod).is_none() {
            return Err(refusal(404, "NotFound", format!("pods \"{pod}\" not found")));
        }
        let container = query.get("container").cloned().unwrap_or_default();
        let key = (pod.to_owned(), container.clone());
        if !self.logs.lock().unwrap().contains_key(&key) {
            let message =
                format!("container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating");
            return Err(refusal(400, "BadRequest", message));
        }
        let is = |name: &str| query.get(name).is_some_and(|value| value == "true");
        // Cut to whole seconds, as a real server does it.
        let since = query.get("sinceTime").and_then(|text| time(&Value::String(text.clone())));
        let since = since.map(|at| at - TimeDelta::nanoseconds(i64::from(at.timestamp_subsec_nanos())));
        let reading = Reading {
            logs: Arc::clone(self),
            key,
            next: 0,
            since,
            timestamps: is("timestamps"),
            follow: is("follow"),
            changes: self.changed.subscribe(),
            epoch: self.epoch.subscribe(),
        };
        let pieces = stream::unfold(reading, |mut reading| async move {
            let piece = reading.next().await?;
            Some((piece, reading))
        });
        Ok(Response::builder()
            .header(header::CONTENT_TYPE, "text/plain")
            .body(Body::from_stream(pieces))
            .unwrap())
    }
}

struct Reading {
    logs: Arc<Logs>,
    key: (String, String),
    next: usize,
    since: Option<DateTime<Utc>>,
    timestamps: bool,
    follow: bool,
    changes: watch::Receiver<u64>,
    epoch: watch::Receiver<u64>,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        loop {
            self.changes.mark_unchanged();
            let (lines, closed) = {
                let logs = self.logs.logs.lock().unwrap();
                let log = logs.get(&self.key)?;
                (log.lines[self.next.min(log.lines.len())..].to_vec(), log.closed)
            };
            self.next += lines.len();
            let mut text = Vec::new();
            for line in lines.iter().filter(|line| self.since.is_none_or(|since| line.at >= since)) {
                if self.timestamps {
                    text.extend(line.at.to_rfc3339_opts(SecondsFormat::Nanos, true).into_bytes());
                    text.push(b' ');
                }
                text.extend(&line.text);
            }
            if !text.is_empty() {
                return Some(Ok(text.into()));
            }
            if closed || !self.follow {
                return None;
            }
            tokio::select! {
                _ = self.changes.changed() => {}
                _ = self.epoch.changed() => {
                    return Some(Err(std::io::Error::other("the stream breaks off")));
                }
            }
        }
    }
}
