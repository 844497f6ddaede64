//! `admission-v1.json`: a server's memory across connections.

use link_core::{Address, Admission, AdmissionConfig, Admitted, ConnectionId, Proof, UnixMillis};
use serde::Serialize;

use super::{
    document, names,
    wallets::{CLIENT, OTHER},
};
use crate::support::WALL;

pub(crate) fn document() -> String {
    let stories: Vec<_> = stories().iter().map(|story| document::story(&story.head, &story.steps)).collect();
    let window = AdmissionConfig::default().auth_window;
    document::document("A server's memory across connections", Some(window), "admission", &stories)
}

fn stories() -> Vec<Story> {
    let (client, other) = (CLIENT.address(), OTHER.address());
    vec![
        Story::new("a newer connection replaces, and the old one's end touches nothing", Options::default())
            .arrive(1, "192.0.2.1")
            .screen(client, WALL, WALL)
            .admit(client, 1)
            .arrive(2, "192.0.2.2")
            .screen(client, WALL + 1, WALL + 1)
            .admit(client, 2)
            .release(1)
            .release(2),
        Story::new(
            "a newer connection is refused",
            Options { replace_existing: Some(false), ..Options::default() },
        )
        .arrive(1, "192.0.2.1")
        .screen(client, WALL, WALL)
        .admit(client, 1)
        .arrive(2, "192.0.2.2")
        .screen(client, WALL + 1, WALL + 1)
        .admit(client, 2)
        .release(2)
        .release(1),
        Story::new("a proof works once, for as long as it could be accepted", Options::default())
            .screen(client, WALL, WALL)
            .screen(client, WALL, WALL + 5000)
            .screen(other, WALL, WALL)
            .screen(client, WALL + 1, WALL)
            .screen(client, WALL + 5000, WALL)
            .screen(client, WALL + 5000, WALL + 10_000),
        Story::new("a clock that was set back revives nothing", Options::default())
            .screen(client, WALL, WALL)
            .screen(other, WALL + 6000, WALL + 6000)
            .screen(client, WALL, WALL)
            .screen(other, WALL, WALL)
            .screen(other, WALL + 1, WALL),
        Story::new(
            "a full memory takes from the address's own, and tells a newcomer to come later",
            Options { max_remembered_proofs: Some(2), ..Options::default() },
        )
        .screen(client, WALL, WALL)
        .screen(client, WALL + 4000, WALL)
        .screen(client, WALL + 5000, WALL)
        .screen(client, WALL + 3000, WALL)
        .screen(client, WALL + 4000, WALL)
        .screen(other, WALL, WALL)
        .screen(other, WALL, WALL)
        .screen(other, WALL + 9000, WALL + 9000)
        .screen(other, WALL + 9001, WALL + 9001)
        .screen(client, WALL + 5000, WALL + 9001),
        Story::new("the seventeenth proof of an address folds its oldest", Options::default())
            .screen_each(client, (1..=17).map(|n| WALL + n), WALL)
            .screen(client, WALL + 1, WALL)
            .screen(client, WALL, WALL)
            .screen(client, WALL + 2, WALL)
            .screen(other, WALL, WALL)
            .screen(client, WALL + 18, WALL),
        Story::new(
            "the whitelist comes first, and strangers are not remembered",
            Options { whitelist: Some(vec![client]), ..Options::default() },
        )
        .screen(other, WALL, WALL)
        .screen(other, WALL, WALL)
        .screen(client, WALL, WALL)
        .screen(client, WALL, WALL),
        Story::new(
            "places among the unauthenticated",
            Options {
                max_unauthenticated: Some(3),
                max_unauthenticated_per_ip: Some(1),
                ..Options::default()
            },
        )
        .arrive(1, "192.0.2.1")
        .arrive(2, "192.0.2.1")
        .arrive(3, "::ffff:192.0.2.1")
        .arrive(4, "2001:db8::1")
        .arrive(5, "2001:db8::ffff")
        .arrive(6, "2001:db8:0:1::1")
        .arrive(7, "192.0.2.3")
        .admit(client, 1)
        .arrive(8, "192.0.2.1")
        .release(4)
        .arrive(9, "2001:db8::2"),
    ]
}

/// What is unlike the defaults.
#[derive(Default, Serialize)]
struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    replace_existing: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_remembered_proofs: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    whitelist: Option<Vec<Address>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_unauthenticated: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_unauthenticated_per_ip: Option<usize>,
}

impl Options {
    fn config(&self) -> AdmissionConfig {
        let mut config = AdmissionConfig::default();
        config.replace_existing = self.replace_existing.unwrap_or(config.replace_existing);
        config.max_remembered_proofs = self.max_remembered_proofs.unwrap_or(config.max_remembered_proofs);
        config.whitelist = self.whitelist.clone().map(|whitelist| whitelist.into_iter().collect());
        config.max_unauthenticated = self.max_unauthenticated.unwrap_or(config.max_unauthenticated);
        config.max_unauthenticated_per_ip =
            self.max_unauthenticated_per_ip.unwrap_or(config.max_unauthenticated_per_ip);
        config
    }
}

/// One memory, and what it answered to each call.
struct Story {
    head: Head,
    admission: Admission,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Head {
    name: &'static str,
    options: Options,
}

#[derive(Serialize)]
struct Step {
    #[serde(flatten)]
    call: Call,
    then: Answer,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Call {
    Arrive(u64, &'static str),
    /// An address, the timestamp that it signed, the wall clock.
    Screen(Address, u64, u64),
    Admit(Address, u64),
    Release(u64),
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Place,
    Overload,
    Pass,
    Fresh,
    Replaces(u64),
    #[serde(untagged)]
    Refused(&'static str),
    #[serde(untagged)]
    Left {
        connected: usize,
        unauthenticated: usize,
    },
}

impl Story {
    fn new(name: &'static str, options: Options) -> Self {
        let admission = Admission::new(options.config());
        Self { head: Head { name, options }, admission, steps: vec![] }
    }

    fn arrive(mut self, id: u64, ip: &'static str) -> Self {
        let then = match self.admission.arrive(ConnectionId::new(id), Some(ip.parse().unwrap())) {
            Ok(()) => Answer::Place,
            Err(_) => Answer::Overload,
        };
        self.note(Call::Arrive(id, ip), then)
    }

    fn screen(mut self, address: Address, timestamp: u64, wall: u64) -> Self {
        let proof = Proof { address, timestamp: UnixMillis::new(timestamp).unwrap() };
        let then = match self.admission.screen(proof, UnixMillis::new(wall).unwrap()) {
            Ok(()) => Answer::Pass,
            Err(refusal) => Answer::Refused(names::refusal(refusal)),
        };
        self.note(Call::Screen(address, timestamp, wall), then)
    }

    fn screen_each(self, address: Address, timestamps: impl Iterator<Item = u64>, wall: u64) -> Self {
        timestamps.fold(self, |story, timestamp| story.screen(address, timestamp, wall))
    }

    fn admit(mut self, address: Address, id: u64) -> Self {
        let then = match self.admission.admit(address, ConnectionId::new(id)) {
            Ok(Admitted::Fresh) => Answer::Fresh,
            Ok(Admitted::Replaces(holder)) => Answer::Replaces(holder.get()),
            Err(refusal) => Answer::Refused(names::refusal(refusal)),
        };
        self.note(Call::Admit(address, id), then)
    }

    fn release(mut self, id: u64) -> Self {
        self.admission.release(ConnectionId::new(id));
        let then = Answer::Left {
            connected: self.admission.connected(),
            unauthenticated: self.admission.unauthenticated(),
        };
        self.note(Call::Release(id), then)
    }

    fn note(mut self, call: Call, then: Answer) -> Self {
        self.steps.push(Step { call, then });
        self
    }
}
