//! Following a log over HTTP: thousands at once, and one whose connection does not hold.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use serde_json::json;
use tokio::time::timeout;

use crate::service::{Service, data_dir, number};

const LOG: &str = "user_logs/std_log.txt";

/// Writes numbered lines, some of them longer than a network packet, until the gate opens.
const SCRIPT: &str = "import os, sys, time\n\
                      gate, pause, number = sys.argv[1], float(sys.argv[3]), 0\n\
                      while not os.path.exists(gate):\n\
                      \x20   number += 1\n\
                      \x20   print(number, 'é' * (3000 if number % 50 == 0 else 20), flush=True)\n\
                      \x20   time.sleep(pause)\n\
                      print('the end')\n";

fn started(service: &Service, gate: &Path, pause: &str) -> String {
    let mut definition = service.definition(SCRIPT);
    definition["script_params"] = json!({gate.to_str().expect("UTF-8"): "", "--pause": pause});
    let id = service.submit(&definition);
    service.until_status(&id, &["Running"]);
    id
}

/// What server-sent events are made of: parsed as they arrive, in whatever pieces.
#[derive(Default)]
struct Events {
    rest: Vec<u8>,
    /// The id of the last event, and how many bytes it says.
    last_id: String,
    last: u64,
    text: String,
    has_ended: bool,
}

impl Events {
    fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(at) = self.rest.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = self.rest.drain(..at + 2).collect();
            let event = String::from_utf8(event).expect("UTF-8");
            let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (name, value) in
                event.lines().filter_map(|line| line.split_once(": ").or(line.split_once(':')))
            {
                fields.entry(name).or_default().push(value);
            }
            let Some(kind) = fields.get("event") else { continue };
            self.last_id = fields["id"][0].to_owned();
            let (attempt, bytes) = self.last_id.split_once('-').expect("an attempt and a number");
            assert_eq!(attempt, "1");
            self.last = bytes.parse().expect("a number");
            match kind[0] {
                "log" => self.text.push_str(&fields["data"].join("\n")),
                "end" => self.has_ended = true,
                other => panic!("an event `{other}`"),
            }
        }
    }
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// Its connection is cut every second; at the end it has every byte once.
#[test]
fn who_is_cut_off_again_and_again_sees_every_byte_once() {
    let seconds = u64::try_from(number("ESTIMATORD_TEST_FOLLOW_SECONDS", 8)).expect("small");
    let dir = data_dir();
    let service = Service::start(dir.path());
    let gate = dir.path().join("gate");
    let id = started(&service, &gate, "0.01");
    let url = format!("{}/v1/runs/{id}/logs/{LOG}", service.base);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("one");
    let (events, plain, cuts) = runtime.block_on(async {
        let http = client();
        let started = Instant::now();
        let mut events = Events::default();
        let mut plain: Vec<u8> = Vec::new();
        let mut cuts = 0;
        while !events.has_ended {
            if started.elapsed() > Duration::from_secs(seconds) {
                std::fs::write(&gate, "").expect("opened");
            }
            assert!(started.elapsed() < Duration::from_secs(seconds + 60), "never ends");
            let both = async {
                let mut request = http.get(&url).header("accept", "text/event-stream");
                if events.last > 0 {
                    request = request.header("last-event-id", &events.last_id);
                }
                let one = async {
                    let mut stream = request.send().await.expect("an answer").bytes_stream();
                    while let Some(bytes) = stream.next().await {
                        events.push(&bytes.expect("bytes"));
                    }
                };
                let two = async {
                    let url = format!("{url}?follow=true&offset={}", plain.len());
                    let mut stream = http.get(url).send().await.expect("an answer").bytes_stream();
                    while let Some(bytes) = stream.next().await {
                        plain.extend_from_slice(&bytes.expect("bytes"));
                    }
                };
                tokio::join!(one, two)
            };
            if timeout(Duration::from_secs(1), both).await.is_err() {
                cuts += 1;
            }
            // What was cut off in the middle of an event comes again as a whole.
            events.rest.clear();
        }
        // The last part, where it was cut at the very end.
        let rest = http.get(format!("{url}?offset={}", plain.len())).send().await.expect("an answer");
        plain.extend_from_slice(&rest.bytes().await.expect("bytes"));
        (events, plain, cuts)
    });
    assert!(cuts >= seconds / 2, "{cuts}");
    let whole = service.log_text(&id);
    assert!(whole.ends_with("the end\n") && whole.lines().count() > 100);
    assert_eq!(events.last, whole.len() as u64);
    assert!(events.text == whole, "{} and {} bytes", events.text.len(), whole.len());
    assert!(plain == whole.as_bytes(), "{} and {} bytes", plain.len(), whole.len());
}

/// The resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

/// A thousand follow one run, some of whom never read what they are sent.
#[test]
fn a_thousand_followers_cost_little_and_hold_nobody_up() {
    let count = number("ESTIMATORD_TEST_FOLLOWERS", 1000);
    let asleep = count / 10;
    let dir = data_dir();
    let service = Service::start(dir.path());
    let gate = dir.path().join("gate");
    let id = started(&service, &gate, "0.02");
    let url = format!("{}/v1/runs/{id}/logs/{LOG}", service.base);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
    let (grown, texts) = runtime.block_on(async {
        let http = client();
        let ask = || http.get(&url).header("accept", "text/event-stream").send();
        // One of them, so that what is made once is there before it is measured.
        drop(ask().await.expect("an answer"));
        let before = resident(service.pid());
        let mut sleepers = Vec::new();
        for _ in 0..asleep {
            sleepers.push(ask().await.expect("an answer"));
        }
        let mut followers = tokio::task::JoinSet::new();
        for _ in asleep..count {
            let response = ask().await.expect("an answer");
            assert_eq!(response.status(), 200);
            followers.spawn(async move {
                let mut events = Events::default();
                let mut stream = response.bytes_stream();
                while let Some(bytes) = stream.next().await {
                    events.push(&bytes.expect("bytes"));
                }
                assert!(events.has_ended);
                events.text
            });
        }
        // All of them are there; now they are sent things for a while.
        let mut most = 0;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            most = most.max(resident(service.pid()));
        }
        std::fs::write(&gate, "").expect("opened");
        let mut texts = Vec::new();
        while let Some(text) = timeout(Duration::from_secs(60), followers.join_next()).await.expect("in time")
        {
            texts.push(text.expect("no panic"));
        }
        most = most.max(resident(service.pid()));
        drop(sleepers);
        (most.saturating_sub(before), texts)
    });
    let whole = service.log_text(&id);
    assert_eq!(texts.len(), count - asleep);
    assert!(texts.iter().all(|text| *text == whole));
    println!("{count} followers cost {} MiB", grown / 1024);
    let allowed = 64 * 1024 * u64::try_from(count).expect("small") / 1000;
    assert!(grown < allowed, "{count} followers cost {grown} KiB");
}
