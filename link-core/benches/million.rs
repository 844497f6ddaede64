//! A million idle connections of one server, each with a heartbeat a second, on one thread: what they need of a second, and
//! of memory. `cargo bench -p link-core --bench million`, and a number for fewer of them. It takes about two minutes,
//! nearly all of it for a million handshakes.
//!
//! Every connection is a `Connection` whose client has proved itself and was let in. Time is simulated: a timer wheel
//! calls each when it is due, and the pong and the `heartbeat` of its client come 40 ms later, so that each connection is fetched
//! from memory twice a second, as it is behind a network. There is no network here, no WebSocket and no TLS.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::print_stdout)]

mod cases;

use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

use allocation_counter::{AllocationInfo, measure};
use bytes::BytesMut;
use cases::{Configs, HEARTBEAT, after, let_in, sent};
use link_core::{ByteString, Connection, Event, Frame, Output};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
/// From a ping to its pong, in milliseconds.
const ROUND_TRIP: usize = 40;
/// One for each millisecond: more than lies between now and any next time-out.
const SLOTS: usize = 2048;
const SECONDS: u32 = 6;

fn main() {
    let number = env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let resident_before = resident();
    let began = Instant::now();
    let (connections, mut cost) = connected(number);
    println!("{number} handshakes in {:.1?}", began.elapsed());

    let mut world = World::new(connections);
    // The first ones also make the wheel, and each connection's room for its heartbeats.
    println!("simulated second  CPU time  allocations  heartbeats");
    for second in 1..=SECONDS {
        let (used, mut beats) = (cpu_time(), Beats::default());
        let all = measure(|| beats = world.run(SECOND));
        let used = cpu_time() - used;
        println!("{second:>16} {used:>9.0?} {:>12} {:>11}", all.count_total, beats.told);
        cost += beats.cost;
    }
    let per_connection = |bytes: i64| bytes / i64::from(number);
    println!(
        "bytes per connection: {}, of which {} are the `Connection` itself",
        per_connection(cost.bytes_current),
        size_of::<Connection>()
    );
    println!(
        "bytes per connection of this process, its wheel included: {}",
        per_connection(resident() - resident_before)
    );
}

/// Connections whose handshakes are done, spread over a second, and what they took of the allocator.
fn connected(number: u32) -> (Vec<Connection>, AllocationInfo) {
    let threads = u32::try_from(thread::available_parallelism().unwrap().get()).unwrap();
    let configs = Configs::new();
    let proof = sent(&mut Connection::client(configs.client.clone(), after(Duration::ZERO)));
    let share = |thread: u32| {
        let mut share = Vec::new();
        let cost = measure(|| {
            share = (thread..number)
                .step_by(usize::try_from(threads).unwrap())
                .map(|place| let_in(&configs, &proof, after(SECOND * place / number)))
                .collect();
            share.shrink_to_fit();
        });
        (share, cost)
    };
    thread::scope(|scope| {
        let shares: Vec<_> = (0..threads).map(|thread| scope.spawn(move || share(thread))).collect();
        let (mut connections, mut cost) = (Vec::new(), AllocationInfo::default());
        for (share, its_cost) in shares.into_iter().map(|share| share.join().unwrap()) {
            connections.extend(share);
            cost += its_cost;
        }
        (connections, cost)
    })
}

/// What came of some time.
#[derive(Default)]
struct Beats {
    /// How many heartbeats the application was told.
    told: usize,
    /// What the connections took of the allocator when they were due.
    cost: AllocationInfo,
}

/// An event loop without a network.
struct World {
    elapsed: Duration,
    connections: Vec<Connection>,
    /// By the millisecond: whose time-out may be due then.
    wheel: Vec<Vec<u32>>,
    /// By the millisecond: whose answer comes then, and the payload of its pong.
    answers: Vec<Vec<(u32, [u8; 8])>>,
    /// What was read from the network.
    received: BytesMut,
}

impl World {
    fn new(connections: Vec<Connection>) -> Self {
        let (wheel, answers) = (vec![Vec::new(); SLOTS], vec![Vec::new(); SLOTS]);
        let mut world = Self { elapsed: SECOND, connections, wheel, answers, received: BytesMut::new() };
        (0..u32::try_from(world.connections.len()).unwrap()).for_each(|place| world.arm(place));
        world
    }

    fn arm(&mut self, place: u32) {
        let due = self.connections[place as usize].poll_timeout().unwrap().since_origin();
        self.wheel[slot(due)].push(place);
    }

    fn run(&mut self, time: Duration) -> Beats {
        let (end, mut beats) = (self.elapsed + time, Beats::default());
        while self.elapsed < end {
            self.elapsed += MILLISECOND;
            let slot = slot(self.elapsed);
            let mut answers = std::mem::take(&mut self.answers[slot]);
            answers.drain(..).for_each(|(place, payload)| self.hear(place, payload, &mut beats));
            self.answers[slot] = answers;
            let mut due = std::mem::take(&mut self.wheel[slot]);
            beats.cost += measure(|| due.iter().for_each(|place| self.time_out(*place)));
            due.drain(..).for_each(|place| self.arm(place));
            self.wheel[slot] = due;
        }
        beats
    }

    /// What is sent is gone at once, as after a write to a socket.
    fn time_out(&mut self, place: u32) {
        let connection = &mut self.connections[place as usize];
        connection.handle_timeout(after(self.elapsed));
        while let Some(output) = connection.poll_output() {
            match output {
                Output::Send(Frame::Ping(payload)) => {
                    let payload = payload.as_ref().try_into().unwrap();
                    allocation_counter::opt_out(|| {
                        self.answers[(slot(self.elapsed) + ROUND_TRIP) % SLOTS].push((place, payload));
                    });
                }
                Output::Send(Frame::Text(_)) => {}
                other => panic!("{other:?} of an idle connection"),
            }
        }
    }

    fn hear(&mut self, place: u32, payload: [u8; 8], beats: &mut Beats) {
        let (connection, now) = (&mut self.connections[place as usize], after(self.elapsed));
        self.received.extend_from_slice(&payload);
        connection.handle_frame(Frame::Pong(self.received.split().freeze()), now);
        connection.handle_frame(Frame::Text(ByteString::from_static(HEARTBEAT)), now);
        while let Some(output) = connection.poll_output() {
            match output {
                Output::Event(Event::Heartbeat { round_trip: Some(_) }) => beats.told += 1,
                other => panic!("{other:?} of an idle connection"),
            }
        }
    }
}

fn slot(elapsed: Duration) -> usize {
    usize::try_from(elapsed.as_micros().div_ceil(1000)).unwrap() % SLOTS
}

/// How long this thread has run on a processor.
fn cpu_time() -> Duration {
    let schedule = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(schedule.split(' ').next().unwrap().parse().unwrap())
}

/// How many bytes of memory this process has.
fn resident() -> i64 {
    const PAGE: i64 = 4096;
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    PAGE * pages.split(' ').nth(1).unwrap().parse::<i64>().unwrap()
}
