//! A world for Link's connections: a whole network in one thread, in which everything goes wrong that can, again and
//! again in the same way.
//!
//! The `Connection`s, the `Admission` and the `Reconnect` in it are those of [`link_core`], never models of them.
//! Around them are virtual clocks, a network, processes that die, applications that dawdle and an adversary; and an
//! **oracle** that knows what must be true at every step. A failing seed is a complete bug report: the same seed tells
//! the same story, word for word.
//!
//! # The command
//!
//! ```sh
//! cargo run --release -p link-sim -- --seeds 100000          # a bar on a terminal; exit code 1 when something broke
//! cargo run --release -p link-sim -- --seed 4711 --trace     # the whole story of one seed
//! cargo run --release -p link-sim -- --seed 4711 --shrink    # and the shortest story that ends in the same way
//! cargo run --release -p link-sim -- --canary                # with planted faults: this must fail
//! ```
//!
//! # A test of your own protocol
//!
//! Put your program on top as an [`Application`], say what may go wrong, and run as many worlds as you like. Link's own
//! invariants are checked along the way; yours are yours.
//!
//! ```
//! use std::{cell::Cell, rc::Rc};
//!
//! use link_core::{Address, Message};
//! use link_sim::{Application, Choices, ClientPlan, Desk, Fault, Plan, ServerPlan, run_plan, wallet};
//! use serde_json::json;
//!
//! /// Counts the questions it hears, and answers each.
//! struct Oracle(Rc<Cell<u32>>);
//!
//! impl Application for Oracle {
//!     fn message(&mut self, peer: Address, _: &Message, desk: &mut Desk<'_, '_>) {
//!         self.0.set(self.0.get() + 1);
//!         desk.send(peer, Message::new(&json!({ "type": "answer", "n": self.0.get() })).unwrap());
//!     }
//! }
//!
//! /// Asks now and then, and counts the answers.
//! struct Pilgrim(Rc<Cell<u32>>);
//!
//! impl Application for Pilgrim {
//!     fn message(&mut self, _: Address, _: &Message, _: &mut Desk<'_, '_>) {
//!         self.0.set(self.0.get() + 1);
//!     }
//!
//!     fn tick(&mut self, desk: &mut Desk<'_, '_>) {
//!         if let [server] = *desk.peers() {
//!             desk.send(server, Message::new(&json!({ "type": "question" })).unwrap());
//!         }
//!     }
//! }
//!
//! for seed in 0..20 {
//!     let (asked, answered) = (Rc::default(), Rc::default());
//!     let mut plan = Plan::calm();
//!     plan.faults = plan.faults.with(Fault::Delay).with(Fault::CutReset).with(Fault::ServerCrash);
//!     plan.servers.push(ServerPlan::new(wallet(0), Oracle(Rc::clone(&asked))));
//!     plan.clients.push(ClientPlan::new(wallet(1), Pilgrim(Rc::clone(&answered))));
//!     // After the faults, messages must go both ways again, within the time that the settings imply.
//!     plan.must_be_heard = true;
//!     let outcome = run_plan(plan, Choices::seeded(seed), false);
//!     assert_eq!(outcome.failure, None, "seed {seed}");
//!     assert!(answered.get() <= asked.get(), "seed {seed}: an answer that nobody gave");
//! }
//! ```
//!
//! # What decides
//!
//! Everything that happens is a choice, and [`Choices`] come from a seed ([`Choices::seeded`], for volume), from bytes
//! ([`Choices::bytes`], so that a fuzzer steers the same world: `link_sim::run(Choices::bytes(data))`), from a list
//! that was written down, or from a [`Source`] of yours. Zero is always the tame choice, and a source that runs dry ends
//! the faults.
//!
//! Of the [`Fault`]s, each world has some: a world with few of them goes deeper than one with all. While they last, the
//! oracle checks what must never happen. Then they stop, and everybody must be connected and heard within the bound that
//! the settings imply, and stay so.
//!
//! # What must be true
//!
//! See [`Invariant`]. The oracle keeps books of its own from what goes in and what comes out; where the specification
//! gives a rule, it is written down there a second time, in other code. That it is not blind is shown by
//! [`Canary`]: for nearly every invariant there is a fault in the simulator's own host that breaks it, and a test that sees it
//! caught. [`Mark`]s say which rare paths were taken, so that a world which never goes somewhere is not mistaken for one
//! in which nothing goes wrong there.
//!
//! # What it is not
//!
//! The wire carries whole frames: WebSocket bytes, the HTTP upgrade and TLS belong to the driver and are tested there. The
//! host in here is as thin as the driver's loop and reads, judges and flushes in its order, but it is not the driver.
//! Monotonic clocks stand still or run as they should; they do not drift.

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
mod host;
mod inbox;
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

/// Runs one world of which everything is drawn from `choices`: how many servers and clients, their settings, the faults.
pub fn run(choices: Choices<'_>) -> Outcome {
    run_with(choices, Options::default())
}

/// The same, with options.
pub fn run_with(mut choices: Choices<'_>, options: Options) -> Outcome {
    let plan = Plan::drawn(&mut choices, options.allowed);
    world::World::new(plan, choices, options.canary, options.trace).run()
}

/// Runs a world that was written down: your applications, your settings, the faults that you name. `choices` decide
/// when they strike. With `trace`, the outcome tells the story.
pub fn run_plan(plan: Plan, choices: Choices<'_>, trace: bool) -> Outcome {
    world::World::new(plan, choices, None, trace).run()
}
