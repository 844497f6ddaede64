//! Who is let in: whitelist, the program's own check, one connection for an address, limits on strangers.

use std::{
    io::Read,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_channel::oneshot;
use futures_util::future::join;
use link_driver::{
    ClientEvent, CloseReason, FailureCause, GiveUp, Overload, Refusal, Runtime, SendError, ServerError,
    ServerEvent, Status, Verdict, Violation,
};
use serde_json::{Value, json};

use crate::support::{
    raw::{self, RawPeer, authenticate, unix_millis},
    *,
};

fn refused(status: Status) -> (FailureCause, GiveUp) {
    (FailureCause::Closed(CloseReason::RefusedByServer(status)), GiveUp::Final)
}

pub async fn a_whitelist_lets_in_whom_it_names_and_refuses_others_with_403<R: Runtime>() {
    let (friend, stranger) = (wallet(), wallet());
    let mut server = server::<R>().whitelist([wallet().address(), friend.address()]).bind().await.unwrap();
    let builder = client(&server).wallet(friend);
    let (client_in, _) = meet(&mut server, builder).await;

    let connecting = client(&server).wallet(stranger.clone()).connect();
    let (outcome, rejected) = join(connecting, server.rejected()).soon::<R>().await;
    assert_eq!(failure(outcome), refused(Status::Forbidden));
    assert_eq!(rejected, (Some(stranger.address()), CloseReason::Refused(Refusal::NotWhitelisted)));

    let at = server.local_address().unwrap();
    let seen = script(move || {
        let mut peer = RawPeer::open(at);
        peer.send(&authenticate(&stranger, unix_millis()));
        peer.until_the_end()
    });
    let (seen, _) = join(seen, server.rejected()).soon::<R>().await;
    assert_eq!(seen, (vec!["HTTP/1.1 403 Forbidden\r\n\r\n".into()], Some(4403)));
    client_in.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_whitelist_can_be_changed_while_the_server_runs<R: Runtime>() {
    let (first, second) = (wallet(), wallet());
    let mut server = server::<R>().whitelist([first.address()]).bind().await.unwrap();
    let handle = server.handle();
    let (first_line, first_client) = meet(&mut server, client(&handle).wallet(first.clone())).await;
    handle.set_whitelist([second.address()]);
    let (second_line, _) = meet(&mut server, client(&handle).wallet(second)).await;
    assert!(first_client.is_connected(), "who is there stays");
    first_line.close().soon::<R>().await;
    server.disconnected().await;
    let connecting = client(&handle).wallet(first.clone()).connect();
    let (outcome, _) = join(connecting, server.rejected()).soon::<R>().await;
    assert!(outcome.is_err());
    handle.remove_whitelist();
    let (first_line, _) = meet(&mut server, client(&handle).wallet(first)).await;
    join(first_line.close(), second_line.close()).soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn an_empty_whitelist_lets_nobody_in<R: Runtime>() {
    let mut server = server::<R>().whitelist([]).bind().await.unwrap();
    let connecting = client(&server).connect();
    let (outcome, _) = join(connecting, server.rejected()).soon::<R>().await;
    assert_eq!(failure(outcome), refused(Status::Forbidden));
    server.close().soon::<R>().await;
}

pub async fn the_programs_check_may_allow_deny_and_attach_data<R: Runtime>() {
    let (plain, named, denied) = (wallet(), wallet(), wallet());
    let (by_name, refusing) = (named.address(), denied.address());
    let mut server = server::<R>()
        .on_authenticate(move |candidate| async move {
            assert!(is_loopback(candidate.remote_address));
            // It is async: it may wait for something.
            pause::<R>(Duration::from_millis(10)).await;
            match candidate.address {
                address if address == by_name => Verdict::allow_with(String::from("Ada")),
                address if address == refusing => Verdict::deny(),
                _ => Verdict::allow(),
            }
        })
        .bind()
        .await
        .unwrap();

    let builder = client(&server).wallet(named);
    let (first, peer) = meet(&mut server, builder).await;
    assert_eq!(peer.data::<String>().map(String::as_str), Some("Ada"));
    assert_eq!(peer.data::<u32>(), None, "it is a text, not a number");
    assert_eq!(server.client(&peer.address()).unwrap().data::<String>(), Some(&String::from("Ada")));

    let builder = client(&server).wallet(plain);
    let (second, peer) = meet(&mut server, builder).await;
    assert_eq!(peer.data::<String>(), None);

    let connecting = client(&server).wallet(denied.clone()).connect();
    let (outcome, rejected) = join(connecting, server.rejected()).soon::<R>().await;
    assert_eq!(failure(outcome), refused(Status::Forbidden));
    assert_eq!(rejected, (Some(denied.address()), CloseReason::Refused(Refusal::Denied)));
    first.close().soon::<R>().await;
    second.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_check_may_be_a_bool<R: Runtime>() {
    let friend = wallet();
    let friends = friend.address();
    let mut server = server::<R>()
        .on_authenticate(move |candidate| async move { candidate.address == friends })
        .bind()
        .await
        .unwrap();
    let builder = client(&server).wallet(friend);
    let (client_in, _) = meet(&mut server, builder).await;
    let connecting = client(&server).connect();
    let (outcome, _) = join(connecting, server.rejected()).soon::<R>().await;
    assert_eq!(failure(outcome), refused(Status::Forbidden));
    client_in.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_check_that_panics_refuses_its_client_and_harms_nobody_else<R: Runtime>() {
    let mut server = server::<R>()
        .on_authenticate(|_| async {
            // As a panic, without the message that would look like a failure in the output of the tests.
            if R::now() > R::now() - Duration::from_secs(1) {
                std::panic::resume_unwind(Box::new("the program's check is broken"));
            }
            true
        })
        .bind()
        .await
        .unwrap();
    for _ in 0..2 {
        let connecting = client(&server).connect();
        let (outcome, rejected) = join(connecting, server.rejected()).soon::<R>().await;
        assert_eq!(failure(outcome), refused(Status::Forbidden));
        assert_eq!(rejected.1, CloseReason::Refused(Refusal::Denied));
    }
    server.close().soon::<R>().await;
}

pub async fn a_check_past_the_deadline_is_dropped_and_answered_408<R: Runtime>() {
    let (dropped, gone) = Dropped::new();
    let held = Arc::new(Mutex::new(Some(dropped)));
    let mut server = server::<R>()
        .auth_timeout(Duration::from_millis(400))
        .on_authenticate(move |_| {
            let held = held.lock().unwrap().take();
            async move {
                std::future::pending::<()>().await;
                held.is_some()
            }
        })
        .bind()
        .await
        .unwrap();
    let (at, slow) = (server.local_address().unwrap(), wallet());
    let asking = slow.clone();
    let seen = script(move || {
        let mut peer = RawPeer::open(at);
        peer.send(&authenticate(&asking, unix_millis()));
        peer.until_the_end()
    });
    let (seen, (address, reason)) = join(seen, server.rejected()).soon::<R>().await;
    assert_eq!(seen, (vec!["HTTP/1.1 408 Request Timeout\r\n\r\n".into()], Some(4408)));
    assert_eq!(address, Some(slow.address()));
    assert_eq!(reason, CloseReason::AuthenticationTimeout(Duration::from_millis(400)));
    gone.soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_check_is_dropped_when_its_client_goes_away<R: Runtime>() {
    let (dropped, gone) = Dropped::new();
    let (asked, asking) = oneshot::channel();
    let held = Arc::new(Mutex::new(Some((dropped, asked))));
    let mut server = server::<R>()
        .on_authenticate(move |_| {
            let (held, asked) = held.lock().unwrap().take().unwrap();
            asked.send(()).unwrap();
            async move {
                std::future::pending::<()>().await;
                drop(held);
                true
            }
        })
        .bind()
        .await
        .unwrap();
    let (at, leaving) = (server.local_address().unwrap(), wallet());
    let peer = script(move || {
        let mut peer = RawPeer::open(at);
        peer.send(&authenticate(&leaving, unix_millis()));
        peer
    });
    let (peer, _) = join(peer, server.connected()).soon::<R>().await;
    asking.soon::<R>().await.unwrap();
    drop(peer);
    assert_eq!(server.rejected().await.1, CloseReason::Lost);
    gone.soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn the_check_is_asked_once_and_only_about_who_proved_a_listed_address<R: Runtime>() {
    let (friend, stranger) = (wallet(), wallet());
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = asked.clone();
    let mut server = server::<R>()
        .whitelist([friend.address()])
        .on_authenticate(move |_| {
            counting.fetch_add(1, Ordering::SeqCst);
            async {
                pause::<R>(Duration::from_millis(50)).await;
                true
            }
        })
        .bind()
        .await
        .unwrap();
    let at = server.local_address().unwrap();
    let refused = |proof: Value| {
        script(move || {
            let mut peer = RawPeer::open(at);
            peer.send(&proof);
            peer.until_the_end()
        })
    };

    let mut forged = authenticate(&friend, unix_millis());
    forged["signature"] = authenticate(&stranger, unix_millis())["signature"].clone();
    let (seen, _) = join(refused(forged), server.rejected()).soon::<R>().await;
    assert_eq!(seen, (vec!["HTTP/1.1 401 Unauthorized\r\n\r\n".into()], Some(4401)));
    let (seen, _) =
        join(refused(authenticate(&stranger, unix_millis())), server.rejected()).soon::<R>().await;
    assert_eq!(seen, (vec!["HTTP/1.1 403 Forbidden\r\n\r\n".into()], Some(4403)));
    assert_eq!(asked.load(Ordering::SeqCst), 0);

    // A second `authenticate` while the first is being judged.
    let impatient = friend.clone();
    let seen = script(move || {
        let mut peer = RawPeer::open(at);
        peer.send(&authenticate(&impatient, unix_millis() - 1));
        peer.send(&authenticate(&impatient, unix_millis()));
        peer.until_the_end()
    });
    let (seen, rejected) = join(seen, server.rejected()).soon::<R>().await;
    assert_eq!(seen, (vec![], Some(1008)));
    assert_eq!(rejected.1, CloseReason::Violation(Violation::UnexpectedMessage));
    let before = asked.load(Ordering::SeqCst);
    assert!(before <= 1, "not at all, if both came at once");

    let builder = client(&server).wallet(friend);
    let (client_in, _) = meet(&mut server, builder).await;
    assert_eq!(asked.load(Ordering::SeqCst), before + 1);
    client_in.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_used_proof_is_refused_and_evicts_nobody<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let (at, owner) = (echo.handle.local_address().unwrap(), wallet());
    let proof = authenticate(&owner, unix_millis());
    let (first, again) = (proof.clone(), proof);
    let login = script(move || {
        let mut peer = RawPeer::open(at);
        peer.send(&first);
        peer.text();
        peer
    });
    let (mut owner_peer, peer) = join(login, echo.authenticated()).soon::<R>().await;
    let replay = script(move || {
        let mut peer = RawPeer::open(at);
        peer.send(&again);
        peer.until_the_end()
    });
    let (seen, rejected) = join(replay, echo.rejected()).soon::<R>().await;
    assert_eq!(seen, (vec!["HTTP/1.1 401 Unauthorized\r\n\r\n".into()], Some(4401)));
    assert_eq!(rejected, (Some(owner.address()), CloseReason::Refused(Refusal::Replayed)));
    assert!(peer.is_connected());
    let spoke = script(move || {
        owner_peer.send(&json!({ "type": "still here" }));
        owner_peer.text()
    });
    assert!(spoke.soon::<R>().await.contains("still here"));
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn a_proof_beside_the_clock_is_refused_with_401<R: Runtime>() {
    let mut server = server::<R>().auth_timeout(Duration::from_secs(2)).bind().await.unwrap();
    let at = server.local_address().unwrap();
    for beside in [-60_000, 60_000] {
        let seen = script(move || {
            let mut peer = RawPeer::open(at);
            peer.send(&authenticate(&wallet(), unix_millis().saturating_add_signed(beside)));
            peer.until_the_end()
        });
        let (seen, (address, reason)) = join(seen, server.rejected()).soon::<R>().await;
        assert_eq!(seen, (vec!["HTTP/1.1 401 Unauthorized\r\n\r\n".into()], Some(4401)));
        assert_eq!((address, reason), (None, CloseReason::Violation(Violation::StaleProof)));
    }
    server.close().soon::<R>().await;
}

pub async fn a_newer_connection_replaces_the_older_and_the_program_hears_it_in_order<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let same = wallet();
    let builder = client(&server).wallet(same.clone());
    let (mut first, old) = meet(&mut server, builder).await;
    first.try_send(numbered(1)).unwrap();
    assert_eq!(number_of(&server.message().await.1), 1);

    let connecting = client(&server).wallet(same.clone()).connect();
    let story = async {
        server.connected().await;
        assert_eq!(server.disconnected().await, (old.clone(), CloseReason::Replaced));
        server.authenticated().await
    };
    let (second, new) = join(connecting, story).soon::<R>().await;
    let second = second.unwrap();
    assert_ne!(old, new);
    assert!(!old.is_connected() && new.is_connected());
    assert_eq!(old.try_send(numbered(0)), Err(SendError::Closed));
    assert_eq!(server.client(&same.address()), Some(new.clone()));

    // The replaced one is told so, and does not fight for its place.
    assert_eq!(first.disconnected().await.0, CloseReason::Replaced);
    match first.told().await {
        Some(ClientEvent::ConnectionFailed(failure)) => {
            assert_eq!(failure.cause, FailureCause::Closed(CloseReason::Replaced));
            assert_eq!(failure.reason, GiveUp::Final);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(first.told().await, None);
    first.close().soon::<R>().await;

    // Its end does not touch its successor.
    second.try_send(numbered(2)).unwrap();
    assert_eq!(server.message().await.0, new);
    assert_eq!(server.clients(), [new]);
    second.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_replaced_connection_is_told_409_in_quotes_and_not_heard_any_more<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let (at, same) = (server.local_address().unwrap(), wallet());
    let login = |wallet: link_driver::Wallet, earlier| {
        script(move || {
            let mut peer = RawPeer::open(at);
            peer.send(&authenticate(&wallet, unix_millis() - earlier));
            peer.text();
            peer
        })
    };
    let (mut first, old) = join(login(same.clone(), 1), server.authenticated()).soon::<R>().await;
    let (second, _) = join(login(same, 0), server.disconnected_then_authenticated(&old)).soon::<R>().await;
    let seen = script(move || {
        // Nobody has told it yet that it is not to speak.
        first.send(&json!({ "type": "late" }));
        first.until_the_end()
    });
    let seen = seen.soon::<R>().await;
    assert_eq!(seen, (vec![r#""HTTP/1.1 409 Conflict\r\n\r\n""#.into()], Some(4409)));
    drop(second);
    // The next event is the successor's end: nothing of the late message.
    assert_eq!(server.disconnected().await.1, CloseReason::Lost);
    server.close().soon::<R>().await;
}

trait Replacement: ServerStory {
    async fn disconnected_then_authenticated(
        &mut self,
        old: &link_driver::ConnectedClient,
    ) -> link_driver::ConnectedClient {
        self.connected().await;
        assert_eq!(self.disconnected().await, (old.clone(), CloseReason::Replaced));
        self.authenticated().await
    }
}

impl<S: ServerStory> Replacement for S {}

pub async fn a_dozen_logins_with_one_wallet_leave_one_and_the_story_is_in_order<R: Runtime>() {
    const LOGINS: u64 = 12;
    let mut server = server::<R>().bind().await.unwrap();
    let (at, same) = (server.local_address().unwrap(), wallet());
    let address = same.address();
    let logins = script(move || {
        // Each has a time of its own, or it would be a replay.
        let now = unix_millis();
        let proofs: Vec<_> = (0..LOGINS).map(|earlier| authenticate(&same, now - earlier)).collect();
        let mut peers: Vec<_> = proofs.iter().map(|_| RawPeer::open(at)).collect();
        for (peer, proof) in peers.iter_mut().zip(&proofs) {
            peer.send(proof);
        }
        peers
    });
    let story = async {
        let mut current = None;
        let mut let_in = 0;
        while let_in < LOGINS {
            match server.told().await.unwrap() {
                ServerEvent::Connected { .. } => {}
                ServerEvent::Authenticated(peer) => {
                    assert_eq!(current.replace(peer), None, "the old one's end comes first");
                    let_in += 1;
                }
                ServerEvent::Disconnected(peer, CloseReason::Replaced) => {
                    assert_eq!(current.take(), Some(peer))
                }
                // Replaced after it was let in, and before it had been told so.
                ServerEvent::Rejected(it) if it.reason == CloseReason::Replaced => let_in += 1,
                other => panic!("{other:?}"),
            }
        }
        current
    };
    let (peers, current) = join(logins, story).soon::<R>().await;
    assert!(current.is_some());
    assert_eq!(server.client(&address), current);
    assert_eq!(server.clients().len(), 1);
    drop(peers);
    server.close().soon::<R>().await;
}

pub async fn who_comes_and_goes_while_the_program_is_behind_is_held_up_by_nobody_and_told_in_order<
    R: Runtime,
>() {
    let mut server = server::<R>().event_capacity(1).bind().await.unwrap();
    let same = wallet();
    let builder = client(&server).wallet(same.clone()).max_send_queue(64 << 10);
    let (first, old) = meet(&mut server, builder).await;
    let at = server.local_address().unwrap();
    let mut others = Vec::new();
    for _ in 0..2 {
        let (peer, _) = join(script(move || RawPeer::open(at)), server.connected()).soon::<R>().await;
        others.push(peer);
    }
    let [mut second, mut third]: [RawPeer; 2] = others.try_into().ok().unwrap();
    send_until_stuck::<R>(16 << 10, A_WHILE, |message| first.try_send(message)).await;
    // The program takes nothing meanwhile.
    let now = unix_millis();
    let others = script(move || {
        second.send(&authenticate(&same, now - 1));
        second.text();
        third.send(&authenticate(&same, now));
        third.text();
        third
    });
    let third = others.soon::<R>().await;
    let mut story = Vec::new();
    while story.len() < 4 {
        match server.told().await.unwrap() {
            ServerEvent::Disconnected(peer, reason) => story.push((peer, Some(reason))),
            ServerEvent::Authenticated(peer) => story.push((peer, None)),
            ServerEvent::Message(..) => {}
            other => panic!("{other:?}"),
        }
    }
    let [(a, left), (b, came), (c, left_too), (d, stays)]: [_; 4] = story.try_into().ok().unwrap();
    assert_eq!([&a, &b], [&old, &c]);
    assert_eq!([left, left_too], [Some(CloseReason::Replaced), Some(CloseReason::Replaced)]);
    assert!(d != b && came.is_none() && stays.is_none() && d.is_connected());
    drop((first, third));
    server.close().soon::<R>().await;
}

pub async fn a_program_that_is_behind_hears_of_an_end_before_it_hears_of_who_came_back<R: Runtime>() {
    // One has room in the queue, and one waits for room: then its connection is not read any more.
    const MESSAGES: usize = 2;
    let builder = server::<R>().event_capacity(1).heartbeat_interval(Duration::ZERO);
    let mut server = builder.bind().await.unwrap();
    let at = server.local_address().unwrap();
    let wallet = wallet();
    let open = script(move || (RawPeer::open(at), RawPeer::open(at)));
    let connected = async {
        server.connected().await;
        server.connected().await;
    };
    let ((mut first, mut second), ()) = join(open, connected).soon::<R>().await;
    let proof = authenticate(&wallet, unix_millis());
    let login = script(move || {
        first.send(&proof);
        first.text();
        // In one piece, so that one turn takes them all.
        let frames =
            (0..MESSAGES).map(|number| raw::frame(0x81, numbered(number).to_string().as_bytes(), true));
        first.bytes(&frames.collect::<Vec<_>>().concat());
        first
    });
    let (mut first, before) = join(login, server.authenticated()).soon::<R>().await;
    until::<R>(|| server.stats().messages_received == MESSAGES as u64).await;

    // The program has taken none of them, and ends the line; the same client is back at once.
    before.close();
    script(move || first.until_the_end()).soon::<R>().await;
    let proof = authenticate(&wallet, unix_millis());
    let back = script(move || {
        second.send(&proof);
        second.text();
        second
    });
    let second = back.soon::<R>().await;
    let story = async {
        for number in 0..MESSAGES {
            let (from, message) = server.message().await;
            assert_eq!((from, number_of(&message)), (before.clone(), number));
        }
        assert_eq!(server.disconnected().await, (before.clone(), CloseReason::Local));
        let after = server.authenticated().await;
        assert!(after != before && after.address() == before.address());
    };
    story.soon::<R>().await;
    drop(second);
    server.close().soon::<R>().await;
}

pub async fn without_replacement_the_newer_connection_is_refused_with_409<R: Runtime>() {
    let mut echo = Echo::start(server::<R>().replace_existing(false)).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let (at, same) = (echo.handle.local_address().unwrap(), wallet());
    let builder = client(&echo.handle).wallet(same.clone());
    let (mut first, peer) = meet(&mut echo, builder).await;

    let connecting = client(&echo.handle).wallet(same.clone()).connect();
    let (outcome, rejected) = join(connecting, echo.rejected()).soon::<R>().await;
    assert_eq!(failure(outcome), refused(Status::Conflict));
    assert_eq!(rejected, (Some(same.address()), CloseReason::Refused(Refusal::AlreadyConnected)));

    let again = same.clone();
    let seen = script(move || {
        let mut peer = RawPeer::open(at);
        // Not the time of the one before, which may be this very millisecond.
        peer.send(&authenticate(&again, unix_millis() + 1000));
        peer.until_the_end()
    });
    let (seen, _) = join(seen, echo.rejected()).soon::<R>().await;
    assert_eq!(seen, (vec!["HTTP/1.1 409 Conflict\r\n\r\n".into()], Some(4409)));

    first.try_send(numbered(7)).unwrap();
    assert_eq!(number_of(&first.message().await), 7, "the older line goes on");
    assert_eq!(echo.handle.client(&same.address()), Some(peer));
    bystander.notices_nothing().await;

    // Once it is gone, the address is free.
    first.close().soon::<R>().await;
    echo.disconnected().await;
    let builder = client(&echo.handle).wallet(same);
    let (next, _) = meet(&mut echo, builder).await;
    next.close().soon::<R>().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn who_finds_the_memory_of_proofs_full_is_told_to_come_later_and_gets_in_then<R: Runtime>() {
    let window = Duration::from_secs(1);
    let builder = server::<R>().max_remembered_proofs(1).auth_timeout(window);
    let mut echo = Echo::start(builder).await;
    let builder = client(&echo.handle);
    let (first, _) = meet(&mut echo, builder).await;
    let (delay, attempts) = (Duration::from_millis(50), 1_000);
    let builder = client(&echo.handle).reconnect_delay(delay).max_reconnect_delay(delay);
    let mut second = builder.max_reconnect_attempts(attempts).start().unwrap();
    assert_eq!(second.disconnected().await.0, CloseReason::PeerClosed { code: Some(1013) });
    let in_time = async { while !matches!(second.told().await, Some(ClientEvent::Authenticated { .. })) {} };
    in_time.soon::<R>().await;
    assert!(first.is_authenticated(), "the first goes on");
    first.close().soon::<R>().await;
    second.close().soon::<R>().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn too_many_strangers_are_turned_away_until_there_is_room<R: Runtime>() {
    // Either limit, with room for two.
    for (in_all, from_one_ip, expected) in
        [(2, 100, Overload::Unauthenticated), (100, 2, Overload::UnauthenticatedFromIp)]
    {
        let mut echo = Echo::start(server::<R>().max_unauthenticated(in_all, from_one_ip)).await;
        let at = echo.handle.local_address().unwrap();
        // Whoever is let in does not count any more.
        let mut bystander = Bystander::of(&mut echo).await;
        let builder = client(&echo.handle);
        let (other, _) = meet(&mut echo, builder).await;

        let strangers = script(move || [RawPeer::open(at), RawPeer::open(at)]).soon::<R>().await;
        echo.connected().await;
        echo.connected().await;
        let answer = script(move || {
            let mut answer = String::new();
            // It may be reset rather than ended, since nobody there reads what it says.
            let _ = raw::dial(at).read_to_string(&mut answer);
            answer
        });
        let answer = answer.soon::<R>().await;
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer:?}");
        match echo.told().await {
            Some(ServerEvent::Error(ServerError::TurnedAway { remote_address, overload, others: 0 })) => {
                assert!(is_loopback(remote_address));
                assert_eq!(overload, expected);
            }
            other => panic!("{other:?}"),
        }
        let turned_away = client(&echo.handle).max_reconnect_attempts(0).connect().soon::<R>().await;
        assert!(matches!(failure(turned_away), (FailureCause::Dial(_), GiveUp::Exhausted(0))));
        bystander.notices_nothing().await;

        drop(strangers);
        assert_eq!(echo.rejected().await.1, CloseReason::Lost);
        assert_eq!(echo.rejected().await.1, CloseReason::Lost);
        let builder = client(&echo.handle);
        let (welcome, _) = meet(&mut echo, builder).await;
        for client in [welcome, other] {
            client.close().soon::<R>().await;
        }
        bystander.leaves().await;
        echo.handle.close().soon::<R>().await;
    }
}
