//! Faults planted in the simulator's own host, to see that the oracle is not blind.
//!
//! Some invariants no host can break. They were seen broken by a change of `link-core` by hand: a second `Closed`
//! (`one-terminal-event`); a heartbeat answered after the end (`nothing-after-the-end`); a next beat at `now` (`deadlines-advance`); a close frame that
//! is passed over (`causes-have-endings`); not JSON taken for an unexpected message (`endings-have-causes`). So were others
//! that have a canary as well: proofs unchecked for their time or their signer, an own proof taken for an answer, an identity
//! changed by a second `authenticate` (`addresses-are-proved`); a deadline that starts anew with the proof
//! (`strangers-are-gone-in-time`); forgotten proofs that are taken again (`proofs-are-used-once`); pongs that are no sign of
//! life, a pause forgotten on the way through authentication, sleep of one's own that is not forgiven
//! (`responsive-peers-live`); a time signed twice (`logins-differ`); a late verdict that is taken
//! (`late-verdicts-change-nothing`).

macro_rules! canaries {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal breaks $invariant:ident,)+) => {
        /// Something that the simulator's host does wrong on purpose.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Canary {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Canary {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name, as the command takes it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// The invariant that it breaks first.
            pub const fn breaks(self) -> crate::Invariant {
                match self {
                    $(Self::$name => crate::Invariant::$invariant,)+
                }
            }
        }
    };
}

canaries! {
    /// Hands a message on before its sender is authenticated.
    DeliversEarly = "delivers-early" breaks NothingBeforeAuthentication,
    /// Asks policy about the address that a client claims, proved or not.
    AsksBeforeProof = "asks-before-proof" breaks AddressesAreProved,
    /// Forgets at each login which proofs were used.
    ForgetsProofs = "forgets-proofs" breaks ProofsAreUsedOnce,
    /// Takes a newcomer for a replay when its memory of proofs is full of others'.
    ShutsOthersOut = "shuts-others-out" breaks OverflowHurtsItsOwn,
    /// Asks policy a second time when a verdict is slow.
    AsksTwice = "asks-twice" breaks PolicyIsAskedOnce,
    /// Takes a connection for authenticated by a verdict that came too late.
    ObeysLateVerdicts = "obeys-late-verdicts" breaks LateVerdictsChangeNothing,
    /// Never looks at the deadline of a stranger.
    WaitsForStrangers = "waits-for-strangers" breaks StrangersAreGoneInTime,
    /// Gives an address to a newer connection and leaves the older one where it is.
    KeepsTheReplaced = "keeps-the-replaced" breaks ToldInPairs,
    /// Frees the address of a connection that ends, whoever has it by now.
    FreesTheAddress = "frees-the-address" breaks SuccessorsSurvive,
    /// Keeps the address of a connection that has ended.
    LeaksAddresses = "leaks-addresses" breaks NewestHoldsTheAddress,
    /// Says nothing to the application when a connection is replaced.
    ForgetsToTell = "forgets-to-tell" breaks ToldInPairs,
    /// Leaves the newest client out of a broadcast.
    SkipsTheNewest = "skips-the-newest" breaks BroadcastsAreExact,
    /// Serves nobody while one peer is stuck.
    WaitsForTheStuck = "waits-for-the-stuck" breaks StuckPeersDelayNobody,
    /// Sends the newest message first.
    SendsNewestFirst = "sends-newest-first" breaks MessagesInOrder,
    /// Looks at the clock before it reads what is there.
    JudgesBeforeReading = "judges-before-reading" breaks ResponsivePeersLive,
    /// Looks at the clock before it writes what the peer would take.
    JudgesBeforeWriting = "judges-before-writing" breaks ResponsivePeersLive,
    /// Never looks at the deadline of a peer that is authenticated.
    WaitsForTheDead = "waits-for-the-dead" breaks DeadPeersAreNoticed,
    /// Reads deadlines from the wall clock.
    LivesByTheWall = "lives-by-the-wall" breaks ResponsivePeersLive,
    /// Takes a connection whose transport has ended for alive.
    OverlooksTheEnd = "overlooks-the-end" breaks DeadPeersAreNoticed,
    /// Dials on after it was told to disconnect.
    DialsOn = "dials-on" breaks NoDialAfterDisconnect,
    /// Dials again while the last socket lingers.
    DialsTwice = "dials-twice" breaks OneDialAtATime,
    /// Does not wait between two attempts.
    NeverWaits = "never-waits" breaks DelaysInTheirInterval,
    /// Counts from zero whenever a socket opens.
    ResetsOnOpen = "resets-on-open" breaks CountIsResetByWhatLasted,
    /// Signs what the wall clock says, though it said so before.
    SignsTwice = "signs-twice" breaks LoginsDiffer,
    /// Takes every end for a lost connection, and so dials again after a refusal.
    RetriesEverything = "retries-everything" breaks GivesUpWithReason,
    /// Lets something decide that is no choice of the world's.
    ListensToTheOutside = "listens-to-the-outside" breaks SameSeedSameTrace,
    /// Wakes a connection again and again in the same instant.
    NeverSleeps = "never-sleeps" breaks TimePasses,
    /// Lets any amount wait for a peer that does not read.
    QueuesWithoutBound = "queues-without-bound" breaks MemoryIsBounded,
    /// Loses the ticket of a client that was to be let in.
    LosesTickets = "loses-tickets" breaks EverybodyIsHeard,
    /// Cannot bear a peer that says `null`.
    TripsOverNull = "trips-over-null" breaks NothingPanics,
    /// Ends a transport when its connection ends, whatever has yet to leave.
    CutsTheTailOff = "cuts-the-tail-off" breaks TailsArrive,
    /// Takes every look at a peer for a sign that it has taken something.
    CountsWhatNobodyTook = "counts-what-nobody-took" breaks StuckPeersGoInTime,
    /// Never looks at the deadline of a transport whose connection has ended.
    LingersOn = "lingers-on" breaks EndsComeInTime,
    /// Reads on though the application is behind.
    ReadsOn = "reads-on" breaks MemoryIsBounded,
    /// Says nothing of it when it stops reading.
    ForgetsThePause = "forgets-the-pause" breaks ResponsivePeersLive,
    /// Tells nobody that a connection is to end.
    HearsNoEviction = "hears-no-eviction" breaks CausesHaveEndings,
    /// Closes a session after a few seconds.
    ClosesForNoReason = "closes-for-no-reason" breaks QuietSessionsLast,
}
