//! The names of what must be true.

use crate::clock::Moment;

macro_rules! invariants {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Something that must be true at every step of every world.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Invariant {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Invariant {
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

invariants! {
    /// No application message crosses, either way, before both sides are verified.
    NothingBeforeAuthentication = "nothing-before-authentication",
    /// An address that is authenticated, or that policy is asked about, signed the time it claims, within the window.
    AddressesAreProved = "addresses-are-proved",
    /// A server accepts each proof once, for as long as it runs.
    ProofsAreUsedOnce = "proofs-are-used-once",
    /// A memory of proofs that overflows hurts those who fill it: nobody else's proof is forgotten or taken for a replay,
    /// and only a newcomer is told to come later.
    OverflowHurtsItsOwn = "overflow-hurts-its-own",
    /// Policy is asked at most once a connection, and the application only about who passed the whitelist.
    PolicyIsAskedOnce = "policy-is-asked-once",
    /// A verdict that comes after the end is an error to its giver and changes nothing.
    LateVerdictsChangeNothing = "late-verdicts-change-nothing",
    /// A peer that is not authenticated by its deadline is gone, whatever it sent.
    StrangersAreGoneInTime = "strangers-are-gone-in-time",
    /// An address belongs to one connection at most: the one that was admitted last.
    NewestHoldsTheAddress = "newest-holds-the-address",
    /// An old connection's end takes nothing from its successor.
    SuccessorsSurvive = "successors-survive",
    /// The application hears one `disconnected` for each `authenticated`, and before it hears of a successor.
    ToldInPairs = "told-in-pairs",
    /// A broadcast reaches exactly those who are there.
    BroadcastsAreExact = "broadcasts-are-exact",
    /// What one peer does not take delays nothing for another.
    StuckPeersDelayNobody = "stuck-peers-delay-nobody",
    /// Messages arrive in order, each once, none made up.
    MessagesInOrder = "messages-in-order",
    /// A peer that was heard within its time is not judged idle, whatever this side did meanwhile.
    ResponsivePeersLive = "responsive-peers-live",
    /// What was sent before a close arrives, for as long as the peer takes some of it in time.
    TailsArrive = "tails-arrive",
    /// A peer that takes nothing for longer than it may is gone.
    StuckPeersGoInTime = "stuck-peers-go-in-time",
    /// The transport of a connection that has ended is gone a second after the last word has left, or could have.
    EndsComeInTime = "ends-come-in-time",
    /// A peer that is silent for longer than its time is gone.
    DeadPeersAreNoticed = "dead-peers-are-noticed",
    /// Every end has its cause in what came in; the wall clock is none.
    EndingsHaveCauses = "endings-have-causes",
    /// What must end a connection ends it.
    CausesHaveEndings = "causes-have-endings",
    /// After a turn the next deadline is later than its time, or there is none.
    DeadlinesAdvance = "deadlines-advance",
    /// After the end there is no output and no deadline.
    NothingAfterTheEnd = "nothing-after-the-end",
    /// One terminal event.
    OneTerminalEvent = "one-terminal-event",
    /// Nobody dials after `disconnect`.
    NoDialAfterDisconnect = "no-dial-after-disconnect",
    /// A client has one connection at a time.
    OneDialAtATime = "one-dial-at-a-time",
    /// Each wait is within its interval, and the dial does not come before its end.
    DelaysInTheirInterval = "delays-in-their-interval",
    /// The count of attempts grows by one, and only a session that lasted resets it.
    CountIsResetByWhatLasted = "count-is-reset-by-what-lasted",
    /// A client gives up when the end leaves no hope or its attempts are used up, and not before.
    GivesUpWithReason = "gives-up-with-reason",
    /// Two connections of a client, one after the other, never sign the same time: a server takes each only once.
    LoginsDiffer = "logins-differ",
    /// A connection keeps no more memory than [`MEMORY_PER_CONNECTION`](crate::MEMORY_PER_CONNECTION), a server no more
    /// about its connections than its limits say.
    MemoryIsBounded = "memory-is-bounded",
    /// Once the faults have stopped, everybody is connected and heard in time.
    EverybodyIsHeard = "everybody-is-heard",
    /// Once the faults have stopped, a session lasts.
    QuietSessionsLast = "quiet-sessions-last",
    /// The same choices make the same world, step by step.
    SameSeedSameTrace = "same-seed-same-trace",
    /// Nothing panics.
    NothingPanics = "nothing-panics",
    /// A world comes to its end: time passes.
    TimePasses = "time-passes",
}

impl core::fmt::Display for Invariant {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// An invariant that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which one.
    pub invariant: Invariant,
    /// When.
    pub at: Moment,
    /// By whom, and how.
    pub detail: String,
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} at {}: {}", self.invariant, self.at, self.detail)
    }
}
