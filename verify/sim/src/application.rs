//! What runs on top: the application of a process, and the one that the simulator brings itself.

use std::sync::Arc;

use link_core::{Address, CloseReason, Message, Now};

use crate::choices::Choices;

/// The program on top of the connections of one process: yours, in a test of your own protocol.
///
/// A server's is told of all its clients, a client's of the one server. What it wants done, it says to the [`Desk`].
pub trait Application {
    /// A peer is there, verified.
    fn authenticated(&mut self, peer: Address, desk: &mut Desk<'_, '_>) {
        let _ = (peer, desk);
    }

    /// A peer said something.
    fn message(&mut self, peer: Address, message: &Message, desk: &mut Desk<'_, '_>) {
        let _ = (peer, message, desk);
    }

    /// A peer that was there is gone.
    fn disconnected(&mut self, peer: Address, reason: &CloseReason, desk: &mut Desk<'_, '_>) {
        let _ = (peer, reason, desk);
    }

    /// Time has passed: now and then, at times that the world chooses.
    fn tick(&mut self, desk: &mut Desk<'_, '_>) {
        let _ = desk;
    }
}

/// Nothing on top.
impl Application for () {}

/// Where an application says what it wants.
#[derive(Debug)]
pub struct Desk<'d, 'c> {
    pub(crate) now: Now,
    pub(crate) calm: bool,
    pub(crate) peers: Arc<[Address]>,
    pub(crate) choices: &'d mut Choices<'c>,
    pub(crate) wishes: Vec<Wish>,
}

#[derive(Debug)]
pub(crate) enum Wish {
    Send(Address, Message),
    Broadcast(Message),
    Close(Address),
    Disconnect,
}

impl<'c> Desk<'_, 'c> {
    /// What the process's clocks say. They may be wrong.
    pub const fn now(&self) -> Now {
        self.now
    }

    /// Whether the faults are over: from here on everything must work.
    pub const fn is_calm(&self) -> bool {
        self.calm
    }

    /// Who is there.
    pub fn peers(&self) -> &[Address] {
        &self.peers
    }

    /// For choices of your own, from the world's source.
    pub const fn choices(&mut self) -> &mut Choices<'c> {
        self.choices
    }

    /// Sends to one peer, if it is there.
    pub fn send(&mut self, to: Address, message: Message) {
        self.wishes.push(Wish::Send(to, message));
    }

    /// Sends to all that are there.
    pub fn broadcast(&mut self, message: Message) {
        self.wishes.push(Wish::Broadcast(message));
    }

    /// Ends the connection of one peer, after what was sent before.
    pub fn close(&mut self, peer: Address) {
        self.wishes.push(Wish::Close(peer));
    }

    /// On a client: wants no connection any more.
    pub fn disconnect(&mut self) {
        self.wishes.push(Wish::Disconnect);
    }
}

/// What is no long message yet.
const MODEST: usize = 200;

/// The simulator's own application: says things now and then, answers some of what it hears.
#[derive(Debug, Default)]
pub(crate) struct Talker {
    pub(crate) said: u64,
    /// Sometimes says something long.
    pub(crate) longest: usize,
    pub(crate) broadcasts: bool,
    /// Sometimes has had enough.
    pub(crate) leaves: bool,
}

impl Talker {
    fn words(&mut self, kind: &str, desk: &mut Desk<'_, '_>) -> Option<Message> {
        self.said = self.said.saturating_add(1);
        let length = match desk.choices.below(12) {
            10.. if !desk.calm => desk.choices.below(self.longest as u64) as usize,
            _ => 0,
        };
        let text = format!(r#"{{"type":"{kind}","n":{},"pad":"{:x<length$}"}}"#, self.said, "");
        Message::parse(text).ok()
    }
}

impl Application for Talker {
    fn message(&mut self, peer: Address, message: &Message, desk: &mut Desk<'_, '_>) {
        let answers = match message.kind() {
            Some("ask") => true,
            Some("say") => desk.choices.below(4) == 3,
            _ => false,
        };
        if answers && let Some(message) = self.words("answer", desk) {
            desk.send(peer, message);
        }
    }

    fn tick(&mut self, desk: &mut Desk<'_, '_>) {
        if !desk.calm && self.leaves && desk.choices.once_in(24) {
            match desk.peers().first().copied() {
                Some(peer) if self.broadcasts => desk.close(peer),
                _ if self.broadcasts => {}
                _ => desk.disconnect(),
            }
            return;
        }
        let kind = if desk.calm { "ask" } else { "say" };
        let burst = if self.longest > MODEST && !desk.calm { desk.choices.below(8) } else { 0 };
        for _ in 0..=burst {
            let Some(message) = self.words(kind, desk) else { return };
            match (self.broadcasts, desk.peers().first().copied()) {
                (true, Some(_)) => desk.broadcast(message),
                (false, Some(server)) => desk.send(server, message),
                (_, None) => return,
            }
        }
    }
}
