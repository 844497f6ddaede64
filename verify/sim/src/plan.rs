//! What a world is made of, and which faults it has: drawn for each seed, or written down by hand.

use core::time::Duration;
use std::{collections::BTreeSet, sync::LazyLock};

use link_core::{Address, AdmissionConfig, Config, PrivateKey, ReconnectPolicy, Wallet};

use crate::{
    agenda::Ties,
    application::{Application, Talker},
    choices::Choices,
};

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Something that can go wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Fault {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

faults! {
    /// Frames take their time, some of them seconds.
    Delay,
    /// One direction stands still for a while.
    Stall,
    /// Pipes hold little.
    BoundedPipe,
    /// Wires are cut, and both ends are told.
    CutFin,
    /// Wires are cut, what is under way is lost, and both ends are told.
    CutReset,
    /// Wires are cut, and nobody is told, in one direction or both.
    CutSilent,
    /// The end of a transport arrives long after it was sent.
    LateEnd,
    /// Wall clocks are set.
    WallStep,
    /// Wall clocks run too fast, or too slow.
    WallDrift,
    /// Wall clocks run backwards.
    WallBackwards,
    /// Machines are suspended, and their monotonic clocks with them.
    Suspend,
    /// Processes hang while their clocks go on.
    Hang,
    /// Timers fire late.
    LateTimers,
    /// Timers fire early.
    EarlyTimers,
    /// What falls on one moment happens in any order.
    Ties,
    /// Servers die, and come back without memory.
    ServerCrash,
    /// Servers shut down in an orderly way, and come back without memory.
    ServerShutdown,
    /// Clients die, and come back without memory.
    ClientCrash,
    /// Applications take their events late.
    SlowApplication,
    /// A server asks its application about each address, which answers late, no, after the end, or never.
    Check,
    /// Several clients have one wallet.
    SharedWallets,
    /// All clients dial at once.
    Crowd,
    /// Transports read a little at a time.
    ReadInBits,
    /// Applications disconnect, and servers close connections.
    Leave,
    /// Applications send long messages, and too many.
    Long,
    /// Somebody on the path edits, drops, repeats, reflects and makes up frames.
    OnPath,
    /// Somebody connects to the servers, with proofs that were recorded, and anything else.
    Intruder,
    /// Somebody stands where a server should be, and makes things up or relays everything to another server.
    Impostor,
    /// Limits are tight: few places, little memory for proofs.
    TightLimits,
    /// Guards and time-outs have unusual lengths, or are off.
    OddTimes,
}

/// A set of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults(u64);

impl Faults {
    /// A world in which nothing goes wrong.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self((1 << Fault::ALL.len()) - 1);

    /// These, and `fault`.
    #[must_use]
    pub const fn with(self, fault: Fault) -> Self {
        Self(self.0 | (1 << fault as u8))
    }

    /// These, without `fault`.
    #[must_use]
    pub const fn without(self, fault: Fault) -> Self {
        Self(self.0 & !(1 << fault as u8))
    }

    /// Whether `fault` is among them.
    pub const fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u8) != 0
    }

    /// Those in the set.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(move |fault| self.has(*fault))
    }

    /// Each of all faults on or off: a world with a few of them goes deeper than one with all.
    fn drawn(choices: &mut Choices<'_>) -> Self {
        // How many, so that there are worlds with nearly none and worlds with nearly all.
        let density = choices.below(4);
        let mut faults = Self::NONE;
        for fault in Fault::ALL {
            if choices.below(4) > 3u64.saturating_sub(density) {
                faults = faults.with(*fault);
            }
        }
        faults
    }
}

/// With bounds that a world comes near to.
fn hosted(mut config: Config) -> Config {
    config.max_send_queue = 64 << 10;
    config.send_timeout = Duration::from_secs(5);
    config.max_turn_frames = 32;
    config.max_turn_bytes = 16 << 10;
    config
}

/// A server of a world.
#[allow(missing_debug_implementations, reason = "an application need not have one")]
pub struct ServerPlan {
    /// What its connections are told.
    pub config: Config,
    /// Who gets in.
    pub admission: AdmissionConfig,
    /// What runs on it. Lost when the server dies? No: the application is the test's, and sees all its lives.
    pub application: Box<dyn Application>,
    /// How many messages may wait for the application before its peers are not read any more.
    pub event_capacity: usize,
}

impl ServerPlan {
    /// A server with all defaults.
    pub fn new(wallet: Wallet, application: impl Application + 'static) -> Self {
        Self {
            config: hosted(Config::server(wallet)),
            admission: AdmissionConfig::default(),
            application: Box::new(application),
            event_capacity: 64,
        }
    }
}

/// A client of a world.
#[allow(missing_debug_implementations, reason = "an application need not have one")]
pub struct ClientPlan {
    /// What its connections are told.
    pub config: Config,
    /// When it dials again.
    pub reconnect: ReconnectPolicy,
    /// Which server it dials, by its place in [`Plan::servers`].
    pub server: usize,
    /// What runs on it.
    pub application: Box<dyn Application>,
    /// How long a dial may take.
    pub connect_timeout: Duration,
    /// How many messages may wait for the application before the server is not read any more.
    pub event_capacity: usize,
}

impl ClientPlan {
    /// A client of the first server, with all defaults.
    pub fn new(wallet: Wallet, application: impl Application + 'static) -> Self {
        Self {
            config: hosted(Config::client(wallet)),
            reconnect: ReconnectPolicy::default(),
            server: 0,
            application: Box::new(application),
            connect_timeout: Duration::from_secs(4),
            event_capacity: 64,
        }
    }
}

/// A world, before it begins.
#[allow(missing_debug_implementations, reason = "an application need not have one")]
pub struct Plan {
    /// What may go wrong.
    pub faults: Faults,
    /// Who goes first at one moment, where [`Fault::Ties`] is off.
    pub ties: Ties,
    /// For how long things go wrong.
    pub duration: Duration,
    /// The servers.
    pub servers: Vec<ServerPlan>,
    /// The clients.
    pub clients: Vec<ClientPlan>,
    /// Whether the liveness phase waits until messages went both ways, which takes applications that say something on
    /// [`tick`](Application::tick) and answer.
    pub must_be_heard: bool,
}

impl Plan {
    /// A world of which everything is written down: no faults, no processes yet.
    pub const fn calm() -> Self {
        Self {
            faults: Faults::NONE,
            ties: Ties::Planned,
            duration: Duration::from_secs(10),
            servers: Vec::new(),
            clients: Vec::new(),
            must_be_heard: false,
        }
    }

    /// A world of which everything is drawn. Only faults in `allowed` are.
    pub fn drawn(choices: &mut Choices<'_>, allowed: Faults) -> Self {
        let faults = Faults(Faults::drawn(choices).0 & allowed.0);
        let servers = 1u64.saturating_add(choices.below(2));
        let clients = 1u64.saturating_add(choices.below(4));
        let duration = choices.millis(2_000, 20_000);
        let client_wallets: Vec<usize> = (0..clients)
            .map(|at| {
                let shared = faults.has(Fault::SharedWallets) && choices.below(4) != 0;
                if shared { 0 } else { at as usize }
            })
            .collect();
        let server_plans: Vec<_> =
            (0..servers).map(|at| drawn_server(at as usize, &client_wallets, faults, choices)).collect();
        let client_plans = client_wallets
            .iter()
            .map(|number| {
                let server = choices.below(servers) as usize;
                drawn_client(*number, server, faults, choices)
            })
            .collect();
        let ties = choices.one_of([Ties::Planned, Ties::TimersFirst, Ties::InputsFirst]);
        Self { faults, ties, duration, servers: server_plans, clients: client_plans, must_be_heard: true }
    }
}

/// The number of wallets that are kept ready.
const WALLETS: usize = 16;
/// The wallets of the servers come first among them.
const SERVER_WALLETS: usize = 4;
/// The adversary's own.
pub(crate) const ADVERSARY_WALLET: usize = WALLETS - 1;

/// One of a few wallets that every world uses: making one takes as long as a signature.
pub fn wallet(number: usize) -> Wallet {
    static KEPT: LazyLock<Vec<Wallet>> = LazyLock::new(|| (0..WALLETS).filter_map(make_wallet).collect());
    KEPT.get(number)
        .or_else(|| KEPT.first())
        .cloned()
        .unwrap_or_else(|| unreachable!("some keys are in range"))
}

fn make_wallet(number: usize) -> Option<Wallet> {
    let byte = u8::try_from(number).ok()?.checked_add(1)?;
    PrivateKey::from_bytes([byte; 32]).ok().map(Wallet::from_private_key)
}

fn client_wallet(number: usize) -> Wallet {
    wallet(SERVER_WALLETS.saturating_add(number))
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn draw_times(config: &mut Config, faults: Faults, choices: &mut Choices<'_>) {
    if !faults.has(Fault::OddTimes) {
        return;
    }
    config.auth_timeout = choices.one_of([secs(5), secs(1), secs(2), millis(300), Duration::ZERO]);
    config.auth_check_interval = choices.one_of([secs(1), Duration::ZERO, millis(250)]);
    config.auth_window = choices.one_of([secs(5), secs(2), secs(20)]);
    config.heartbeat_interval = choices.one_of([secs(1), millis(400), secs(3), Duration::ZERO]);
    config.idle_timeout = choices.one_of([secs(5), secs(2), millis(900), Duration::ZERO]);
    config.idle_check_interval = choices.one_of([secs(1), Duration::ZERO, millis(250)]);
}

fn talker(choices: &mut Choices<'_>, faults: Faults, broadcasts: bool) -> Talker {
    let longest = if faults.has(Fault::Long) { choices.one_of([200, 5_000, 20_000]) } else { 40 };
    Talker { longest, broadcasts, leaves: faults.has(Fault::Leave), ..Talker::default() }
}

fn drawn_server(number: usize, clients: &[usize], faults: Faults, choices: &mut Choices<'_>) -> ServerPlan {
    let application = talker(choices, faults, true);
    let mut plan = ServerPlan::new(wallet(number), application);
    draw_times(&mut plan.config, faults, choices);
    plan.admission.auth_window = plan.config.auth_window;
    plan.admission.replace_existing = choices.below(3) != 2;
    if choices.below(8) == 7 {
        // Some of the clients, and always the first of them.
        let listed: BTreeSet<Address> = clients
            .iter()
            .filter(|number| **number == 0 || choices.below(2) == 0)
            .map(|number| client_wallet(*number).address())
            .collect();
        plan.admission.whitelist = Some(listed);
    }
    if faults.has(Fault::TightLimits) {
        plan.admission.max_unauthenticated = choices.one_of([4096, 1, 2, 4]);
        plan.admission.max_unauthenticated_per_ip = choices.one_of([1024, 1, 2]);
        plan.admission.max_remembered_proofs = choices.one_of([1 << 18, 1, 2, 4]);
        plan.config.max_message_size = choices.one_of([1 << 20, 400, 2_000]);
        plan.config.max_send_queue = choices.one_of([64 << 10, 2_000, 8_000]);
    }
    plan.config.send_timeout = choices.one_of([secs(5), secs(2)]);
    plan.event_capacity = choices.one_of([64, 1, 2, 4]);
    plan
}

fn drawn_client(number: usize, server: usize, faults: Faults, choices: &mut Choices<'_>) -> ClientPlan {
    let application = talker(choices, faults, false);
    let mut plan = ClientPlan::new(client_wallet(number), application);
    draw_times(&mut plan.config, faults, choices);
    plan.server = server;
    if choices.below(4) == 3 {
        plan.config.expected_servers = vec![wallet(server).address()];
    }
    if faults.has(Fault::TightLimits) {
        plan.config.max_message_size = choices.one_of([1 << 20, 400, 2_000]);
        plan.config.max_send_queue = choices.one_of([64 << 10, 2_000, 8_000]);
    }
    plan.reconnect.max_attempts = choices.one_of([5, 1, 2, 12, 0]);
    plan.reconnect.delay = choices.one_of([secs(1), millis(100), millis(10)]);
    plan.reconnect.max_delay = choices.one_of([secs(8), secs(2)]);
    plan.reconnect.lasted = choices.one_of([secs(10), secs(2), millis(500)]);
    plan.reconnect.retry_refusals = choices.below(3) == 2;
    plan.connect_timeout = choices.one_of([secs(4), secs(1)]);
    plan.config.send_timeout = choices.one_of([secs(5), secs(2)]);
    plan.event_capacity = choices.one_of([64, 1, 2, 4]);
    plan
}
