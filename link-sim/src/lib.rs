//! A world for Link's connections.
#![forbid(unsafe_code)]

mod adversary;
mod agenda;
mod application;
mod campaign;
mod canary;
mod choices;
mod client;
mod clock;
mod env;
mod faults;
mod healing;
mod line;
mod network;
mod oracle;
mod plan;
mod server;
mod shrink;
mod sometimes;
mod trace;
mod world;

use core::time::Duration;

pub use agenda::Ties;
pub use application::{Application, Desk};
pub use campaign::{Report, Seeds, campaign, run_seed};
pub use canary::Canary;
pub use choices::{Choices, Source};
pub use clock::Moment;
pub use oracle::{Failure, Invariant, MEMORY_PER_CONNECTION};
pub use plan::{ClientPlan, Fault, Faults, Plan, ServerPlan, wallet};
pub use shrink::{Shrunk, shrink};
pub use sometimes::{Mark, Marks};

/// How one world went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// What was broken, if something was.
    pub failure: Option<Failure>,
    /// Which rare paths were taken.
    pub marks: Marks,
    /// How many things happened.
    pub steps: u64,
    /// How much time passed in it.
    pub virtual_time: Duration,
    /// A number that depends on everything that happened: two worlds that differ have different ones.
    pub fingerprint: u64,
    /// The choices that made it, if they were [recorded](Choices::recording).
    pub choices: Vec<u64>,
    /// The story, if it was wanted.
    pub trace: Vec<String>,
}

/// How to run a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether to write the story down.
    pub trace: bool,
    /// A fault to plant in the simulator itself.
    pub canary: Option<Canary>,
    /// The faults that there may be.
    pub allowed: Faults,
}

impl Default for Options {
    fn default() -> Self {
        Self { trace: false, canary: None, allowed: Faults::ALL }
    }
}

/// Runs one world of which everything is drawn from `choices`.
pub fn run(choices: Choices<'_>) -> Outcome {
    run_with(choices, Options::default())
}

/// The same, with options.
pub fn run_with(mut choices: Choices<'_>, options: Options) -> Outcome {
    let plan = Plan::drawn(&mut choices, options.allowed);
    world::World::new(plan, choices, options.canary, options.trace).run()
}

/// Runs a world that was written down.
pub fn run_plan(plan: Plan, choices: Choices<'_>, trace: bool) -> Outcome {
    world::World::new(plan, choices, None, trace).run()
}
