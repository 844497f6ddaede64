//! How an `Endpoint` hosts a connection: the order of a turn, its bounds, pauses, stalls, and the ways to end. What it finds
//! that the tests of the connection and of the driver cannot: each decision alone, at the instant at which it is made.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use link_core::{
    Action, CloseReason, Config, Connection, Endpoint, Event, Frame, Incoming, Message, Now, Refusal, Role,
    SendError, SendQueue, Ticket, Violation,
};
use proptest::prelude::*;
use support::{WALL, authenticate, client_wallet, millis, secs, server_wallet, start};

/// A host with a transport that does as it is told.
struct Host {
    endpoint: Endpoint,
    now: Now,
    /// What the peer has said.
    incoming: VecDeque<Incoming>,
    /// How many bytes the peer takes, if it does not take everything.
    room: Option<usize>,
    written: u64,
    broken: bool,
    /// Whether the program takes more.
    ready: bool,
    /// Messages of a queue that is shared with other threads.
    queue: SendQueue,
    /// Under way in the transport.
    batch: VecDeque<usize>,
    sent: Vec<Frame>,
    heard: Vec<String>,
    /// What the program says in its turn to who asks for admission; without it, it says yes at once.
    policy: Option<Result<(), Refusal>>,
    ticket: Option<Ticket>,
    /// What the program ends the connection for in its turn.
    ends: Option<CloseReason>,
    closed: Option<CloseReason>,
    /// What was done, by name.
    did: Vec<&'static str>,
}

impl Host {
    fn of(connection: Connection) -> Self {
        let queue = SendQueue::new(connection.config());
        Self {
            endpoint: Endpoint::new(connection),
            now: start(),
            incoming: VecDeque::new(),
            room: None,
            written: 0,
            broken: false,
            ready: true,
            queue,
            batch: VecDeque::new(),
            sent: Vec::new(),
            heard: Vec::new(),
            policy: None,
            ticket: None,
            ends: None,
            closed: None,
            did: Vec::new(),
        }
    }

    /// A server whose client is authenticated.
    fn authenticated(adjust: impl FnOnce(&mut Config)) -> Self {
        let mut host = Self::stranger(adjust);
        host.says(&authenticate(client_wallet(), WALL));
        host.turn();
        assert!(host.endpoint.connection().is_authenticated());
        (host.sent, host.did) = (Vec::new(), Vec::new());
        host
    }

    fn stranger(adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::server(server_wallet().clone());
        config.idle_check_interval = Duration::ZERO;
        adjust(&mut config);
        Self::of(Connection::server(Arc::new(config), start()))
    }

    /// A client whose server has not answered yet.
    fn client(adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::client(client_wallet().clone());
        adjust(&mut config);
        Self::of(Connection::client(Arc::new(config), start()))
    }

    /// A client that is authenticated, where nothing is to be done for want of a heartbeat or of a sign of life.
    fn quiet_client(adjust: impl FnOnce(&mut Config)) -> Self {
        let mut host = Self::client(|config| {
            (config.heartbeat_interval, config.idle_timeout) = (Duration::ZERO, Duration::ZERO);
            adjust(config);
        });
        host.says(&authenticate(server_wallet(), WALL));
        host.turn();
        assert!(host.endpoint.connection().is_authenticated());
        (host.sent, host.did) = (Vec::new(), Vec::new());
        host
    }

    /// What a client answers with the same.
    fn asks_for_a_sign_of_life(&mut self) {
        self.says(r#"{"type":"heartbeat","timestamp":1}"#);
    }

    /// The same, where nothing is to be done for want of a heartbeat or of a sign of life.
    fn quiet(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::authenticated(|config| {
            (config.heartbeat_interval, config.idle_timeout) = (Duration::ZERO, Duration::ZERO);
            adjust(config);
        })
    }

    fn says(&mut self, text: &str) {
        self.incoming.push_back(Incoming::Frame(Frame::Text(text.into())));
    }

    fn passes(&mut self, time: Duration) {
        self.now.mono = self.now.mono.after(time);
    }

    fn send(&mut self, number: usize) {
        self.endpoint.send(numbered(number)).unwrap();
    }

    fn header_len(&self, frame: &Frame) -> usize {
        let mask = if self.endpoint.connection().role() == Role::Client { 4 } else { 0 };
        mask + if frame.payload_len() < 126 { 2 } else { 4 }
    }

    fn flush(&mut self) {
        while let Some(next) = self.batch.front_mut() {
            let taken = self.room.map_or(*next, |room| room.min(*next));
            self.room = self.room.map(|room| room - taken);
            self.written += taken as u64;
            *next -= taken;
            if *next > 0 {
                return self.endpoint.handle_flush_blocked(self.written);
            }
            self.batch.pop_front();
        }
        self.endpoint.handle_flushed();
    }

    /// One turn; says how it ended.
    fn turn(&mut self) -> &'static str {
        self.endpoint.begin_turn(self.now);
        for _ in 0..100_000 {
            let action = self.endpoint.poll_action();
            let name = match &action {
                Action::Event(_) => "tell",
                Action::Send(_) => "send",
                Action::Read { .. } => "read",
                Action::Program => "program",
                Action::ReleaseSpareRoom => "release",
                Action::Flush => "flush",
                Action::Shutdown => "shutdown",
                Action::Yield => "yield",
                Action::Wait => "wait",
                Action::Done => "done",
            };
            self.did.push(name);
            match action {
                Action::Event(event) => match event {
                    Event::AdmissionRequested { ticket } if self.policy.is_some() => {
                        self.ticket = Some(ticket);
                    }
                    Event::AdmissionRequested { ticket } => {
                        self.endpoint.decide(ticket, Ok(()), self.now).unwrap();
                    }
                    Event::Message(message) => self.heard.push(message.as_str().into()),
                    Event::Closed { reason } => assert!(self.closed.replace(reason).is_none()),
                    _ => {}
                },
                Action::Send(_) if self.broken => self.endpoint.handle_broken(),
                Action::Send(frame) => {
                    self.batch.push_back(frame.payload_len() + self.header_len(&frame));
                    self.sent.push(frame);
                }
                Action::Read { heard, .. } => match heard && !self.ready {
                    true => self.endpoint.handle_reads_paused(),
                    false => {
                        let incoming = self.incoming.pop_front().unwrap_or(Incoming::Nothing);
                        self.endpoint.handle_incoming(incoming);
                    }
                },
                Action::Program => {
                    if let Some(reason) = self.ends.take() {
                        self.endpoint.close(reason, self.now);
                    }
                    self.endpoint.take_queued(&mut self.queue);
                }
                Action::Flush if self.broken => self.endpoint.handle_broken(),
                Action::Flush => self.flush(),
                Action::ReleaseSpareRoom | Action::Shutdown => {}
                Action::Yield | Action::Wait | Action::Done => return name,
            }
        }
        panic!("a turn has no end");
    }

    /// Turns, as long as another one is to follow.
    fn turns(&mut self) -> &'static str {
        for _ in 0..1_000 {
            match self.turn() {
                "yield" => {}
                end => return end,
            }
        }
        panic!("there is always another turn");
    }

    /// Turns and waiting, until it is over. Says how long that took.
    fn until_done(&mut self) -> Duration {
        let began = self.now.mono;
        while self.turns() != "done" {
            self.now.mono = self.endpoint.poll_timeout().unwrap();
        }
        self.now.mono.since(began)
    }

    fn texts(&self) -> Vec<&str> {
        self.sent
            .iter()
            .filter_map(|frame| match frame {
                Frame::Text(text) => Some(&**text),
                _ => None,
            })
            .collect()
    }

    /// How many messages have left, of those that were handed over; if nothing is under way.
    fn texts_that_left(&self) -> usize {
        if self.batch.is_empty() { self.texts().len() } else { 0 }
    }

    fn has_said_goodbye(&self) -> bool {
        self.sent.iter().any(|frame| matches!(frame, Frame::Close(_)))
    }
}

fn numbered(number: usize) -> Message {
    Message::parse(text(number)).unwrap()
}

fn text(number: usize) -> String {
    format!(r#"{{"n":{number}}}"#)
}

// ------------------------------------------------------------------------------------------------------- a turn

#[test]
fn a_turn_reads_lets_the_program_run_looks_at_the_clock_sends_and_flushes_once() {
    let mut host = Host::authenticated(|_| {});
    host.says(&text(1));
    host.send(2);
    host.send(3);
    host.passes(secs(1));
    assert_eq!(host.turn(), "wait");
    // At the clock: a ping and a `heartbeat`.
    let order =
        ["read", "tell", "read", "program", "release", "send", "send", "send", "send", "flush", "wait"];
    assert_eq!(host.did, order);
    assert_eq!(host.texts()[1..], [text(2), text(3)]);
}

#[test]
fn a_peer_that_did_answer_is_not_judged_by_our_own_delay() {
    let mut host = Host::authenticated(|_| {});
    host.says(&text(1));
    host.passes(secs(5));
    host.turn();
    assert_eq!((host.heard.len(), host.closed), (1, None));
}

#[test]
fn reading_is_bounded_and_another_turn_follows() {
    let mut host = Host::quiet(|config| config.max_turn_frames = 3);
    (0..7).for_each(|number| host.says(&text(number)));
    let mut heard = Vec::new();
    for _ in 0..3 {
        let end = host.turn();
        heard.push((host.heard.len(), end));
    }
    assert_eq!(heard, [(3, "yield"), (6, "yield"), (7, "wait")]);
}

#[test]
fn a_transport_that_has_read_enough_gets_another_turn() {
    let mut host = Host::quiet(|_| {});
    host.incoming.push_back(Incoming::Enough);
    host.says(&text(1));
    assert_eq!((host.turn(), host.heard.len()), ("yield", 0));
    assert_eq!((host.turn(), host.heard.len()), ("wait", 1));
}

#[test]
fn a_peer_of_which_something_waits_to_be_read_is_not_judged() {
    let mut host = Host::authenticated(|_| {});
    host.incoming.push_back(Incoming::Enough);
    host.says(&text(1));
    host.passes(secs(5));
    assert_eq!((host.turns(), host.heard.len(), host.closed), ("wait", 1, None));
}

#[test]
fn a_peer_that_keeps_us_reading_without_a_frame_is_judged_all_the_same() {
    // As fragments without end do.
    let mut host = Host::authenticated(|config| config.heartbeat_interval = Duration::ZERO);
    let began = host.now.mono;
    while host.closed.is_none() {
        host.incoming.push_back(Incoming::Enough);
        assert_eq!(host.turn(), if host.closed.is_none() { "yield" } else { host.did[host.did.len() - 1] });
        host.passes(millis(100));
    }
    assert_eq!(host.closed, Some(CloseReason::Idle(secs(5))));
    assert!(host.now.mono.since(began) <= millis(5_200), "{:?}", host.now.mono.since(began));
}

#[test]
fn sending_is_bounded_in_bytes_and_another_turn_follows() {
    // Each counts 64 bytes and its own.
    let mut host = Host::quiet(|config| config.max_turn_bytes = 200);
    (0..7).for_each(|number| host.send(number));
    let mut sent = Vec::new();
    for _ in 0..3 {
        let end = host.turn();
        sent.push((host.sent.len(), end));
    }
    assert_eq!(sent, [(3, "yield"), (6, "yield"), (7, "wait")]);
}

#[test]
fn a_queue_that_others_fill_is_emptied_a_turns_worth_at_a_time_and_in_order() {
    let mut host = Host::quiet(|config| config.max_turn_bytes = 200);
    (0..7).for_each(|number| host.queue.push(numbered(number)).unwrap());
    assert_eq!((host.turn(), host.sent.len()), ("yield", 3));
    assert_eq!(
        (host.turns(), host.texts()),
        ("wait", (0..7).map(text).collect::<Vec<_>>().iter().map(|text| &**text).collect())
    );
}

#[test]
fn what_came_and_went_is_counted_without_the_protocols_own() {
    let mut host = Host::authenticated(|_| {});
    host.endpoint.take_traffic();
    host.says(&text(1));
    host.send(22);
    host.passes(secs(1));
    host.turn();
    let traffic = host.endpoint.take_traffic();
    assert_eq!((traffic.messages_received, traffic.bytes_received), (1, 7));
    assert_eq!((traffic.messages_sent, traffic.bytes_sent), (1, 8));
    assert_eq!(host.endpoint.take_traffic(), Default::default());
}

// ------------------------------------------------------------------------------------------------------- pauses

#[test]
fn while_the_program_is_behind_nothing_is_read_and_the_peers_silence_says_nothing() {
    let mut host = Host::authenticated(|config| config.heartbeat_interval = Duration::ZERO);
    host.ready = false;
    host.says(&text(1));
    host.turn();
    assert_eq!((host.heard.len(), host.endpoint.poll_timeout()), (0, None));
    host.passes(secs(3600));
    assert_eq!((host.turn(), &host.closed), ("wait", &None));
    host.ready = true;
    host.turn();
    assert_eq!((host.heard.len(), &host.closed), (1, &None));
    // From here on it has its whole time.
    assert_eq!(host.endpoint.poll_timeout(), Some(host.now.mono.after(secs(5))));
}

// ------------------------------------------------------------------------------------------------------- stalls

#[test]
fn while_the_peer_takes_nothing_the_rest_waits_in_the_queue() {
    let mut host = Host::quiet(|_| {});
    host.room = Some(0);
    assert!(!host.endpoint.is_stalled());
    host.send(1);
    host.turn();
    assert!(host.endpoint.is_stalled());
    host.send(2);
    host.queue.push(numbered(3)).unwrap();
    assert_eq!((host.turn(), host.sent.len(), host.queue.is_empty()), ("wait", 1, false));
    host.room = None;
    assert_eq!((host.turns(), host.sent.len(), host.queue.is_empty()), ("wait", 3, true));
}

#[test]
fn who_takes_nothing_for_the_send_timeout_is_a_slow_peer_and_who_takes_some_is_not() {
    let mut host = Host::quiet(|config| config.send_timeout = secs(30));
    host.room = Some(0);
    host.send(1);
    host.turn();
    host.passes(secs(29));
    host.room = Some(1);
    assert_eq!((host.turns(), &host.closed), ("wait", &None));
    host.passes(secs(29));
    assert_eq!((host.turns(), &host.closed), ("wait", &None));
    assert_eq!(host.endpoint.poll_timeout(), Some(host.now.mono.after(secs(1))));
    host.passes(secs(1));
    host.turns();
    assert_eq!(host.closed, Some(CloseReason::SlowPeer));
}

#[test]
fn without_a_send_timeout_a_peer_may_take_nothing_for_ever_and_never_more_than_its_bound_waits() {
    let mut host = Host::authenticated(|config| {
        (config.send_timeout, config.idle_timeout) = (Duration::ZERO, Duration::ZERO);
        config.max_turn_bytes = 10_000;
        config.max_message_size = 10_000;
    });
    host.room = Some(0);
    host.send(1);
    let mut most = 0;
    // A ping and a `heartbeat` each second.
    for _ in 0..100_000 {
        host.passes(secs(1));
        host.turns();
        most = most.max(host.batch.iter().sum());
        if host.closed.is_some() {
            break;
        }
    }
    assert_eq!(host.closed, Some(CloseReason::SlowPeer));
    assert!((100_000..160_000).contains(&most), "{most}");
}

#[test]
fn a_turn_that_comes_late_judges_nobody_before_it_has_tried_to_write() {
    // (how it is closed, and whether its last word was handed over before the peer took nothing)
    let table = [
        (None, false),
        (Some(CloseReason::Local), false),
        (Some(CloseReason::Local), true),
        (Some(CloseReason::ShuttingDown), false),
        (Some(CloseReason::ShuttingDown), true),
        (Some(CloseReason::Replaced), true),
    ];
    for (closed, handed_over) in table {
        let mut host = Host::quiet(|_| {});
        host.room = Some(0);
        host.send(1);
        if !handed_over {
            host.turn();
        }
        host.send(2);
        if let Some(reason) = closed.clone() {
            host.endpoint.close(reason, host.now);
        }
        host.turns();
        // All of it has left the system's buffers since.
        host.passes(secs(60));
        host.room = None;
        host.turns();
        assert_eq!(host.closed, closed, "{handed_over}");
        let sent = host.texts_that_left();
        let expected = if closed == Some(CloseReason::Replaced) { 1 } else { 2 };
        assert_eq!(sent, expected, "{closed:?} {handed_over}");
        assert_eq!(host.has_said_goodbye(), closed.is_some());
    }
}

#[test]
fn what_is_told_of_a_slow_peer_is_told_at_once() {
    let mut host = Host::quiet(|_| {});
    host.room = Some(0);
    host.send(1);
    host.turn();
    host.passes(secs(30));
    // The judgement is the last thing in a turn, and the program has its say in the next.
    assert_eq!((host.turn(), &host.closed), ("yield", &Some(CloseReason::SlowPeer)));
}

#[test]
fn a_stall_that_began_before_a_shutdown_leaves_the_peer_its_second() {
    for room in [0, 9] {
        let mut host = Host::quiet(|_| {});
        host.room = Some(room);
        host.send(1);
        host.endpoint.close(CloseReason::Local, host.now);
        host.send_is_blocked();
        host.turns();
        host.passes(secs(20));
        host.endpoint.close(CloseReason::ShuttingDown, host.now);
        // And asking twice gives it no more.
        host.passes(millis(500));
        host.endpoint.close(CloseReason::ShuttingDown, host.now);
        assert_eq!(host.turns(), "wait");
        assert_eq!(host.endpoint.poll_timeout(), Some(host.now.mono.after(millis(500))), "{room}");
    }
}

#[test]
fn a_peer_that_makes_us_talk_is_read_no_further_in_a_turn_than_our_answers_have_room() {
    let mut host = Host::quiet_client(|config| {
        config.max_turn_frames = 100_000;
        (config.max_turn_bytes, config.max_message_size) = (100, 100);
    });
    (0..10).for_each(|number| host.send(number));
    for _ in 0..5_000 {
        host.asks_for_a_sign_of_life();
    }
    assert_eq!(host.turn(), "yield");
    assert!((1_000..4_000).contains(&host.incoming.len()), "{}", host.incoming.len());
    assert_eq!((host.turns(), &host.closed, host.incoming.len()), ("wait", &None, 0));
    let sent = host.texts().into_iter().filter(|text| text.contains(r#""n""#)).count();
    assert_eq!((sent, host.sent.len()), (10, 5_010));
}

#[test]
fn a_stranger_that_takes_nothing_is_owed_little() {
    let mut host = Host::client(|config| config.max_turn_frames = 100_000);
    host.room = Some(0);
    let mut most = 0;
    for _ in 0..1_000 {
        host.asks_for_a_sign_of_life();
        host.turns();
        most = most.max(host.batch.iter().sum());
    }
    assert_eq!(host.closed, Some(CloseReason::SlowPeer));
    // 16 KiB, and the last word.
    assert!((16_300..16_450).contains(&most), "{most}");
}

#[test]
fn what_the_peer_has_taken_of_a_stalled_line_makes_room_for_more() {
    let mut host = Host::authenticated(|config| {
        (config.send_timeout, config.idle_timeout) = (Duration::ZERO, Duration::ZERO);
        (config.max_turn_bytes, config.max_message_size) = (10_000, 10_000);
    });
    host.room = Some(0);
    host.send(1);
    // A ping and a `heartbeat` each second, of which it takes all but a byte or so; for hours.
    for _ in 0..10_000 {
        host.passes(secs(1));
        host.turns();
        host.room = Some(host.batch.iter().sum::<usize>().saturating_sub(1));
    }
    assert!(host.endpoint.is_stalled());
    assert_eq!(host.closed, None);
}

#[test]
fn one_message_may_always_leave_however_long_it_is() {
    let mut host = Host::quiet(|config| (config.max_turn_bytes, config.max_message_size) = (100, 100));
    // Another queue may allow more.
    host.queue = SendQueue::new(&Config::server(server_wallet().clone()));
    let long = Message::parse(format!(r#"{{"fill":"{}"}}"#, "x".repeat(900_000))).unwrap();
    (0..2).for_each(|_| host.queue.push(&long).unwrap());
    assert_eq!((host.turns(), host.texts().len()), ("wait", 2));
}

#[test]
fn what_has_left_is_forgotten_at_once() {
    // Ten times the bound, all of it taken.
    let mut host = Host::quiet_client(|config| config.max_turn_bytes = 1_000);
    for _ in 0..20_000 {
        host.asks_for_a_sign_of_life();
        host.turns();
    }
    assert_eq!((host.closed, host.sent.len()), (None, 20_000));
}

#[test]
fn a_transport_without_room_makes_a_slow_peer() {
    let mut host = Host::quiet(|_| {});
    host.endpoint.begin_turn(host.now);
    host.endpoint.handle_overflow();
    host.turns();
    assert_eq!(host.closed, Some(CloseReason::SlowPeer));
}

// ------------------------------------------------------------------------------------------------------- closing

#[test]
fn what_was_sent_before_a_close_leaves_before_the_last_word_and_what_the_peer_says_meanwhile_is_not_told() {
    let mut host = Host::quiet(|config| config.max_turn_bytes = 100);
    (0..10).for_each(|number| host.send(number));
    host.queue.push(numbered(10)).unwrap();
    host.endpoint.close(CloseReason::Local, host.now);
    assert_eq!(host.endpoint.send(numbered(11)), Err(SendError::Closed));
    host.says(&text(100));
    let took = host.until_done();
    assert_eq!(host.texts(), (0..=10).map(text).collect::<Vec<_>>());
    assert!(matches!(host.sent.last(), Some(Frame::Close(Some(close))) if close.code == 1000));
    assert_eq!((host.closed, host.heard), (Some(CloseReason::Local), vec![]));
    assert_eq!(took, secs(1), "the peer has a second for its end");
}

#[test]
fn a_close_goes_on_wherever_the_last_message_falls_in_a_turn() {
    for max_turn_bytes in 0..300 {
        let mut host = Host::quiet(|config| config.max_turn_bytes = max_turn_bytes);
        (0..3).for_each(|number| host.send(number));
        host.queue.push(numbered(3)).unwrap();
        host.endpoint.close(CloseReason::Local, host.now);
        assert_eq!((host.until_done(), host.texts().len()), (secs(1), 4), "{max_turn_bytes}");
    }
}

#[test]
fn a_peer_that_ends_its_direction_too_is_not_waited_for() {
    let mut host = Host::quiet(|_| {});
    host.endpoint.close(CloseReason::Local, host.now);
    host.turn();
    assert_eq!(host.did[host.did.len() - 2..], ["shutdown", "yield"]);
    // Whatever it still says is dropped by the shutdown.
    host.did.clear();
    host.turn();
    assert_eq!(host.did, ["program", "shutdown", "wait"]);
    host.endpoint.handle_shut_down();
    assert_eq!(host.turn(), "done");
}

/// Takes a byte each `pause`, and after `bytes` of them nothing. Says how long it took until it was over.
fn close_with_a_slow_peer(
    mut host: Host,
    reason: CloseReason,
    pause: Duration,
    bytes: usize,
) -> (Host, Duration) {
    host.room = Some(0);
    (0..4).for_each(|number| host.send(number));
    host.turn();
    host.endpoint.close(reason, host.now);
    let began = host.now.mono;
    for _ in 0..bytes {
        host.turns();
        host.passes(pause);
        host.room = Some(1);
    }
    host.until_done();
    let took = host.now.mono.since(began);
    (host, took)
}

#[test]
fn a_close_waits_for_as_long_as_the_peer_takes_some_at_least_once_in_a_send_timeout() {
    // (send_timeout, reason, how slow it is, how many bytes it takes, how long that takes)
    let all = 4 * 9 + 2 + 2 + "the line has done its work".len();
    let table = [
        (secs(30), CloseReason::Local, secs(29), 20, 20 * secs(29) + secs(30)),
        (secs(2), CloseReason::Local, millis(1_900), 20, 20 * millis(1_900) + secs(2)),
        (secs(30), CloseReason::ShuttingDown, millis(900), 20, 20 * millis(900) + secs(1)),
        // Where the send timeout is off, it is the default.
        (Duration::ZERO, CloseReason::Local, secs(29), 20, 20 * secs(29) + secs(30)),
        (Duration::ZERO, CloseReason::ShuttingDown, millis(900), 20, 20 * millis(900) + secs(1)),
        // All of it, and then a second for the peer's end.
        (secs(30), CloseReason::Local, secs(29), 4 * all, 4 * all as u32 * secs(29) + secs(1)),
    ];
    for (send_timeout, reason, pause, bytes, expected) in table {
        let host = Host::quiet(|config| config.send_timeout = send_timeout);
        let (host, took) = close_with_a_slow_peer(host, reason.clone(), pause, bytes);
        assert_eq!(host.closed, Some(reason), "{send_timeout:?} {pause:?} {bytes}");
        match bytes < all {
            // The last word, which says that it was closed, has a second of its own.
            true => assert_eq!(took, expected + secs(1), "{send_timeout:?} {pause:?} {bytes}"),
            false => assert!(host.batch.is_empty() && host.has_said_goodbye(), "{:?}", host.batch),
        }
    }
}

#[test]
fn any_other_end_has_a_second_in_all_for_the_last_words_and_the_peers_end() {
    for blocked in [false, true] {
        let mut host = Host::quiet(|_| {});
        if blocked {
            host.room = Some(0);
        }
        host.endpoint.close(CloseReason::Replaced, host.now);
        assert_eq!((host.until_done(), &host.closed), (secs(1), &Some(CloseReason::Replaced)), "{blocked}");
        assert!(host.has_said_goodbye());
    }
}

#[test]
fn a_close_that_takes_its_time_is_hurried_by_a_shutdown_and_cut_short_by_any_other_end() {
    for (second, expected) in [
        (CloseReason::Local, secs(30)),
        (CloseReason::ShuttingDown, secs(1)),
        (CloseReason::Replaced, secs(1)),
        (CloseReason::SlowPeer, secs(1)),
    ] {
        // While messages wait to be handed over, and when all were.
        for room in [0, 9] {
            let mut host = Host::quiet(|_| {});
            host.room = Some(room);
            host.send(1);
            host.endpoint.close(CloseReason::Local, host.now);
            if room == 0 {
                host.room = Some(0);
                host.send_is_blocked();
            }
            host.turns();
            host.endpoint.close(second.clone(), host.now);
            assert_eq!(host.until_done(), expected, "{second} with room for {room}");
        }
    }
}

impl Host {
    /// The program decides about who has asked.
    fn is_decided(&mut self) {
        let (ticket, verdict) = (self.ticket.take().unwrap(), self.policy.unwrap());
        self.endpoint.decide(ticket, verdict, self.now).unwrap();
    }

    /// One more message cannot be handed over, since the one before it has not left.
    fn send_is_blocked(&mut self) {
        self.queue.push(numbered(2)).unwrap();
    }
}

#[test]
fn who_is_not_authenticated_is_closed_at_once() {
    let mut host = Host::stranger(|_| {});
    assert_eq!(host.endpoint.send(numbered(1)), Err(SendError::NotAuthenticated));
    host.endpoint.close(CloseReason::Local, host.now);
    assert_eq!(host.endpoint.send(numbered(1)), Err(SendError::Closed));
    host.turn();
    assert_eq!(host.closed, Some(CloseReason::Local));
    assert_eq!(host.endpoint.send(numbered(1)), Err(SendError::Closed));
}

#[test]
fn a_client_proves_itself_in_its_first_turn_and_a_server_that_takes_nothing_is_given_up_at_its_deadline() {
    let mut host = Host::client(|_| {});
    host.room = Some(0);
    assert_eq!((host.turn(), host.texts()), ("wait", vec![&*authenticate(client_wallet(), WALL)]));
    assert!(host.endpoint.is_stalled());
    host.passes(secs(5));
    host.turns();
    assert_eq!(host.closed, Some(CloseReason::AuthenticationTimeout(secs(5))));
}

#[test]
fn two_sides_that_close_read_one_another_though_their_programs_are_behind() {
    let mut host = Host::quiet(|_| {});
    host.ready = false;
    host.room = Some(0);
    host.send(1);
    host.turn();
    host.endpoint.close(CloseReason::Local, host.now);
    (0..10).for_each(|number| host.says(&text(number)));
    host.turn();
    assert!(host.incoming.is_empty() && host.heard.is_empty());
    // And when the last word is handed over, but has not left; a long message is no reason to stop.
    host.room = Some(9);
    host.turns();
    assert_eq!(host.closed, Some(CloseReason::Local));
    let mut limits = Vec::new();
    host.endpoint.begin_turn(host.now);
    while let action @ (Action::Read { .. } | Action::Program | Action::Flush) = host.endpoint.poll_action() {
        match action {
            Action::Read { limit, heard } => {
                limits.push((limit, heard));
                host.endpoint.handle_incoming(Incoming::Nothing);
            }
            Action::Flush => host.endpoint.handle_flush_blocked(host.written),
            _ => {}
        }
    }
    assert_eq!(limits, [(1 << 20, false)]);
}

// ------------------------------------------------------------------------------------------------ the other ends

#[test]
fn what_a_peer_said_before_its_line_broke_is_still_heard_and_what_never_left_is_handed_back() {
    let mut host = Host::quiet(|config| config.max_turn_frames = 2);
    (0..5).for_each(|number| host.says(&text(number)));
    (0..3).for_each(|number| host.send(number));
    host.broken = true;
    assert_eq!(host.until_done(), Duration::ZERO);
    assert_eq!((host.heard.len(), host.closed), (5, Some(CloseReason::Lost)));
    // The first was given to the transport, which found out by it.
    assert_eq!(host.endpoint.take_unsent(), [numbered(1), numbered(2)]);
}

#[test]
fn a_close_of_a_line_that_is_broken_waits_for_nobody() {
    let mut host = Host::quiet(|_| {});
    host.room = Some(0);
    host.send(1);
    host.turn();
    host.send(2);
    host.endpoint.close(CloseReason::Local, host.now);
    host.broken = true;
    assert_eq!((host.until_done(), &host.closed), (Duration::ZERO, &Some(CloseReason::Local)));
    assert_eq!(host.endpoint.take_unsent(), [numbered(2)]);
}

#[test]
fn a_line_that_breaks_while_nothing_happens_ends_at_once() {
    let mut host = Host::quiet(|_| {});
    host.broken = true;
    // It finds out when it writes the answer to a ping.
    assert_eq!((host.turn(), &host.closed), ("yield", &None));
    assert_eq!((host.turn(), &host.closed), ("done", &Some(CloseReason::Lost)));
}

#[test]
fn a_line_that_is_broken_already_is_closed_without_waiting() {
    let mut host = Host::quiet(|_| {});
    host.broken = true;
    host.turn();
    host.endpoint.close(CloseReason::Local, host.now);
    assert_eq!((host.turns(), &host.closed), ("done", &Some(CloseReason::Local)));
}

#[test]
fn after_a_break_nobody_is_waited_for_though_the_peer_had_taken_nothing() {
    let mut host = Host::quiet(|_| {});
    host.room = Some(0);
    host.send(1);
    host.turn();
    host.broken = true;
    host.turns();
    assert_eq!((&host.closed, host.endpoint.is_stalled()), (&Some(CloseReason::Lost), false));
}

#[test]
fn after_a_violation_or_the_end_of_the_transport_nothing_is_read() {
    for incoming in [Incoming::Violation(Violation::WebSocket), Incoming::Ended] {
        let mut host = Host::quiet(|_| {});
        // So that the last word takes its time.
        host.room = Some(0);
        host.send(2);
        host.turn();
        host.incoming.push_back(incoming.clone());
        host.says(&text(1));
        host.until_done();
        let expected = match incoming {
            Incoming::Violation(violation) => CloseReason::Violation(violation),
            _ => CloseReason::Lost,
        };
        assert_eq!((host.closed, host.incoming.len()), (Some(expected), 1));
    }
}

#[test]
fn a_client_that_is_refused_hears_why() {
    let mut host = Host::stranger(|_| {});
    host.policy = Some(Err(Refusal::NotWhitelisted));
    host.says(&authenticate(client_wallet(), WALL));
    // Not in this turn: policy takes its time.
    host.turn();
    host.is_decided();
    assert_eq!(host.until_done(), secs(1));
    assert_eq!(host.texts(), ["HTTP/1.1 403 Forbidden\r\n\r\n"]);
    assert_eq!(host.closed, Some(CloseReason::Refused(Refusal::NotWhitelisted)));
}

#[test]
fn a_decision_that_is_ready_counts_however_late_the_turn_comes() {
    let mut host = Host::stranger(|_| {});
    host.policy = Some(Ok(()));
    host.says(&authenticate(client_wallet(), WALL));
    host.turn();
    host.passes(secs(10));
    host.is_decided();
    assert_eq!((host.turns(), &host.closed), ("wait", &None));
    assert!(host.endpoint.connection().is_authenticated());
}

#[test]
fn who_is_let_in_hears_of_it_before_the_program_has_its_next_say() {
    let mut host = Host::stranger(|_| {});
    host.policy = Some(Ok(()));
    host.says(&authenticate(client_wallet(), WALL));
    host.turn();
    host.did.clear();
    host.is_decided();
    assert_eq!(host.turn(), "wait");
    assert_eq!(host.did, ["send", "tell", "read", "program", "flush", "wait"]);
}

#[test]
fn a_ticket_that_nobody_holds_any_more_is_a_refusal() {
    let mut host = Host::stranger(|_| {});
    host.policy = Some(Ok(()));
    host.says(&authenticate(client_wallet(), WALL));
    assert_eq!((host.turn(), &host.closed), ("wait", &None));
    host.ticket = None;
    host.turns();
    assert_eq!(host.closed, Some(CloseReason::Refused(Refusal::Denied)));
}

#[test]
fn an_end_that_the_program_has_heard_of_before_its_turn_needs_no_other_one() {
    let mut host = Host::quiet(|_| {});
    host.incoming.push_back(Incoming::Ended);
    assert_eq!((host.turn(), &host.closed), ("wait", &Some(CloseReason::Lost)));
}

#[test]
fn an_end_that_comes_of_the_programs_turn_begins_another_one() {
    // So that the program hears of it without delay.
    let mut host = Host::quiet(|_| {});
    host.ends = Some(CloseReason::Replaced);
    assert_eq!((host.turn(), &host.closed), ("yield", &Some(CloseReason::Replaced)));
}

// ------------------------------------------------------------------------------------------------------ the queue

#[test]
fn one_message_always_fits_and_no_more_than_the_bound_waits() {
    let mut config = Config::server(server_wallet().clone());
    config.max_send_queue = 0;
    let mut queue = SendQueue::new(&config);
    queue.push(numbered(1)).unwrap();
    assert_eq!(queue.push(numbered(2)), Err(SendError::Full { limit: 0 }));
    config.max_send_queue = 2 * (64 + text(1).len());
    let mut queue = SendQueue::new(&config);
    queue.push(numbered(1)).unwrap();
    queue.push(numbered(2)).unwrap();
    assert_eq!(queue.used(), config.max_send_queue);
    assert_eq!(queue.push(numbered(3)), Err(SendError::Full { limit: config.max_send_queue }));
    assert_eq!(queue.take_unsent(), [numbered(1), numbered(2)]);
    assert_eq!(queue.push(numbered(4)), Err(SendError::Closed));
    let mut queue = SendQueue::new(&config);
    queue.push(numbered(1)).unwrap();
    queue.push(numbered(2)).unwrap();
    queue.close();
    assert_eq!((queue.push(numbered(3)), queue.len()), (Err(SendError::Closed), 2));
}

#[test]
fn what_cannot_be_sent_is_refused_when_it_is_queued() {
    let mut host = Host::quiet(|config| config.max_message_size = 100);
    let long = Message::parse(format!(r#"{{"fill":"{}"}}"#, "x".repeat(100))).unwrap();
    let size = long.as_str().len();
    assert_eq!(host.endpoint.send(long), Err(SendError::TooLarge { size, limit: 100 }));
    let just = Message::parse(format!(r#"{{"fill":"{}"}}"#, "x".repeat(89))).unwrap();
    assert_eq!((just.as_str().len(), host.endpoint.send(just)), (100, Ok(())));
    let reserved = Message::parse(r#"{"type":"heartbeat"}"#).unwrap();
    assert!(matches!(host.endpoint.send(reserved), Err(SendError::Invalid(_))));
}

// ------------------------------------------------------------------------------------------------ for all inputs

#[derive(Debug, Clone)]
enum Step {
    Says(Incoming),
    Sends(u8),
    Queues(u8),
    Passes(u16),
    Room(Option<u8>),
    Ready(bool),
    Closes(CloseReason),
    Breaks,
    Ends,
}

fn step() -> impl Strategy<Value = Step> {
    let said = prop_oneof![
        Just(Incoming::Frame(Frame::Text(text(1).into()))),
        Just(Incoming::Frame(Frame::Pong(Default::default()))),
        Just(Incoming::Frame(Frame::Close(None))),
        Just(Incoming::Enough),
        Just(Incoming::Violation(Violation::NotUtf8)),
        Just(Incoming::Ended),
    ];
    let reason =
        prop_oneof![Just(CloseReason::Local), Just(CloseReason::ShuttingDown), Just(CloseReason::Replaced)];
    prop_oneof![
        16 => said.prop_map(Step::Says),
        8 => any::<u8>().prop_map(Step::Sends),
        8 => any::<u8>().prop_map(Step::Queues),
        8 => any::<u16>().prop_map(Step::Passes),
        8 => proptest::option::of(any::<u8>()).prop_map(Step::Room),
        2 => any::<bool>().prop_map(Step::Ready),
        1 => reason.prop_map(Step::Closes),
        1 => Just(Step::Breaks),
        1 => Just(Step::Ends),
    ]
}

fn live(steps: &[Step]) -> Host {
    let mut host = Host::authenticated(|config| {
        (config.max_turn_frames, config.max_turn_bytes) = (2, 300);
        config.max_send_queue = 1_000;
    });
    for step in steps {
        match step {
            Step::Says(incoming) => host.incoming.push_back(incoming.clone()),
            Step::Sends(number) => drop(host.endpoint.send(numbered((*number).into()))),
            Step::Queues(number) => drop(host.queue.push(numbered((*number).into()))),
            Step::Passes(time) => host.passes(millis((*time).into())),
            Step::Room(room) => host.room = room.map(usize::from),
            Step::Ready(ready) => host.ready = *ready,
            Step::Closes(reason) => host.endpoint.close(reason.clone(), host.now),
            Step::Breaks => host.broken = true,
            Step::Ends => host.incoming.push_back(Incoming::Ended),
        }
        let end = host.turns();
        if end == "wait" {
            let due = host.endpoint.poll_timeout();
            assert!(due.is_none_or(|due| due > host.now.mono), "it spins: {due:?} at {:?}", host.now.mono);
        }
    }
    host
}

proptest! {
    #[test]
    fn whatever_comes_it_never_spins_and_a_close_ends_it_in_bounded_time(steps in proptest::collection::vec(step(), 0..60)) {
        let mut host = live(&steps);
        host.endpoint.close(CloseReason::Local, host.now);
        host.room = Some(0);
        // A stall, and the peer's end; or the idle time-out.
        prop_assert!(host.until_done() <= secs(40));
        prop_assert!(host.closed.is_some());
    }

    #[test]
    fn the_same_inputs_give_the_same_outputs(steps in proptest::collection::vec(step(), 0..40)) {
        let (one, other) = (live(&steps), live(&steps));
        prop_assert_eq!(one.did, other.did);
        prop_assert_eq!(one.heard, other.heard);
        prop_assert_eq!(one.endpoint.poll_timeout(), other.endpoint.poll_timeout());
    }
}
