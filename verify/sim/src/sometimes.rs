//! Marks on rare paths. A test that never goes somewhere proves nothing about it, so a run says where it has not been.

macro_rules! marks {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// A path that a world sometimes takes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Mark {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mark {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name, as the command prints it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

marks! {
    /// A verdict came after the end of its connection.
    LateVerdict = "late-verdict",
    /// A verdict never came.
    MissingVerdict = "missing-verdict",
    /// A ticket was dropped, and the connection noticed.
    DroppedTicket = "dropped-ticket",
    /// The application's check said no.
    Denied = "denied",
    /// An address that is not on the whitelist knocked.
    NotWhitelisted = "not-whitelisted",
    /// A connection took another one's address.
    Replaced = "replaced",
    /// A connection lost its address before it was authenticated.
    ReplacedDuringAuthentication = "replaced-during-authentication",
    /// A connection ended between its admission and its authentication.
    EndedWhileSucceeding = "ended-while-succeeding",
    /// A second connection was refused, since the first is not to be replaced.
    AlreadyConnected = "already-connected",
    /// An old socket's end arrived after its successor was registered.
    OldEndAfterSuccessor = "old-end-after-successor",
    /// There was no place left among the unauthenticated.
    Overload = "overload",
    /// A proof was used again, and refused.
    ReplayRefused = "replay-refused",
    /// A proof was refused because its time was forgotten.
    ForgottenTimeRefused = "forgotten-time-refused",
    /// A proof was refused because its address had used up its room, and has a mark in place of its older ones.
    FoldedTimeRefused = "folded-time-refused",
    /// A login was refused for now, since the memory of proofs was full of others'.
    MemoryFull = "memory-full",
    /// Somebody got in with a proof that was made for another server.
    RelayedProofAccepted = "relayed-proof-accepted",
    /// A message crossed a session of which somebody in the middle passes every frame on, to a server nobody dialled.
    RelayedSession = "relayed-session",
    /// Somebody on the path made a client take its server for somebody else.
    ClientDeceived = "client-deceived",
    /// Somebody on the path made a server take a client for somebody else.
    ServerDeceived = "server-deceived",
    /// A server's wall clock was set back after it had forgotten proofs.
    ClockSetBackAfterForgetting = "clock-set-back-after-forgetting",
    /// A proof was too old, or too new.
    StaleProof = "stale-proof",
    /// A signature was not the address's.
    BadSignature = "bad-signature",
    /// An authenticate was not one.
    MalformedProof = "malformed-proof",
    /// A client got its own proof back.
    Reflected = "reflected",
    /// A client met a server that it does not expect.
    UnexpectedServer = "unexpected-server",
    /// Something else came before a proof.
    UnexpectedMessage = "unexpected-message",
    /// A second authenticate came, and changed nothing.
    SecondAuthenticate = "second-authenticate",
    /// Something that is not JSON came to an authenticated connection.
    NotJson = "not-json",
    /// A message over the limit ended a connection.
    TooLarge = "too-large",
    /// The WebSocket layer could not take what came.
    BrokenWebSocket = "broken-websocket",
    /// A server gave up on a stranger.
    StrangerTimedOut = "stranger-timed-out",
    /// A client gave up on a server that does not answer.
    ServerTimedOut = "server-timed-out",
    /// A server noticed a dead client.
    DeadClientNoticed = "dead-client-noticed",
    /// A client noticed a dead server.
    DeadServerNoticed = "dead-server-noticed",
    /// A side looked at its clock so late that it judged nobody.
    Overslept = "overslept",
    /// A frame came, or was read, in the same instant in which a timer was due.
    TimerAndFrameTogether = "timer-and-frame-together",
    /// A timer fired before its deadline.
    EarlyTimer = "early-timer",
    /// A timer fired long after its deadline.
    LateTimer = "late-timer",
    /// An application stopped taking events, so its peer was not read.
    ReadsPaused = "reads-paused",
    /// It stopped before its peer was authenticated, or stayed so over it.
    PausedOverAuthentication = "paused-over-authentication",
    /// A peer took too little of what was sent to it.
    SlowPeer = "slow-peer",
    /// A message was refused, since too much was waiting already.
    QueueFull = "queue-full",
    /// A broadcast went out while one of its receivers was stuck.
    BroadcastPastAStuckPeer = "broadcast-past-a-stuck-peer",
    /// A wall clock was set while a session was open.
    WallStepInSession = "wall-step-in-session",
    /// A wall clock ran backwards while a session was open.
    WallBackwardsInSession = "wall-backwards-in-session",
    /// A machine was suspended, with its monotonic clock, while a session was open.
    SuspendedInSession = "suspended-in-session",
    /// A process hung, while its clocks went on, with a session open.
    HungInSession = "hung-in-session",
    /// A server died with sessions open.
    ServerDied = "server-died",
    /// A server shut down with sessions open.
    ServerShutDown = "server-shut-down",
    /// A client died and came back without memory.
    ClientDied = "client-died",
    /// A wire was cut with frames under way.
    CutUnderWay = "cut-under-way",
    /// A frame came after the end of its connection.
    FrameAfterTheEnd = "frame-after-the-end",
    /// Both ends closed before they heard of each other.
    ClosesCrossed = "closes-crossed",
    /// A client used up its attempts.
    Exhausted = "exhausted",
    /// A client gave up for an end that leaves no hope.
    GaveUpFinally = "gave-up-finally",
    /// A session lasted, and the count of attempts started anew.
    CountReset = "count-reset",
    /// A client was told to disconnect while it dialled.
    DisconnectedWhileDialling = "disconnected-while-dialling",
    /// A client was told to disconnect while it waited.
    DisconnectedWhileWaiting = "disconnected-while-waiting",
    /// A client was told to disconnect while it awaited the server's answer.
    DisconnectedInHandshake = "disconnected-in-handshake",
    /// A client signed a time ahead of its clock, to be unlike the one before.
    SignedAhead = "signed-ahead",
    /// A transport stopped in the middle of what was there, having read enough for one call.
    ReadInBits = "read-in-bits",
    /// Something was written after the peer's reset had come, and before it was read.
    WroteIntoAReset = "wrote-into-a-reset",
    /// All clients dialled in the same instant.
    Crowd = "crowd",
}

/// Which marks were reached, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    reached: Vec<u64>,
}

impl Default for Marks {
    fn default() -> Self {
        Self { reached: vec![0; Mark::ALL.len()] }
    }
}

impl Marks {
    pub(crate) fn reach(&mut self, mark: Mark) {
        if let Some(times) = self.reached.get_mut(mark as usize) {
            *times = times.saturating_add(1);
        }
    }

    pub(crate) fn reach_if(&mut self, reached: bool, mark: Mark) {
        if reached {
            self.reach(mark);
        }
    }

    /// How often a mark was reached.
    pub fn times(&self, mark: Mark) -> u64 {
        self.reached.get(mark as usize).copied().unwrap_or(0)
    }

    /// Those that were never reached.
    pub fn unreached(&self) -> Vec<Mark> {
        Mark::ALL.iter().copied().filter(|mark| self.times(*mark) == 0).collect()
    }

    /// Adds those of another world.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.reached.iter_mut().zip(&other.reached) {
            *mine = mine.saturating_add(*theirs);
        }
    }
}
