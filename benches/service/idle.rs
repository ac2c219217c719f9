//! What the service is before anybody asks anything of it: how soon it is ready, what it takes, how large it is.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};

use crate::{
    context::Context,
    database::Database,
    figure::{Figure, Goal, Outcome},
    latencies::median,
    service::Service,
    usage,
};

/// What the row is called.
pub const NAME: &str = "idle";

/// How often it is started.
const STARTS: usize = 5;

/// Starts the service on a database that is up to date, looks at it, and at its binary.
///
/// # Errors
/// When anything that is needed fails.
pub fn measure(context: &Context) -> anyhow::Result<Vec<Figure>> {
    let database = Database::start(context)?;
    database.create(NAME)?;
    let url = database.url(NAME);
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let began = Instant::now();
        let service = Service::start(context, NAME, &url, &[])?;
        starts.push(began.elapsed().as_secs_f64());
        drop(service);
    }
    let service = Service::start(context, NAME, &url, &[])?;
    std::thread::sleep(Duration::from_secs(5));
    let memory = usage::memory(service.pid())?;
    drop(service);
    let binary = compressed(&context.estimatord)?;
    let start = median(&starts);
    let at_most = |of, value, unit, goal, floor| Outcome { of, value, unit, goal: Goal::AtMost(goal), floor };
    Ok(vec![
        Figure {
            what: format!("start to ready, `DATABASE_URL` given, schema up to date, {STARTS} times"),
            ours: format!("{:.0} ms", start * 1e3),
            peer: String::new(),
            outcomes: vec![at_most("median", start, "s", 1.0, None)],
        },
        Figure {
            what: "memory of the idle service".to_owned(),
            ours: format!("{:.0} MiB resident, {:.0} MiB at most", memory.resident, memory.peak),
            peer: String::new(),
            outcomes: vec![at_most("resident", memory.resident, "MiB", 50.0, Some(Goal::AtMost(64.0)))],
        },
        Figure {
            what: "the binary as a layer of an image, `gzip -6`".to_owned(),
            ours: format!("{binary:.1} MiB"),
            peer: String::new(),
            outcomes: vec![at_most("size", binary, "MiB", 40.0, Some(Goal::AtMost(40.0)))],
        },
    ])
}

/// The size of a file when it is compressed, in MiB.
fn compressed(path: &Path) -> anyhow::Result<f64> {
    let mut encoder = GzEncoder::new(Counter::default(), Compression::new(6));
    io::copy(&mut File::open(path)?, &mut encoder)?;
    Ok(encoder.finish()?.mebibytes())
}

/// Counts what is written to it.
#[derive(Debug, Default)]
struct Counter(u32);

impl Counter {
    fn mebibytes(&self) -> f64 {
        f64::from(self.0) / f64::from(1 << 20)
    }
}

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
