//! What was measured, beside what, and what was hoped for.

use std::fmt;

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What was done, and how, e.g. "`POST /v1/runs`, 32 connections".
    pub what: String,
    /// What the service did, with units.
    pub ours: String,
    /// What its limit or peer did in the same run, with its name.
    pub peer: String,
    /// What follows.
    pub outcomes: Vec<Outcome>,
}

/// A number that has a goal.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of what: "rate", "p99", "memory".
    pub of: &'static str,
    /// The number.
    pub value: f64,
    /// Its unit; `×` for a ratio.
    pub unit: &'static str,
    /// What it should be.
    pub goal: Goal,
    /// What it must be in the short form, in CI: far from the goal, so that only a regression is seen. None where the short form says nothing.
    pub floor: Option<Goal>,
}

/// What a number should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Goal {
    /// Whether a number is so.
    #[must_use]
    pub fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(goal) => write!(f, "≥ {goal}"),
            Self::AtMost(goal) => write!(f, "≤ {goal}"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, value, unit, goal, .. } = self;
        let met = if goal.is_met_by(*value) { "met" } else { "**not met**" };
        write!(f, "{of} {value:.2} {unit} (goal {goal}: {met})")
    }
}
