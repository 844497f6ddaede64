//! Admission: a server's memory of who may come in, who is in, and which proofs were used.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::LazyLock,
};

use link_core::{
    Address, Admission, AdmissionConfig, Admitted, ConnectionId, Overload, Proof, Refusal, UnixMillis,
};
use proptest::prelude::*;
use support::*;

static ADDRESSES: LazyLock<[Address; 4]> = LazyLock::new(|| [11, 12, 13, 14].map(|n| wallet(n).address()));

const A: usize = 0;
const B: usize = 1;

fn address(n: usize) -> Address {
    ADDRESSES[n]
}

fn id(n: u64) -> ConnectionId {
    ConnectionId::new(n)
}

fn wall(after: i64) -> UnixMillis {
    UnixMillis::new(WALL.saturating_add_signed(after)).unwrap()
}

fn proof(address: Address, after: i64) -> Proof {
    Proof { address, timestamp: wall(after) }
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn house() -> Admission {
    Admission::new(AdmissionConfig::default())
}

fn house_with(change: impl FnOnce(&mut AdmissionConfig)) -> Admission {
    let mut config = AdmissionConfig::default();
    change(&mut config);
    Admission::new(config)
}

/// Brings a connection of this address in.
fn enter(house: &mut Admission, address: Address, id: ConnectionId) -> Result<Admitted, Refusal> {
    house.arrive(id, None).unwrap();
    house.admit(address, id)
}

// --- Who is in -----------------------------------------------------------------------------------------------

#[test]
fn the_first_connection_of_an_address_is_fresh() {
    let mut house = house();
    assert_eq!(house.arrive(id(1), None), Ok(()));
    assert_eq!((house.unauthenticated(), house.connected()), (1, 0));
    assert_eq!(house.admit(address(A), id(1)), Ok(Admitted::Fresh));
    assert_eq!((house.unauthenticated(), house.connected()), (0, 1), "it gave its place back");
    assert_eq!(house.holder(&address(A)), Some(id(1)));
    assert_eq!(house.holder(&address(B)), None);
}

#[test]
fn a_newer_connection_of_the_same_address_replaces_the_one_that_has_it() {
    let mut house = house();
    enter(&mut house, address(A), id(1)).unwrap();
    assert_eq!(enter(&mut house, address(B), id(2)), Ok(Admitted::Fresh));
    assert_eq!(enter(&mut house, address(A), id(3)), Ok(Admitted::Replaces(id(1))));
    assert_eq!(enter(&mut house, address(A), id(4)), Ok(Admitted::Replaces(id(3))));
    assert_eq!((house.holder(&address(A)), house.connected()), (Some(id(4)), 2));
}

#[test]
fn where_nobody_is_replaced_the_newer_one_is_refused_until_the_older_one_has_left() {
    let mut house = house_with(|config| config.replace_existing = false);
    enter(&mut house, address(A), id(1)).unwrap();
    assert_eq!(enter(&mut house, address(A), id(2)), Err(Refusal::AlreadyConnected));
    assert_eq!((house.holder(&address(A)), house.unauthenticated()), (Some(id(1)), 1));
    house.release(id(2));
    assert_eq!((house.holder(&address(A)), house.unauthenticated()), (Some(id(1)), 0));
    house.release(id(1));
    assert_eq!(enter(&mut house, address(A), id(3)), Ok(Admitted::Fresh));
}

#[test]
fn the_end_of_a_replaced_connection_does_not_touch_its_successor() {
    let mut house = house();
    enter(&mut house, address(A), id(1)).unwrap();
    enter(&mut house, address(A), id(2)).unwrap();
    house.release(id(1));
    house.release(id(1));
    assert_eq!((house.holder(&address(A)), house.connected()), (Some(id(2)), 1));
    assert_eq!(house.admit(address(A), id(1)), Err(Refusal::Denied), "nor does it come back");
    house.release(id(2));
    assert_eq!((house.holder(&address(A)), house.connected()), (None, 0));
}

#[test]
fn a_released_connection_is_not_admitted_any_more() {
    let mut house = house();
    house.arrive(id(1), None).unwrap();
    house.release(id(1));
    for late in [id(1), id(7)] {
        assert_eq!(house.admit(address(A), late), Err(Refusal::Denied));
    }
    assert_eq!((house.unauthenticated(), house.connected()), (0, 0));
}

#[test]
fn a_connection_that_is_admitted_twice_holds_one_address() {
    let mut house = house();
    enter(&mut house, address(A), id(1)).unwrap();
    assert_eq!(house.admit(address(A), id(1)), Ok(Admitted::Fresh), "it does not replace itself");
    assert_eq!(house.admit(address(B), id(1)), Ok(Admitted::Fresh));
    assert_eq!((house.holder(&address(A)), house.holder(&address(B))), (None, Some(id(1))));
    assert_eq!((house.connected(), house.unauthenticated()), (1, 0));
}

#[test]
fn releasing_what_never_arrived_does_nothing() {
    let mut house = house();
    enter(&mut house, address(A), id(1)).unwrap();
    house.release(id(9));
    assert_eq!((house.connected(), house.unauthenticated()), (1, 0));
}

// --- Who may come in -----------------------------------------------------------------------------------------

#[test]
fn a_whitelist_lets_in_whom_it_names_and_an_empty_one_nobody() {
    let mut house = house_with(|config| config.whitelist = Some([address(A)].into()));
    assert_eq!(house.screen(proof(address(A), 0), wall(0)), Ok(()));
    assert_eq!(house.screen(proof(address(B), 0), wall(0)), Err(Refusal::NotWhitelisted));
    let mut house = house_with(|config| config.whitelist = Some(BTreeSet::new()));
    assert_eq!(house.screen(proof(address(A), 0), wall(0)), Err(Refusal::NotWhitelisted));
}

// --- Which proofs were used ----------------------------------------------------------------------------------

#[test]
fn a_proof_works_once() {
    let mut house = house();
    assert_eq!(house.screen(proof(address(A), 0), wall(0)), Ok(()));
    for later in [0, 1, 4_999, 5_000] {
        assert_eq!(house.screen(proof(address(A), 0), wall(later)), Err(Refusal::Replayed), "{later}");
    }
    // Another time is another proof, and so is another address at the same time.
    assert_eq!(house.screen(proof(address(A), 1), wall(0)), Ok(()));
    assert_eq!(house.screen(proof(address(B), 0), wall(0)), Ok(()));
}

#[test]
fn another_spelling_of_the_signature_is_the_same_proof() {
    let first = Pair::authenticated();
    let json = authenticate(client_wallet(), WALL);
    let (head, signature) = json.split_once(r#""signature":""#).unwrap();
    let upper = format!(r#"{head}"signature":"{}"}}"#, signature[..130].to_uppercase());
    assert_ne!(upper, json);

    let mut server = Peer::server(server_config());
    server.hears(upper);
    let mut admission = first.house.admission.borrow_mut();
    assert_eq!(admission.screen(server.tickets[0].proof(), server.now.wall), Err(Refusal::Replayed));
}

#[test]
fn a_proof_signed_ahead_of_the_clock_is_remembered_for_as_long_as_it_could_be_accepted() {
    let mut house = house();
    assert_eq!(house.screen(proof(address(A), 5_000), wall(0)), Ok(()));
    house.screen(proof(address(B), 10_000), wall(10_000)).unwrap();
    assert_eq!(house.remembered_proofs(), 2);
    assert_eq!(house.screen(proof(address(A), 5_000), wall(10_000)), Err(Refusal::Replayed));
}

#[test]
fn what_cannot_be_accepted_again_is_forgotten() {
    let mut house = house();
    for n in 0..10 {
        house.screen(proof(address(A), n), wall(n)).unwrap();
    }
    assert_eq!(house.remembered_proofs(), 10);
    house.screen(proof(address(B), 5_005), wall(5_005)).unwrap();
    assert_eq!(house.remembered_proofs(), 6, "those of the last five seconds");
    house.screen(proof(address(B), 60_000), wall(60_000)).unwrap();
    assert_eq!(house.remembered_proofs(), 1);
}

#[test]
fn a_wall_clock_that_steps_back_does_not_revive_a_forgotten_proof() {
    let mut house = house();
    house.screen(proof(address(A), 0), wall(0)).unwrap();
    house.screen(proof(address(B), 6_000), wall(6_000)).unwrap();
    assert_eq!(house.remembered_proofs(), 1);
    assert_eq!(house.screen(proof(address(A), 0), wall(0)), Err(Refusal::Replayed));
    // Nothing as old as what was forgotten can be told from it; what is newer can.
    assert_eq!(house.screen(proof(address(B), 0), wall(0)), Err(Refusal::Replayed));
    assert_eq!(house.screen(proof(address(B), 1), wall(0)), Ok(()));
}

#[test]
fn the_memory_is_bounded_and_what_it_lost_is_refused() {
    let mut house = house_with(|config| config.max_remembered_proofs = 3);
    for n in 0..6 {
        assert_eq!(house.screen(proof(address(A), n), wall(0)), Ok(()));
        assert!(house.remembered_proofs() <= 3);
    }
    assert_eq!(house.remembered_proofs(), 3);
    for used in 0..6 {
        assert_eq!(house.screen(proof(address(A), used), wall(0)), Err(Refusal::Replayed), "{used}");
    }
    assert_eq!(house.screen(proof(address(A), -1), wall(0)), Err(Refusal::Replayed), "as old as a lost one");
    assert_eq!(house.screen(proof(address(A), 6), wall(0)), Ok(()));
}

#[test]
fn the_seventeenth_proof_of_an_address_folds_its_oldest() {
    let mut house = house();
    for n in 0..16 {
        assert_eq!(house.screen(proof(address(A), 10 * n), wall(0)), Ok(()));
    }
    assert_eq!(house.remembered_proofs(), 16);
    assert_eq!(
        house.screen(proof(address(A), 5), wall(0)),
        Ok(()),
        "nothing is lost yet, so 5 is not taken for used"
    );
    // 0 was the oldest of these seventeen: nothing of this address up to there is accepted any more.
    assert_eq!(house.remembered_proofs(), 17, "sixteen, and the mark");
    for lost in [-4_000, -1, 0] {
        assert_eq!(house.screen(proof(address(A), lost), wall(0)), Err(Refusal::Replayed), "{lost}");
    }
    assert_eq!(house.screen(proof(address(A), 1), wall(0)), Ok(()), "it is newer than what was lost");
    assert_eq!(house.remembered_proofs(), 17);
    assert_eq!(house.screen(proof(address(A), 1), wall(0)), Err(Refusal::Replayed), "but is lost at once");
    assert_eq!(house.screen(proof(address(A), 2), wall(0)), Ok(()));
    for used in 0..16 {
        assert_eq!(house.screen(proof(address(A), 10 * used), wall(0)), Err(Refusal::Replayed), "{used}");
    }
    // Who logs in with one time after the other is never hurt, however often.
    for n in 151..1_000 {
        assert_eq!(house.screen(proof(address(A), n), wall(0)), Ok(()), "{n}");
        assert_eq!(house.remembered_proofs(), 17);
    }
    assert_eq!(house.screen(proof(address(B), -4_000), wall(0)), Ok(()), "nobody else is");
}

#[test]
fn who_signs_for_the_future_moves_nobody_else_s_mark() {
    let mut house = house_with(|config| config.max_remembered_proofs = 4);
    assert_eq!(house.screen(proof(address(B), -1), wall(0)), Ok(()));
    for n in 0..1_000 {
        assert_eq!(house.screen(proof(address(A), 4_000 + n), wall(0)), Ok(()), "{n}");
        assert!(house.remembered_proofs() <= 4);
    }
    // The honest one's proof is still known, and its next login is welcome.
    assert_eq!(house.screen(proof(address(B), -1), wall(1)), Err(Refusal::Replayed));
    for login in [0, 1, 2, 5, 1_000] {
        assert_eq!(house.screen(proof(address(B), login), wall(login)), Ok(()), "{login}");
        assert_eq!(house.screen(proof(address(B), login), wall(login)), Err(Refusal::Replayed), "{login}");
    }
    // The attacker has hurt itself alone.
    assert_eq!(house.screen(proof(address(A), 1_000), wall(1_000)), Err(Refusal::Replayed));
}

#[test]
fn one_address_cannot_fill_the_memory() {
    let mut house = house_with(|config| config.max_remembered_proofs = 20);
    for n in 0..1_000 {
        assert_eq!(house.screen(proof(address(A), 4_000 + n), wall(0)), Ok(()), "{n}");
    }
    assert_eq!(house.remembered_proofs(), 17);
    assert_eq!(house.screen(proof(address(B), 0), wall(0)), Ok(()));
}

#[test]
fn a_full_memory_of_others_tells_a_newcomer_to_come_later_and_forgets_nobody_s_proof() {
    let mut house = house_with(|config| config.max_remembered_proofs = 2);
    house.screen(proof(address(0), 0), wall(0)).unwrap();
    house.screen(proof(address(1), 100), wall(0)).unwrap();
    for now in [0, 1, 4_000, 5_000] {
        assert_eq!(house.screen(proof(address(2), now), wall(now)), Err(Refusal::Busy), "{now}");
        // Nor is anything of it noted.
        assert_eq!(house.screen(proof(address(2), now), wall(now)), Err(Refusal::Busy), "{now}");
        assert_eq!(house.screen(proof(address(0), 0), wall(now)), Err(Refusal::Replayed), "{now}");
        assert_eq!(house.screen(proof(address(1), 100), wall(now)), Err(Refusal::Replayed), "{now}");
        assert_eq!(house.remembered_proofs(), 2);
    }
    // The first proof is out of the window now, and leaves its place.
    assert_eq!(house.screen(proof(address(2), 5_000), wall(5_001)), Ok(()), "it was not used up");
    assert_eq!(house.screen(proof(address(2), 5_000), wall(5_001)), Err(Refusal::Replayed));
    assert_eq!(house.screen(proof(address(0), 0), wall(5_001)), Err(Refusal::Replayed));
    assert_eq!(house.screen(proof(address(3), 5_000), wall(5_001)), Err(Refusal::Busy));
    // Those who are remembered come in all the same.
    assert_eq!(house.screen(proof(address(1), 5_001), wall(5_001)), Ok(()));
    assert_eq!(house.screen(proof(address(2), 5_002), wall(5_002)), Ok(()));
    assert_eq!(house.remembered_proofs(), 2);
}

#[test]
fn the_mark_of_an_address_is_dropped_when_it_is_out_of_the_window() {
    let mut house = house_with(|config| config.max_remembered_proofs = 1);
    house.screen(proof(address(A), 0), wall(0)).unwrap();
    house.screen(proof(address(A), 1), wall(0)).unwrap();
    assert_eq!(house.screen(proof(address(B), 5_001), wall(5_001)), Err(Refusal::Busy));
    assert_eq!(house.screen(proof(address(B), 5_002), wall(5_002)), Ok(()));
    assert_eq!(house.remembered_proofs(), 1);
    // A clock that is set back revives nothing of what the mark stood for.
    for used in [0, 1] {
        assert_eq!(house.screen(proof(address(A), used), wall(0)), Err(Refusal::Replayed), "{used}");
    }
}

#[test]
fn a_memory_for_nothing_takes_no_proof_at_all() {
    let mut house = house_with(|config| config.max_remembered_proofs = 0);
    for n in 0..3 {
        assert_eq!(house.screen(proof(address(A), n), wall(0)), Err(Refusal::Busy));
    }
    assert_eq!(house.remembered_proofs(), 0);
}

#[test]
fn a_flood_of_logins_stays_within_the_bound() {
    let mut house = house_with(|config| config.max_remembered_proofs = 30);
    for n in 0..10_000 {
        house.screen(proof(address(n % 4), n as i64 / 4), wall(n as i64 / 4)).unwrap();
        assert!(house.remembered_proofs() <= 30);
    }
}

// --- How many may wait ---------------------------------------------------------------------------------------

#[test]
fn no_more_than_the_limit_wait_in_all_and_each_end_makes_room() {
    let mut house = house_with(|config| config.max_unauthenticated = 2);
    house.arrive(id(1), ip("192.0.2.1")).unwrap();
    house.arrive(id(2), None).unwrap();
    assert_eq!(house.arrive(id(3), ip("192.0.2.3")), Err(Overload::Unauthenticated));
    // It holds nothing, so its end frees nothing.
    house.release(id(3));
    assert_eq!(house.arrive(id(4), None), Err(Overload::Unauthenticated));
    house.release(id(1));
    assert_eq!(house.arrive(id(5), None), Ok(()));
    house.admit(address(A), id(2)).unwrap();
    assert_eq!(house.arrive(id(6), None), Ok(()), "who is in does not count");
    assert_eq!(house.unauthenticated(), 2);
}

#[test]
fn no_more_than_the_limit_wait_from_one_network() {
    for (first, second, same) in [
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        // An IPv4 address in IPv6 clothes.
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
        // One household has a /64.
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
        ("2001:db8:1:2::1", "2001:db9:1:2::1", false),
    ] {
        let mut house = house_with(|config| config.max_unauthenticated_per_ip = 1);
        house.arrive(id(1), ip(first)).unwrap();
        let expected = if same { Err(Overload::UnauthenticatedFromIp) } else { Ok(()) };
        assert_eq!(house.arrive(id(2), ip(second)), expected, "{first} and {second}");
        assert_eq!(house.unauthenticated(), if same { 1 } else { 2 });
        house.release(id(1));
        assert_eq!(house.arrive(id(3), ip(first)), Ok(()), "{first} and {second}");
    }
}

#[test]
fn who_is_let_in_does_not_count_against_its_network_any_more() {
    let mut house = house_with(|config| config.max_unauthenticated_per_ip = 1);
    for n in 0..4 {
        house.arrive(id(n as u64), ip("192.0.2.1")).unwrap();
        house.admit(address(n), id(n as u64)).unwrap();
    }
    assert_eq!((house.connected(), house.unauthenticated()), (4, 0));
    for n in 0..4 {
        house.release(id(n));
    }
    house.arrive(id(9), ip("192.0.2.1")).unwrap();
    assert_eq!(house.arrive(id(10), ip("192.0.2.1")), Err(Overload::UnauthenticatedFromIp));
}

#[test]
fn a_transport_without_an_address_counts_in_all_only() {
    let mut house = house_with(|config| config.max_unauthenticated_per_ip = 0);
    assert_eq!(house.arrive(id(1), ip("192.0.2.1")), Err(Overload::UnauthenticatedFromIp));
    assert_eq!(house.arrive(id(2), None), Ok(()));
    assert_eq!(house.unauthenticated(), 1);
}

#[test]
fn a_refused_connection_keeps_its_place_until_it_is_released() {
    let mut house = house_with(|config| {
        config.replace_existing = false;
        config.max_unauthenticated = 1;
    });
    enter(&mut house, address(A), id(1)).unwrap();
    assert_eq!(enter(&mut house, address(A), id(2)), Err(Refusal::AlreadyConnected));
    assert_eq!(house.arrive(id(3), None), Err(Overload::Unauthenticated));
    house.release(id(2));
    assert_eq!(house.arrive(id(3), None), Ok(()));
}

// --- Against a model -----------------------------------------------------------------------------------------

/// The same rules, told plainly: one list of who is where.
#[derive(Debug, Default)]
struct Model {
    waiting: BTreeMap<ConnectionId, Option<u8>>,
    connected: BTreeMap<Address, ConnectionId>,
}

#[derive(Debug, Clone)]
enum Step {
    Arrive(Option<u8>),
    /// The connection that arrived so many arrivals ago.
    Admit(usize, u64),
    Release(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => prop::option::of(0_u8..3).prop_map(Step::Arrive),
        3 => (0_usize..4, 0_u64..6).prop_map(|(address, ago)| Step::Admit(address, ago)),
        2 => (0_u64..8).prop_map(Step::Release),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn who_is_in_and_who_waits_is_as_the_model_says(steps in steps(), replace_existing: bool) {
        let mut house = house_with(|config| {
            config.replace_existing = replace_existing;
            config.max_unauthenticated = 4;
            config.max_unauthenticated_per_ip = 2;
        });
        let mut model = Model::default();
        let mut arrivals = 10;
        for step in steps {
            match step {
                Step::Arrive(network) => {
                    arrivals += 1;
                    let same = model.waiting.values().filter(|other| network.is_some() && **other == network);
                    let expected = if model.waiting.len() >= 4 {
                        Err(Overload::Unauthenticated)
                    } else if same.count() >= 2 {
                        Err(Overload::UnauthenticatedFromIp)
                    } else {
                        model.waiting.insert(id(arrivals), network);
                        Ok(())
                    };
                    let ip = network.map(|n| IpAddr::from([192, 0, 2, n]));
                    prop_assert_eq!(house.arrive(id(arrivals), ip), expected);
                }
                Step::Admit(n, ago) => {
                    let (address, id) = (address(n), id(arrivals - ago));
                    let known = model.waiting.contains_key(&id) || model.connected.values().any(|c| *c == id);
                    let holder = model.connected.get(&address).copied().filter(|holder| *holder != id);
                    let expected = match holder {
                        _ if !known => Err(Refusal::Denied),
                        Some(_) if !replace_existing => Err(Refusal::AlreadyConnected),
                        Some(holder) => Ok(Admitted::Replaces(holder)),
                        None => Ok(Admitted::Fresh),
                    };
                    if expected.is_ok() {
                        model.waiting.remove(&id);
                        model.connected.retain(|_, connection| *connection != id);
                        model.connected.insert(address, id);
                    }
                    prop_assert_eq!(house.admit(address, id), expected);
                }
                Step::Release(ago) => {
                    let id = id(arrivals - ago);
                    model.waiting.remove(&id);
                    model.connected.retain(|_, connection| *connection != id);
                    house.release(id);
                }
            }
            prop_assert_eq!(house.unauthenticated(), model.waiting.len());
            prop_assert_eq!(house.connected(), model.connected.len());
            for address in *ADDRESSES {
                prop_assert_eq!(house.holder(&address), model.connected.get(&address).copied());
            }
        }
    }

    #[test]
    fn whatever_the_wall_clock_does_no_proof_is_accepted_twice(
        logins in prop::collection::vec((0_usize..3, -6_i64..7, -9_i64..12), 0..80),
        capacity in prop_oneof![0_usize..6, Just(1_000)],
    ) {
        let mut house = house_with(|config| config.max_remembered_proofs = capacity);
        let mut accepted = BTreeSet::new();
        let mut clock = 0;
        for (n, offset, step) in logins {
            clock += step * 1_000;
            let proof = proof(address(n), clock + offset * 1_000);
            if house.screen(proof, wall(clock)).is_ok() {
                prop_assert!(accepted.insert((proof.address, proof.timestamp)), "{:?} again", proof);
            }
            prop_assert!(house.remembered_proofs() <= capacity);
        }
    }

    #[test]
    fn while_the_clock_goes_forward_nobody_honest_is_refused_whatever_the_others_sign(
        attacks in prop::collection::vec((0_usize..3, -5_000_i64..5_001, 0_i64..2_000), 0..120),
        capacity in 4_usize..80,
    ) {
        let mut house = house_with(|config| config.max_remembered_proofs = capacity);
        let honest = address(3);
        let mut clock = 0;
        house.screen(proof(honest, 0), wall(0)).unwrap();
        for (n, offset, step) in attacks {
            clock += step;
            let _ = house.screen(proof(address(n), clock + offset), wall(clock));
            // It comes again before its last login is out of the window, so that it has a place for ever.
            clock += 1;
            prop_assert_eq!(house.screen(proof(honest, clock), wall(clock)), Ok(()));
            prop_assert_eq!(house.screen(proof(honest, clock), wall(clock)), Err(Refusal::Replayed));
        }
    }

    #[test]
    fn while_the_clock_goes_forward_and_there_is_room_nobody_honest_is_refused(
        logins in prop::collection::vec((0_usize..3, -5_i64..6, 0_i64..4), 0..16),
    ) {
        let mut house = house();
        let mut accepted = BTreeSet::new();
        let mut clock = 0;
        for (n, offset, step) in logins {
            clock += step * 1_000;
            let proof = proof(address(n), clock + offset * 1_000);
            let first_use = accepted.insert((proof.address, proof.timestamp));
            prop_assert_eq!(house.screen(proof, wall(clock)).is_ok(), first_use);
        }
    }
}
