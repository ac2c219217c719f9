//! Two sides in turn, so that what the machine does meanwhile befalls both.

use std::fmt;

use crate::{
    latencies::{median, milliseconds},
    load::Measured,
};

/// What one side did in all rounds.
#[derive(Clone, Debug, Default)]
pub struct Side(Vec<Measured>);

impl Side {
    /// The median of the rounds' rates.
    #[must_use]
    pub fn rate(&self) -> f64 {
        median(&self.0.iter().map(|round| round.rate).collect::<Vec<_>>())
    }

    /// The median of the rounds' percentiles, in milliseconds.
    #[must_use]
    pub fn percentile(&self, share: f64) -> f64 {
        median(&self.0.iter().map(|round| milliseconds(round.latencies.at(share))).collect::<Vec<_>>())
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, p50, p99) = (self.rate(), self.percentile(0.5), self.percentile(0.99));
        write!(f, "{rate:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms")
    }
}

/// Ours and the peer's, in turn.
///
/// # Errors
/// When a round of either fails.
pub fn in_turn(
    rounds: usize,
    mut ours: impl FnMut() -> anyhow::Result<Measured>,
    mut peer: impl FnMut() -> anyhow::Result<Measured>,
) -> anyhow::Result<(Side, Side)> {
    let mut sides = (Side::default(), Side::default());
    for _ in 0..rounds {
        sides.0.0.push(ours()?);
        sides.1.0.push(peer()?);
    }
    Ok(sides)
}
