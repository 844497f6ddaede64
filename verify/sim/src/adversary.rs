//! Whoever means harm: on the path, at a server's door, or where a server should be.

use link_core::{ByteString, Bytes, Close, Frame, Status, Violation};

use crate::{
    env::Env,
    network::{Cut, End, Parcel},
    plan::{ADVERSARY_WALLET, wallet},
    sometimes::Mark,
};

/// How an honest proof begins.
const PROOF: &str = r#"{"type":"authenticate""#;
/// How a message of the worlds' applications begins.
const SAID: &str = r#"{"type":"say""#;
/// Wires that it holds at most, and one more when it relays.
const WIRES: usize = 6;

#[derive(Debug, Default)]
pub(crate) struct Adversary {
    /// The ends that it holds.
    pub(crate) ends: Vec<End>,
    /// Those of them between which it passes everything on: a client's, and a server's that this client never dialled.
    relays: Vec<(End, End)>,
}

/// What every wall clock is about, in milliseconds.
const WALL: u64 = 1_795_372_174_071;

impl Adversary {
    pub(crate) fn has_room(&self) -> bool {
        self.ends.len() < WIRES
    }

    pub(crate) fn take(&mut self, end: End) {
        self.ends.push(end);
    }

    /// Takes a client's end and a server's, and stands between them from now on.
    pub(crate) fn relay(&mut self, client: End, server: End) {
        self.ends.extend([client, server]);
        self.relays.push((client, server));
    }

    /// Where it passes on what comes to `end`.
    fn passed_on_to(&self, end: End) -> Option<End> {
        self.relays.iter().find_map(|(one, other)| match end {
            _ if end == *one => Some(*other),
            _ if end == *other => Some(*one),
            _ => None,
        })
    }

    /// One of its ends, to do something with.
    pub(crate) fn some_end(&self, env: &mut Env<'_>) -> Option<End> {
        env.choices.pick(&self.ends)
    }

    /// Sends something from an end of its own.
    pub(crate) fn speak(&self, end: End, env: &mut Env<'_>) {
        if !env.network.has_room(end) {
            return;
        }
        let parcel = anything(env);
        env.note(30, end.wire.0, || match &parcel {
            Parcel::Frame(frame) => format!("{end} ▷ {} (adversary)", crate::trace::shown(frame)),
            other => format!("{end} ▷ {other:?} (adversary)"),
        });
        env.send(end, parcel);
    }

    /// Reads what came to one of its ends, and passes it on or forgets it.
    pub(crate) fn listen(&mut self, end: End, env: &mut Env<'_>) {
        while let Some((parcel, writer_waits)) = env.network.read(end) {
            if writer_waits {
                env.plan(env.now, crate::agenda::Due::Writable(end.other()));
            }
            if parcel == Parcel::End {
                self.drop_end(end, env);
                return;
            }
            let Some(to) = self.passed_on_to(end) else { continue };
            let said = matches!(&parcel, Parcel::Frame(Frame::Text(text)) if text.starts_with(SAID));
            let whole = said.then(|| parcel.clone());
            for parcel in tamper(to, parcel, env) {
                env.marks.reach_if(whole.as_ref() == Some(&parcel), Mark::RelayedSession);
                env.send(to, parcel);
            }
        }
    }

    /// Lets go of an end, with or without a word.
    pub(crate) fn drop_end(&mut self, end: End, env: &mut Env<'_>) {
        let other = self.passed_on_to(end);
        self.relays.retain(|(one, other)| end != *one && end != *other);
        for end in core::iter::once(end).chain(other) {
            self.ends.retain(|mine| *mine != end);
            env.cut(end.wire, Cut::Fin);
            env.release(end);
        }
    }

    pub(crate) fn drop_all(&mut self, env: &mut Env<'_>) {
        self.relays.clear();
        for end in core::mem::take(&mut self.ends) {
            env.cut(end.wire, Cut::Reset);
            env.release(end);
        }
    }
}

/// A proof that passed by.
fn recorded(env: &mut Env<'_>) -> Option<Frame> {
    let newest_first = env.choices.below(env.tap.len() as u64) as usize;
    env.tap.iter().rev().nth(newest_first).cloned()
}

/// A proof of its own wallet, at a time around what the others take for now.
fn own_proof(env: &mut Env<'_>) -> Frame {
    let wallet = wallet(ADVERSARY_WALLET);
    let around = WALL.saturating_add(env.now.since_start().as_millis() as u64);
    let timestamp = match env.choices.below(6) {
        4 => around.saturating_add(env.choices.below(12_000)).saturating_sub(6_000),
        5 => around.saturating_add(env.choices.below(1 << 40)),
        _ => around,
    };
    let (address, signature) = (wallet.address(), wallet.sign(&timestamp.to_string()));
    env.oracle.note_signature(address, timestamp);
    let mut text = format!(
        r#"{{"type":"authenticate","address":"{address}","timestamp":{timestamp},"signature":"{signature}"}}"#
    );
    match env.choices.below(12) {
        8 => text = text.replace(r#""timestamp":"#, r#""timestamp":1,"timestamp":"#),
        9 => text = text.replace(&timestamp.to_string(), &format!("{timestamp}.0")),
        10 => text = text.replace(&timestamp.to_string(), &timestamp.saturating_add(1).to_string()),
        11 => text = text.replace("00\"}", "01\"}"),
        _ => {}
    }
    Frame::Text(text.into())
}

/// Any frame, or bytes that are none.
fn anything(env: &mut Env<'_>) -> Parcel {
    let text = |text: &'static str| Frame::Text(ByteString::from_static(text));
    Parcel::Frame(match env.choices.below(20) {
        0..=3 => match recorded(env) {
            Some(frame) => frame,
            None => own_proof(env),
        },
        4 | 5 => own_proof(env),
        6 => text(r#"{"type":"heartbeat","ts":1795372174071}"#),
        7 => text(r#"{"type":"say","n":0}"#),
        8 => text("null"),
        9 => text(r#"{"type":"authenticate"#),
        10 => text(r#"{"type":"\u0061uthenticate","address":"xe_","timestamp":0,"signature":""}"#),
        11 => {
            let status = env.choices.one_of(Status::ALL);
            text(if env.choices.below(2) == 0 { status.text() } else { status.quoted_text() })
        }
        12 => Frame::Ping(Bytes::from_static(b"ping")),
        13 => Frame::Pong(Bytes::copy_from_slice(&env.choices.below(4).to_be_bytes())),
        14 => Frame::Close(None),
        15 => {
            let code = env.choices.one_of([1000, 1001, 4401, 4409, 1006]);
            Frame::Close(Some(Close { code, reason: ByteString::from_static("") }))
        }
        16 => Frame::Binary(Bytes::from_static(b"\xff\xfe{")),
        17 => Frame::Binary(Bytes::from_static(br#"{"type":"say","n":1}"#)),
        18 => {
            let length = env.choices.one_of([4_090usize, 4_097, 70_000]);
            Frame::Text(format!(r#"{{"type":"say","pad":"{}"}}"#, "x".repeat(length)).into())
        }
        _ => return Parcel::Broken(env.choices.one_of([Violation::WebSocket, Violation::NotUtf8])),
    })
}

/// Cuts a text, or changes a character of it.
fn edited(frame: Frame, env: &mut Env<'_>) -> Frame {
    let Frame::Text(text) = &frame else { return frame };
    let at = env.choices.below(text.len() as u64) as usize;
    if !text.is_char_boundary(at) {
        return frame;
    }
    let (before, after) = text.split_at(at);
    let mut rest = after.chars();
    if env.choices.below(3) == 2 {
        return Frame::Text(before);
    }
    rest.next();
    let instead = env.choices.one_of(['0', '1', 'a', '"', ' ', '\\', '9']);
    Frame::Text(format!("{before}{instead}{}", rest.as_str()).into())
}

/// What somebody on the path does with a parcel on its way to `to`.
pub(crate) fn tamper(to: End, parcel: Parcel, env: &mut Env<'_>) -> Vec<Parcel> {
    let is_proof = matches!(&parcel, Parcel::Frame(Frame::Text(text)) if text.starts_with(PROOF));
    if env.calm || !env.choices.once_in(if is_proof { 3 } else { 10 }) {
        return vec![parcel];
    }
    env.oracle.note_tampering(to.wire);
    let what = if is_proof && env.choices.below(2) == 1 { 6 } else { env.choices.below(8) };
    env.note(31, what, || format!("{to} ◁ tampered with ({what}): {parcel:?}"));
    match (what, parcel) {
        (0, _) => Vec::new(),
        (1, parcel) => vec![parcel.clone(), parcel],
        (2, parcel) => {
            env.inject(to.other(), parcel.clone());
            vec![parcel]
        }
        (3, parcel) => {
            // Only back to where it came from.
            env.inject(to.other(), parcel);
            Vec::new()
        }
        (4, parcel) => vec![anything(env), parcel],
        (5, parcel) => vec![parcel, anything(env)],
        // Somebody else's instead, which may be as good.
        (6, parcel) if is_proof => vec![recorded(env).map_or(parcel, Parcel::Frame)],
        (_, Parcel::Frame(frame)) => vec![Parcel::Frame(edited(frame, env))],
        (_, parcel) => vec![parcel],
    }
}

/// Whether a wire that opens at `at` is watched by somebody.
pub(crate) fn is_on_path(env: &mut Env<'_>) -> bool {
    env.has(crate::plan::Fault::OnPath) && env.choices.below(2) == 1
}
