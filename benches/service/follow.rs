//! A large log, followed to its end, beside `cat`.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use crate::{
    context::Context,
    figure::{Figure, Goal, Outcome},
    latencies::median,
    process::Process,
    scripted::{Scripted, id_of, log_path},
    service::Service,
    usage,
};

/// What the row is called.
pub const NAME: &str = "follow";

/// Prints as many MiB as it is told to.
const SCRIPT: &str = r#"import sys
line = "epoch {:08d} loss 0.4711 accuracy 0.9876 and what else a training says\n"
block = "".join(line.format(n) for n in range(20000)).encode()[:1 << 20]
for _ in range(int(sys.argv[2])):
    sys.stdout.buffer.write(block)
"#;

/// How long the run that prints it may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// How much is read at once, of either.
const PIECE: usize = 64 << 10;

/// Follows and reads in turn.
///
/// # Errors
/// When anything that is needed fails.
pub fn measure(context: &Context) -> anyhow::Result<Vec<Figure>> {
    let (mebibytes, rounds) = if context.short { (64_u32, 3) } else { (1024, 3) };
    let scripted = Scripted::start(context, NAME, SCRIPT)?;
    let service = scripted.service();
    let members = json!({"user_managed": true, "script_params": {"--mebibytes": mebibytes}});
    let id = id_of(&service.ask(&scripted.call(&members)?)?)?;
    scripted.until_ended(&id, PATIENCE)?.map_err(anyhow::Error::msg)?;
    let file = context.directory.join("log.txt");
    write_file(&file, mebibytes)?;
    let expected = u64::from(mebibytes) << 20;
    let path = format!("{}?follow=true", log_path(&id));

    // What only a first request costs has nothing to do with the size of a log.
    service.ask(&crate::http::Call::get("/readyz")?)?;
    let before = usage::memory(service.pid())?;
    let (mut ours, mut cats) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(timed(expected, || get(service, &path))?);
        cats.push(timed(expected, || cat(&file))?);
    }
    let after = usage::memory(service.pid())?;
    let (ours, cat) = (median(&ours), median(&cats));
    let rate = |seconds: f64| f64::from(mebibytes) / seconds;
    Ok(vec![Figure {
        what: format!("`GET …/logs/…?follow=true`, {mebibytes} MiB, {rounds} times"),
        ours: format!(
            "{:.0} MiB/s; {:.0} MiB at most, {:.0} MiB before",
            rate(ours),
            after.peak,
            before.peak
        ),
        peer: format!("`cat` through a pipe: {:.0} MiB/s", rate(cat)),
        outcomes: vec![
            Outcome {
                of: "rate",
                value: cat / ours,
                unit: "×",
                goal: Goal::AtLeast(0.5),
                floor: Some(Goal::AtLeast(0.02)),
            },
            Outcome {
                of: "growth of memory",
                value: after.peak - before.peak,
                unit: "MiB",
                goal: Goal::AtMost(16.0),
                floor: Some(Goal::AtMost(32.0)),
            },
        ],
    }])
}

fn write_file(path: &Path, mebibytes: u32) -> io::Result<()> {
    let mut file = File::create(path)?;
    let block = vec![b'x'; 1 << 20];
    for _ in 0..mebibytes {
        file.write_all(&block)?;
    }
    file.sync_all()
}

/// How long it takes to read so many bytes, in seconds.
fn timed(expected: u64, read: impl FnOnce() -> anyhow::Result<u64>) -> anyhow::Result<f64> {
    let began = Instant::now();
    let bytes = read()?;
    ensure!(bytes == expected, "{bytes} bytes came instead of {expected}");
    Ok(began.elapsed().as_secs_f64())
}

fn cat(file: &Path) -> anyhow::Result<u64> {
    let mut cat = Process::start(Command::new("cat").arg(file).stdout(Stdio::piped()))?;
    let output = cat.child().stdout.take().context("its output is a pipe")?;
    Ok(drain(output, &mut vec![0; PIECE])?)
}

/// Reads an answer whose length nobody knows beforehand, with as little work as `cat`'s reader has.
fn get(service: &Service, path: &str) -> anyhow::Result<u64> {
    let address = service.address();
    let mut connection = TcpStream::connect(address)?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = BufReader::with_capacity(PIECE, connection);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    ensure!(line.contains(" 200 "), "{path}: {line}");
    let mut is_chunked = false;
    while line.trim() != "" {
        line.clear();
        answer.read_line(&mut line)?;
        is_chunked |= line.trim().eq_ignore_ascii_case("transfer-encoding: chunked");
    }
    ensure!(is_chunked, "{path}: an answer that goes on comes in chunks");
    let mut buffer = vec![0; PIECE];
    let mut total = 0;
    loop {
        line.clear();
        answer.read_line(&mut line)?;
        let length =
            u64::from_str_radix(line.trim(), 16).with_context(|| format!("{path}: a chunk of {line:?}"))?;
        let read = drain((&mut answer).take(length), &mut buffer)?;
        if read < length {
            bail!("{path}: the answer broke off");
        }
        total += read;
        // The end of the chunk's line.
        answer.read_exact(&mut buffer[..2])?;
        if length == 0 {
            return Ok(total);
        }
    }
}

fn drain(mut from: impl Read, buffer: &mut [u8]) -> io::Result<u64> {
    let mut total = 0;
    loop {
        match from.read(buffer)? {
            0 => return Ok(total),
            read => total += read as u64,
        }
    }
}
