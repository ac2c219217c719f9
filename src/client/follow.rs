//! Following a run: its status on standard error, its logs on standard output, to the end.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chrono::DateTime;
use reqwest::{StatusCode, Url};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{
    screen::{LinePrefixer, Screen, size},
    service::{ClientError, Service, Waiting, cause},
};
use crate::domain::run::Status;

/// How long the service is asked to hold an answer until something happened. Not long: what happened between two questions
/// is told with the answer to the next one.
const HOLD_SECONDS: u64 = 2;
/// How often new log files are looked for.
const DISCOVERY: Duration = Duration::from_secs(1);
/// How long a log may stay silent after the end of its run before the rest is asked for instead.
const SILENCE: Duration = Duration::from_secs(5);

/// Whether a run in this state is over.
pub(super) fn is_over(run: &Value) -> bool {
    run["status"].as_str().and_then(|word| word.parse().ok()).is_some_and(Status::is_terminal)
}

/// What a run is told to be doing. One that waits says the first reason why.
fn doing(run: &Value) -> String {
    let status = run["status"].as_str().unwrap_or("unknown");
    match run["blocked_by"][0]["detail"].as_str() {
        Some(reason) => format!("{status}: {reason}"),
        None => status.to_owned(),
    }
}

/// Waits until the run is over and tells every change of its status, and of why it waits, on the way.
pub(super) async fn until_over(service: &Service, screen: &Screen, id: &str) -> Result<Value, ClientError> {
    let url = service.url(["runs", id]);
    let mut told = String::new();
    let mut run = service.get_json(&url).await?;
    loop {
        let doing = doing(&run);
        if doing != told {
            screen.say(&doing);
            told = doing;
        }
        if is_over(&run) {
            return Ok(run);
        }
        let asked = Instant::now();
        let prefer = format!("wait={HOLD_SECONDS}");
        let next = service.get_json_with(&url, |request| request.header("Prefer", &prefer)).await?;
        let is_same = next["status"] == run["status"];
        run = next;
        // A service that does not hold answers must not be asked without pause.
        if is_same && asked.elapsed() < DISCOVERY {
            tokio::time::sleep(DISCOVERY).await;
        }
    }
}

/// Follows status and logs until the run is over and all logs were written out. `path` is the one log to
/// follow; without it, the standard output of every rank is.
pub(super) async fn follow(
    service: &Service,
    screen: &Screen,
    id: &str,
    path: Option<&str>,
) -> Result<Value, ClientError> {
    let (over, is_over) = watch::channel(false);
    let status = async {
        let run = until_over(service, screen, id).await;
        let _ = over.send(true);
        run
    };
    let logs = logs(service, screen, id, path, is_over);
    let (run, ()) = tokio::try_join!(status, logs)?;
    Ok(run)
}

/// Whether a log is the standard output of a process, and of which rank if there are several.
fn rank(path: &str) -> Option<Option<&str>> {
    let name = path.strip_prefix("user_logs/std_log")?.strip_suffix(".txt")?;
    match name.strip_prefix('_') {
        None => name.is_empty().then_some(None),
        Some(rank) => {
            (!rank.is_empty() && rank.bytes().all(|byte| byte.is_ascii_digit())).then_some(Some(rank))
        }
    }
}

/// The paths that are wanted of a list of logs, each with the attempt that it belongs to.
pub(super) fn wanted(list: &Value, path: Option<&str>) -> Vec<(String, u64)> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted = items.iter().filter_map(|item| {
        let name = item["path"].as_str()?;
        let is_wanted = path.map_or_else(|| rank(name).is_some(), |path| path == name);
        is_wanted.then(|| (name.to_owned(), item["attempt"].as_u64().unwrap_or(1)))
    });
    // Of several attempts only the newest is followed.
    let mut newest: Vec<(String, u64)> = Vec::new();
    for (name, attempt) in wanted {
        match newest.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = attempt.max(*known),
            None => newest.push((name, attempt)),
        }
    }
    newest
}

/// Finds the logs as they come into being, and follows each of them.
async fn logs(
    service: &Service,
    screen: &Screen,
    id: &str,
    path: Option<&str>,
    mut over: watch::Receiver<bool>,
) -> Result<(), ClientError> {
    let mut attempts: HashMap<String, (u64, tokio::task::AbortHandle)> = HashMap::new();
    let mut tails = JoinSet::new();
    let url = service.url(["runs", id, "logs"]);
    loop {
        // Asked before the look, so that the last look comes after the end.
        let was_over = *over.borrow();
        for (name, attempt) in wanted(&service.get_json(&url).await?, path) {
            match attempts.get(&name) {
                Some((known, _)) if *known >= attempt => continue,
                Some((_, earlier)) => {
                    earlier.abort();
                    screen.say(format!("Attempt {attempt}: {name} begins anew."));
                }
                None => {}
            }
            let tail = Tail::new(service, screen, id, &name, path.is_none(), over.clone());
            attempts.insert(name, (attempt, tails.spawn(tail.run())));
        }
        if was_over {
            break;
        }
        tokio::select! {
            _ = over.changed() => {}
            () = tokio::time::sleep(DISCOVERY) => {}
            Some(done) = tails.join_next() => ended(done)?,
        }
    }
    while let Some(done) = tails.join_next().await {
        ended(done)?;
    }
    Ok(())
}

fn ended(done: Result<Result<(), ClientError>, tokio::task::JoinError>) -> Result<(), ClientError> {
    match done {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Another attempt took its place.
        Err(_) => Ok(()),
    }
}

/// One log that is followed. `offset` counts what was written out, so that nothing is repeated or lost,
/// whatever happens to the connection.
struct Tail {
    service: Service,
    screen: Screen,
    url: Url,
    offset: u64,
    prefixer: Option<LinePrefixer>,
    over: watch::Receiver<bool>,
}

/// How a connection to a log ended.
enum Ended {
    /// In order.
    Whole,
    /// By a fault.
    Cut(String),
}

impl Tail {
    fn new(
        service: &Service,
        screen: &Screen,
        id: &str,
        name: &str,
        with_rank: bool,
        over: watch::Receiver<bool>,
    ) -> Self {
        Self {
            service: service.clone(),
            screen: screen.clone(),
            url: log_url(service, id, name),
            offset: 0,
            prefixer: rank(name).flatten().filter(|_| with_rank).map(LinePrefixer::new),
            over,
        }
    }

    async fn run(mut self) -> Result<(), ClientError> {
        let service = self.service.clone();
        let mut waiting = Waiting::new(&service);
        loop {
            let before = self.offset;
            let was_over = *self.over.borrow();
            let ended = self.connection(!was_over).await?;
            if self.offset > before {
                waiting = Waiting::new(&service);
            }
            match ended {
                // After the end a whole answer without a byte says that there is no more.
                Ended::Whole if was_over && self.offset == before => break,
                Ended::Whole if was_over => {}
                // The run may not be over: a proxy, or a service that stops, ends answers in order, too.
                Ended::Whole => {
                    let _ = timeout(DISCOVERY, self.over.changed()).await;
                }
                Ended::Cut(detail) => {
                    if !waiting.pause(&format!("broke off the log ({detail})"), None).await {
                        return Err(ClientError::Unreachable { url: self.url.to_string(), detail });
                    }
                }
            }
        }
        let rest = self.prefixer.as_mut().map(|prefixer| prefixer.flush(true)).unwrap_or_default();
        Ok(self.screen.out(&rest)?)
    }

    /// Writes out what one connection yields.
    async fn connection(&mut self, follow: bool) -> Result<Ended, ClientError> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("offset", &self.offset.to_string());
        if follow {
            url.query_pairs_mut().append_pair("follow", "true");
        }
        let sent = self.service.send(|| self.service.get(url.clone()).header("Accept", "text/plain")).await;
        let mut response = match sent {
            // It was listed: another worker may still be bringing it.
            Err(ClientError::Problem(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => {
                return Ok(Ended::Whole);
            }
            sent => sent?,
        };
        loop {
            let is_over = *self.over.borrow();
            let next = if is_over {
                match timeout(SILENCE, response.chunk()).await {
                    Ok(next) => next,
                    Err(_) => return Ok(Ended::Whole),
                }
            } else {
                tokio::select! {
                    next = response.chunk() => next,
                    // Only to notice the end; the channel closes when nobody watches the status any more.
                    Ok(()) = self.over.changed() => continue,
                }
            };
            match next {
                Ok(Some(bytes)) => {
                    self.offset += bytes.len() as u64;
                    match &mut self.prefixer {
                        Some(prefixer) => self.screen.out(&prefixer.push(&bytes))?,
                        None => self.screen.out(&bytes)?,
                    }
                }
                Ok(None) => return Ok(Ended::Whole),
                Err(error) => return Ok(Ended::Cut(cause(&error))),
            }
        }
    }
}

/// Writes out a log as it is now; lines with their rank, if it is one of several.
pub(super) async fn print(
    service: &Service,
    screen: &Screen,
    id: &str,
    name: &str,
    with_rank: bool,
) -> Result<(), ClientError> {
    // Nobody sends on it: the tail takes the run for over and stops at the end of what is there.
    let (_over, is_over) = watch::channel(true);
    Tail::new(service, screen, id, name, with_rank, is_over).run().await
}

fn log_url(service: &Service, id: &str, name: &str) -> Url {
    service.url(["runs", id, "logs"].into_iter().chain(name.split('/')))
}

/// What a person wants to know of a run that is over.
pub(super) async fn summary(service: &Service, screen: &Screen, run: &Value) {
    let id = run["id"].as_str().unwrap_or_default();
    let mut line = format!("Run {id} {}", run["status"].as_str().unwrap_or("unknown"));
    if let Some(cause) = run["cause"].as_str() {
        line.push_str(&format!(": {cause}"));
    }
    screen.say(line);
    if let Some(code) = run["exit_code"].as_i64() {
        screen.say(format!("  exit code  {code}"));
    }
    if let Some(signal) = run["signal"].as_i64() {
        screen.say(format!("  signal     {signal}"));
    }
    if let Some(seconds) = seconds_between(&run["started_at"], &run["finished_at"]) {
        screen.say(format!("  duration   {seconds:.1} s"));
    }
    // The run's end is known; a list that cannot be had must not change what the command answers.
    match service.get_json(&service.url(["runs", id, "outputs"])).await {
        Ok(list) => {
            let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            screen.say(format!("  outputs    {}", items.len()));
            for item in items {
                let path = item["path"].as_str().unwrap_or_default();
                let url = service.url(["runs", id, "outputs"].into_iter().chain(path.split('/')));
                screen.say(format!("    {path}  {}  {url}", size(item["bytes"].as_u64().unwrap_or(0))));
            }
            if list["next_cursor"].is_string() {
                screen.say(format!("    … more at {}", service.url(["runs", id, "outputs"])));
            }
        }
        Err(error) => screen.say(format!("  outputs    cannot be listed: {error}")),
    }
}

pub(super) fn seconds_between(start: &Value, end: &Value) -> Option<f64> {
    let time = |value: &Value| DateTime::parse_from_rfc3339(value.as_str()?).ok();
    let milliseconds = (time(end)? - time(start)?).num_milliseconds();
    Some(f64::from(i32::try_from(milliseconds / 100).ok()?) / 10.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn logs_of_processes_are_told_from_others() {
        assert_eq!(rank("user_logs/std_log.txt"), Some(None));
        assert_eq!(rank("user_logs/std_log_12.txt"), Some(Some("12")));
        for other in
            ["user_logs/std_log_.txt", "user_logs/std_log_a.txt", "logs/std_log.txt", "user_logs/std_err.txt"]
        {
            assert_eq!(rank(other), None, "{other}");
        }
    }

    #[test]
    fn the_newest_attempt_is_followed() {
        let item = |path, attempt| json!({"path": path, "bytes": 1, "attempt": attempt});
        let list = json!({"items": [
            item("user_logs/std_log.txt", 1), item("user_logs/std_log.txt", 2), item("logs/tb", 2),
        ]});
        assert_eq!(wanted(&list, None), [("user_logs/std_log.txt".to_owned(), 2)]);
        assert_eq!(wanted(&list, Some("logs/tb")), [("logs/tb".to_owned(), 2)]);
        assert!(wanted(&json!({}), None).is_empty());
    }

    #[test]
    fn durations_come_from_times() {
        let seconds = seconds_between(&json!("2024-05-01T10:00:00Z"), &json!("2024-05-01T10:01:02.25Z"));
        assert_eq!(seconds, Some(62.2));
        assert_eq!(seconds_between(&Value::Null, &json!("2024-05-01T10:01:02Z")), None);
    }
}
