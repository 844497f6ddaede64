//! Ratios of rounds, and the table.

use std::fmt;

use serde::Serialize;

/// What was measured of one goal on one runtime.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: &'static str,
    /// On which runtime, and by which face of Link.
    pub on: String,
    /// Of what the two figures are.
    pub unit: &'static str,
    /// The bare twin's: the median of the rounds.
    pub bare: f64,
    /// Link's: the median of the rounds.
    pub link: f64,
    /// How the two compare: the median, the least and the most of the rounds.
    pub compared: Spread,
    /// What they are to compare like.
    pub goal: Goal,
    /// Whether they do, by the median.
    pub met: bool,
}

/// What is wanted of a comparison.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Link divided by bare is this at most.
    RatioAtMost(f64),
    /// Link divided by bare is this at least.
    RatioAtLeast(f64),
    /// Link less bare is this at most.
    ExtraAtMost(f64),
}

/// Values of several rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    /// Half are below.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of these, of which there is one at least.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], least: values[0], most: values[values.len() - 1] }
    }
}

impl Row {
    /// Of rounds, in each of which both were measured.
    pub fn new(what: &'static str, on: String, unit: &'static str, goal: Goal, rounds: &[Round]) -> Self {
        let compared = Spread::of(rounds.iter().map(|round| match goal {
            Goal::RatioAtMost(_) | Goal::RatioAtLeast(_) => round.link / round.bare,
            Goal::ExtraAtMost(_) => round.link - round.bare,
        }));
        let met = match goal {
            Goal::RatioAtMost(goal) | Goal::ExtraAtMost(goal) => compared.median <= goal,
            Goal::RatioAtLeast(goal) => compared.median >= goal,
        };
        let bare = Spread::of(rounds.iter().map(|round| round.bare)).median;
        let link = Spread::of(rounds.iter().map(|round| round.link)).median;
        Self { what, on, unit, bare, link, compared, goal, met }
    }
}

/// What one round measured of both.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// The bare twin.
    pub bare: f64,
    /// Link.
    pub link: f64,
}

/// A row of a Markdown table.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, on, unit, bare, link, compared: Spread { median, least, most }, goal, met } = self;
        let met = if *met { "yes" } else { "no" };
        write!(f, "| {what} | {on} | {bare:.2} | {link:.2} {unit} ")?;
        match goal {
            Goal::RatioAtMost(goal) => {
                write!(f, "| {median:.2} × ({least:.2}–{most:.2}) | ≤ {goal:.2} × | {met} |")
            }
            Goal::RatioAtLeast(goal) => {
                write!(f, "| {median:.2} × ({least:.2}–{most:.2}) | ≥ {goal:.2} × | {met} |")
            }
            Goal::ExtraAtMost(goal) => {
                write!(f, "| {median:+.2} {unit} ({least:+.2}–{most:+.2}) | ≤ {goal:+.2} {unit} | {met} |")
            }
        }
    }
}

/// What stands above the rows.
pub const HEAD: &str =
    "| what | on | bare | Link | compared (all rounds) | goal | met |\n|---|---|---|---|---|---|---|";
