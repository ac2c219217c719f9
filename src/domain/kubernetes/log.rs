//! Following a container's log across interruptions: which lines are new.
//!
//! The API server takes a point in time to begin at, and cuts it to whole seconds: a log that is taken up again begins with lines
//! that are there already. Every line comes with its time in nanoseconds; several may have the same.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// How far a log was taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// The bytes that were taken over, without times.
    pub bytes: u64,
    /// The time of the last line.
    last: Option<DateTime<Utc>>,
    /// How many lines had that time.
    same: u64,
}

/// Tells the lines of one stream that are new.
#[derive(Clone, Debug)]
pub struct LogReader {
    position: LogPosition,
    /// How many lines with the last time are still to be passed over.
    to_skip: u64,
    /// Where this stream takes up.
    from: Option<DateTime<Utc>>,
}

impl LogReader {
    /// From a position on.
    #[must_use]
    pub fn new(position: LogPosition) -> Self {
        let (to_skip, from) = (position.same, position.last);
        Self { position, to_skip, from }
    }

    /// What the API server is to begin at.
    #[must_use]
    pub fn since(&self) -> Option<String> {
        self.from.map(|from| from.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
    }

    /// How far it is.
    #[must_use]
    pub const fn position(&self) -> &LogPosition {
        &self.position
    }

    /// What a line adds to the log, its end included; none for one that was taken over before.
    pub fn take<'l>(&mut self, line: &'l [u8]) -> Option<&'l [u8]> {
        let Some((at, content)) = parse(line) else {
            // Not the container's: what the kubelet itself has to say of the log.
            self.position.bytes += line.len() as u64;
            return Some(line);
        };
        match self.from {
            Some(from) if at < from => return None,
            Some(from) if at == from && self.to_skip > 0 => {
                self.to_skip -= 1;
                return None;
            }
            _ => {}
        }
        if self.position.last == Some(at) {
            self.position.same += 1;
        } else {
            self.position.last = Some(at);
            self.position.same = 1;
        }
        self.position.bytes += content.len() as u64;
        Some(content)
    }
}

fn parse(line: &[u8]) -> Option<(DateTime<Utc>, &[u8])> {
    let space = line.iter().take(40).position(|byte| *byte == b' ')?;
    let text = std::str::from_utf8(&line[..space]).ok()?;
    let at = DateTime::parse_from_rfc3339(text).ok()?;
    Some((at.to_utc(), &line[space + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(reader: &mut LogReader, lines: &[String]) -> String {
        let taken = lines.iter().filter_map(|line| reader.take(line.as_bytes()));
        taken.map(|content| String::from_utf8_lossy(content).into_owned()).collect()
    }

    #[test]
    fn a_line_loses_its_time_and_nothing_else() {
        let mut reader = LogReader::new(LogPosition::default());
        let line = "2026-11-27T07:00:00.123456789Z  two  spaces\n".to_owned();
        assert_eq!(text(&mut reader, &[line]), " two  spaces\n");
        assert_eq!(reader.position().bytes, 13);
        assert_eq!(reader.since(), None);
        assert_eq!(
            LogReader::new(reader.position().clone()).since().as_deref(),
            Some("2026-11-27T07:00:00Z"),
            "in whole seconds, as the API server cuts it"
        );
    }

    #[test]
    fn what_has_no_time_is_kept_as_it_is() {
        let mut reader = LogReader::new(LogPosition::default());
        assert_eq!(text(&mut reader, &["failed to watch the log\n".to_owned()]), "failed to watch the log\n");
    }

    proptest! {
        /// Fact 3.13: whatever the times, and wherever the stream breaks, nothing is repeated and nothing is lost.
        #[test]
        fn a_log_that_is_taken_up_again_is_whole(
            steps in proptest::collection::vec(0_u32..700, 1..40),
            breaks in proptest::collection::vec(0_usize..40, 0..6),
        ) {
            let mut at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
            let mut lines = Vec::new();
            for (index, step) in steps.iter().enumerate() {
                // Several lines have the same time: steps below 300 are none.
                at += chrono::TimeDelta::milliseconds(i64::from(if *step < 300 { 0 } else { *step }));
                lines.push(format!("{} line {index}\n", at.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)));
            }
            let whole: String = (0..lines.len()).map(|index| format!("line {index}\n")).collect();
            let mut position = LogPosition::default();
            let mut seen = String::new();
            let mut stops: Vec<usize> = breaks.into_iter().map(|stop| stop.min(lines.len())).collect();
            stops.push(lines.len());
            for stop in stops {
                let mut reader = LogReader::new(position.clone());
                let since = reader.since();
                // As the API server answers: from that second on, up to where the stream breaks.
                let served: Vec<String> = lines[..stop].iter()
                    .filter(|line| since.as_deref().is_none_or(|since| line[..19] >= since[..19]))
                    .cloned()
                    .collect();
                seen += &text(&mut reader, &served);
                position = reader.position().clone();
            }
            prop_assert_eq!(position.bytes, seen.len() as u64);
            prop_assert_eq!(seen, whole);
        }
    }
}
