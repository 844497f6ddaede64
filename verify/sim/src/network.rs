//! Pipes between processes: in order, bounded, slow, stalled and cut.
//!
//! A wire is what a TCP connection with a WebSocket on it is to its two ends: frames arrive whole, in order and once,
//! until something ends it. What a cut does not say, the other end does not learn.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use link_core::{Frame, Violation};

use crate::clock::Moment;

/// One wire. Never used twice, so it is also the connection's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WireId(pub(crate) u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// One end of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct End {
    pub(crate) wire: WireId,
    pub(crate) side: Side,
}

impl End {
    pub(crate) const fn other(self) -> Self {
        Self { wire: self.wire, side: self.side.other() }
    }
}

impl core::fmt::Display for End {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let side = match self.side {
            Side::Client => 'c',
            Side::Server => 's',
        };
        write!(f, "#{}{side}", self.wire.0)
    }
}

/// Who holds an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Client(usize),
    Server(usize),
    Adversary,
    /// The socket is released: what comes is answered with a reset.
    Nobody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parcel {
    Frame(Frame),
    /// Bytes that the WebSocket layer cannot take.
    Broken(Violation),
    /// The end of the transport, with or without a reset: the reader sees the same.
    End,
}

impl Parcel {
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Frame(frame) => frame_weight(frame),
            Self::Broken(_) | Self::End => 1,
        }
    }
}

/// What a frame takes on the wire, about.
pub(crate) fn frame_weight(frame: &Frame) -> usize {
    let payload = match frame {
        Frame::Text(text) => text.len(),
        Frame::Binary(bytes) | Frame::Ping(bytes) | Frame::Pong(bytes) => bytes.len(),
        Frame::Close(close) => close.as_ref().map_or(0, |close| close.reason.len().saturating_add(2)),
    };
    payload.saturating_add(8)
}

/// How a wire is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// What is under way arrives, and then the end.
    Fin,
    /// What is under way is lost, and the end arrives.
    Reset,
    /// Nothing arrives any more, and nobody is told.
    Silent,
    /// The same, in the direction to this side only.
    SilentTo(Side),
}

/// One direction.
#[derive(Debug)]
struct Pipe {
    under_way: VecDeque<(Moment, Parcel)>,
    arrived: VecDeque<(Moment, Parcel)>,
    /// Of what is under way or unread.
    bytes: usize,
    capacity: usize,
    stalled_until: Option<Moment>,
    /// Swallows everything from here on.
    dead: bool,
    /// Its end was sent.
    finished: bool,
    /// Its end is a reset.
    reset: bool,
    /// A writer was turned away.
    writer_waits: bool,
}

impl Pipe {
    fn new(capacity: usize) -> Self {
        Self {
            under_way: VecDeque::new(),
            arrived: VecDeque::new(),
            bytes: 0,
            capacity,
            stalled_until: None,
            dead: false,
            finished: false,
            reset: false,
            writer_waits: false,
        }
    }

    fn lose_what_is_under_way(&mut self) {
        let lost: usize = self.under_way.drain(..).map(|(_, parcel)| parcel.weight()).sum();
        self.bytes = self.bytes.saturating_sub(lost);
    }

    fn put(&mut self, due: Moment, parcel: Parcel) -> Moment {
        let after_the_last = self.under_way.back().map_or(due, |(last, _)| due.max(*last));
        let due = self.stalled_until.map_or(after_the_last, |until| after_the_last.max(until));
        self.bytes = self.bytes.saturating_add(parcel.weight());
        self.under_way.push_back((due, parcel));
        due
    }
}

#[derive(Debug)]
pub(crate) struct Wire {
    to_client: Pipe,
    to_server: Pipe,
    client: Holder,
    server: Holder,
    pub(crate) latency: Duration,
    /// Somebody on the path reads and changes what passes.
    pub(crate) tampered: bool,
}

impl Wire {
    fn pipe_to(&mut self, side: Side) -> &mut Pipe {
        match side {
            Side::Client => &mut self.to_client,
            Side::Server => &mut self.to_server,
        }
    }

    fn peek_pipe_to(&self, side: Side) -> &Pipe {
        match side {
            Side::Client => &self.to_client,
            Side::Server => &self.to_server,
        }
    }

    pub(crate) const fn holder(&self, side: Side) -> Holder {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }

    /// Whether something has been sent that has not arrived.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.to_client.under_way.is_empty() || !self.to_server.under_way.is_empty()
    }

    /// Whether nobody will be told anything in at least one direction.
    pub(crate) const fn is_silent(&self) -> bool {
        self.to_client.dead || self.to_server.dead
    }

    /// Whether somebody on the path may have kept the end of it to himself.
    pub(crate) const fn is_suspect(&self) -> bool {
        self.tampered && (self.to_client.finished || self.to_server.finished)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    wires: BTreeMap<WireId, Wire>,
    opened: u64,
}

/// What an arrival brought.
pub(crate) struct Arrival {
    pub(crate) came: bool,
    pub(crate) next: Option<Moment>,
}

impl Network {
    pub(crate) fn open(
        &mut self,
        client: Holder,
        server: Holder,
        capacity: usize,
        latency: Duration,
        tampered: bool,
    ) -> WireId {
        self.opened = self.opened.saturating_add(1);
        let id = WireId(self.opened);
        let (to_client, to_server) = (Pipe::new(capacity), Pipe::new(capacity));
        self.wires.insert(id, Wire { to_client, to_server, client, server, latency, tampered });
        id
    }

    pub(crate) fn wire(&self, id: WireId) -> Option<&Wire> {
        self.wires.get(&id)
    }

    pub(crate) fn wires(&self) -> impl Iterator<Item = (WireId, &Wire)> {
        self.wires.iter().map(|(id, wire)| (*id, wire))
    }

    pub(crate) fn holder(&self, end: End) -> Holder {
        self.wires.get(&end.wire).map_or(Holder::Nobody, |wire| wire.holder(end.side))
    }

    /// Whether `from` may write now. If not, it will be woken.
    pub(crate) fn has_room(&mut self, from: End) -> bool {
        let Some(wire) = self.wires.get_mut(&from.wire) else { return true };
        let pipe = wire.pipe_to(from.side.other());
        pipe.writer_waits = !pipe.finished && pipe.bytes >= pipe.capacity;
        !pipe.writer_waits
    }

    /// The same, without being woken.
    pub(crate) fn would_take(&self, from: End) -> bool {
        self.wires.get(&from.wire).is_none_or(|wire| {
            let pipe = wire.peek_pipe_to(from.side.other());
            pipe.finished || pipe.bytes < pipe.capacity
        })
    }

    /// Sends from an end; says when it will be there, if ever.
    pub(crate) fn send(&mut self, from: End, parcel: Parcel, due: Moment) -> Option<Moment> {
        let pipe = self.wires.get_mut(&from.wire)?.pipe_to(from.side.other());
        if pipe.finished {
            return None;
        }
        pipe.finished = parcel == Parcel::End;
        if pipe.dead {
            // It is never acknowledged, and so fills the pipe for good.
            pipe.bytes = pipe.bytes.saturating_add(parcel.weight());
            return None;
        }
        Some(pipe.put(due, parcel))
    }

    /// Puts a parcel on the way to `to`, as somebody on the path can.
    pub(crate) fn inject(&mut self, to: End, parcel: Parcel, due: Moment) -> Option<Moment> {
        let pipe = self.wires.get_mut(&to.wire)?.pipe_to(to.side);
        (!pipe.dead).then(|| pipe.put(due, parcel))
    }

    /// What is due is there now. If there is somebody on the path, it is `theirs` first.
    pub(crate) fn arrive(&mut self, to: End, now: Moment, theirs: Option<&mut Vec<Parcel>>) -> Arrival {
        let Some(wire) = self.wires.get_mut(&to.wire) else { return Arrival { came: false, next: None } };
        let released = wire.holder(to.side) == Holder::Nobody;
        let pipe = wire.pipe_to(to.side);
        if let Some(until) = pipe.stalled_until {
            if until > now {
                let next = (!pipe.under_way.is_empty()).then_some(until);
                return Arrival { came: false, next };
            }
            pipe.stalled_until = None;
        }
        let (mut came, mut theirs) = (false, theirs);
        while pipe.under_way.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, parcel)) = pipe.under_way.pop_front() else { break };
            came = true;
            match &mut theirs {
                None if !released => pipe.arrived.push_back((now, parcel)),
                theirs => {
                    pipe.bytes = pipe.bytes.saturating_sub(parcel.weight());
                    if let Some(theirs) = theirs {
                        theirs.push(parcel);
                    }
                }
            }
        }
        Arrival { came, next: pipe.under_way.front().map(|(due, _)| *due) }
    }

    /// Puts a parcel where it can be read.
    pub(crate) fn put_down(&mut self, to: End, parcel: Parcel, now: Moment) {
        if let Some(wire) = self.wires.get_mut(&to.wire) {
            let pipe = wire.pipe_to(to.side);
            pipe.bytes = pipe.bytes.saturating_add(parcel.weight());
            pipe.arrived.push_back((now, parcel));
        }
    }

    /// Whether something is there to be read.
    pub(crate) fn is_readable(&self, at: End) -> bool {
        self.wires.get(&at.wire).is_some_and(|wire| !wire.peek_pipe_to(at.side).arrived.is_empty())
    }

    /// Whether a reset has arrived, so that writing fails, though what came before it can still be read.
    pub(crate) fn is_reset(&self, at: End) -> bool {
        self.wires.get(&at.wire).is_some_and(|wire| {
            let pipe = wire.peek_pipe_to(at.side);
            pipe.reset && pipe.under_way.is_empty()
        })
    }

    /// Whether a frame that was there before this moment waits to be read.
    pub(crate) fn has_unread_frame_before(&self, at: End, now: Moment) -> bool {
        self.wires.get(&at.wire).is_some_and(|wire| {
            let mut arrived = wire.peek_pipe_to(at.side).arrived.iter();
            arrived.any(|(came, parcel)| *came < now && matches!(parcel, Parcel::Frame(_)))
        })
    }

    /// Reads; also says whether a writer waited for that.
    pub(crate) fn read(&mut self, at: End) -> Option<(Parcel, bool)> {
        let pipe = self.wires.get_mut(&at.wire)?.pipe_to(at.side);
        let (_, parcel) = pipe.arrived.pop_front()?;
        pipe.bytes = pipe.bytes.saturating_sub(parcel.weight());
        let wake = pipe.writer_waits && pipe.bytes < pipe.capacity;
        if wake {
            pipe.writer_waits = false;
        }
        Some((parcel, wake))
    }

    /// Holds everything to this side back until then.
    pub(crate) fn stall(&mut self, to: End, until: Moment) {
        if let Some(wire) = self.wires.get_mut(&to.wire) {
            wire.pipe_to(to.side).stalled_until = Some(until);
        }
    }

    /// Nothing stands still any more, and what is under way arrives without more delay. Says where.
    pub(crate) fn hurry(&mut self, now: Moment) -> Vec<(Moment, End)> {
        let mut arrivals = Vec::new();
        for (id, wire) in &mut self.wires {
            let soon = now.after(wire.latency);
            for side in [Side::Client, Side::Server] {
                let pipe = wire.pipe_to(side);
                pipe.stalled_until = None;
                for (due, _) in &mut pipe.under_way {
                    *due = soon.min(*due);
                }
                arrivals.push((soon, End { wire: *id, side }));
            }
        }
        arrivals
    }

    /// Cuts a wire in the middle. Both ends are told as `cut` has it, at `due`.
    pub(crate) fn cut(&mut self, id: WireId, cut: Cut, due: Moment) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        for side in [Side::Client, Side::Server] {
            let pipe = wire.pipe_to(side);
            match cut {
                Cut::SilentTo(other) if other != side => {}
                Cut::Silent | Cut::SilentTo(_) => {
                    pipe.lose_what_is_under_way();
                    pipe.dead = true;
                }
                Cut::Fin | Cut::Reset => {
                    if cut == Cut::Reset {
                        pipe.lose_what_is_under_way();
                        pipe.reset = true;
                    }
                    pipe.stalled_until = None;
                    // What a dead pipe has swallowed, nobody was told. And a reset comes even after an end.
                    let swallowed = core::mem::replace(&mut pipe.dead, false);
                    if !pipe.finished || swallowed || cut == Cut::Reset {
                        pipe.finished = true;
                        pipe.put(due, Parcel::End);
                    }
                }
            }
        }
    }

    /// Lets go of an end. Once both are gone, so is the wire. `true` while the other end is held.
    pub(crate) fn release(&mut self, end: End) -> bool {
        let Some(wire) = self.wires.get_mut(&end.wire) else { return false };
        match end.side {
            Side::Client => wire.client = Holder::Nobody,
            Side::Server => wire.server = Holder::Nobody,
        }
        let pipe = wire.pipe_to(end.side);
        pipe.arrived.clear();
        pipe.bytes = 0;
        if (wire.client, wire.server) == (Holder::Nobody, Holder::Nobody) {
            self.wires.remove(&end.wire);
            return false;
        }
        true
    }
}
