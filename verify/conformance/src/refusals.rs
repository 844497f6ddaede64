//! What a client makes of a server's no, of a server that is not the expected one, and of one that lies.

use std::time::Duration;

use futures_util::future::join;
use link_driver::{
    Client, ClientBuilder, ClientEvent, CloseReason, ConnectError, FailureCause, GiveUp, Runtime, Status,
    Violation,
};
use serde_json::json;

use crate::support::{
    raw::{self, RawPeer, authenticate, unix_millis},
    *,
};

/// Has a client connect to a server that does as it is scripted once the client has authenticated.
async fn against<R: Runtime>(
    options: impl FnOnce(ClientBuilder<R>) -> ClientBuilder<R>,
    lines: impl FnOnce(&mut RawPeer) + Send + 'static,
) -> Result<Client<R>, ConnectError> {
    let (listener, at) = raw::listen();
    let connecting = options(client_at(at).max_reconnect_attempts(0)).connect();
    let server = script(move || {
        let mut peer = RawPeer::accept(&listener);
        peer.authenticate().expect("the client speaks first");
        lines(&mut peer);
        peer
    });
    let (client, peer) = join(connecting, server).soon::<R>().await;
    drop(peer);
    client
}

pub async fn connect_says_which_refusal_it_was_in_either_spelling<R: Runtime>() {
    for (text, status) in [
        ("HTTP/1.1 401 Unauthorized\r\n\r\n", Status::Unauthorized),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", Status::Forbidden),
        ("HTTP/1.1 408 Request Timeout\r\n\r\n", Status::RequestTimeout),
        ("HTTP/1.1 409 Conflict\r\n\r\n", Status::Conflict),
        (r#""HTTP/1.1 401 Unauthorized\r\n\r\n""#, Status::Unauthorized),
        (r#""HTTP/1.1 403 Forbidden\r\n\r\n""#, Status::Forbidden),
        (r#""HTTP/1.1 408 Request Timeout\r\n\r\n""#, Status::RequestTimeout),
        (r#""HTTP/1.1 409 Conflict\r\n\r\n""#, Status::Conflict),
    ] {
        let outcome = against::<R>(|options| options, |peer| peer.send_text(text)).await;
        // 408 may be bad luck; the others are final.
        let reason = if status == Status::RequestTimeout { GiveUp::Exhausted(0) } else { GiveUp::Final };
        let cause = FailureCause::Closed(CloseReason::RefusedByServer(status));
        assert_eq!(failure(outcome), (cause.clone(), reason), "{text:?}");
        assert!(cause.to_string().contains(status.name()), "{cause}");
    }
}

pub async fn later_statuses_end_the_line_as_what_they_mean<R: Runtime>() {
    for (text, reason) in [
        (r#""HTTP/1.1 409 Conflict\r\n\r\n""#, CloseReason::Replaced),
        (r#""HTTP/1.1 408 Request Timeout\r\n\r\n""#, CloseReason::RefusedByServer(Status::RequestTimeout)),
    ] {
        let outcome = against::<R>(
            |options| options,
            move |peer| {
                peer.send(&authenticate(&wallet(), unix_millis()));
                peer.send_text(text);
            },
        );
        let mut client = outcome.await.unwrap();
        assert_eq!(client.disconnected().await.0, reason);
        assert!(matches!(client.told().await, Some(ClientEvent::ConnectionFailed(_))));
        client.close().soon::<R>().await;
    }
}

pub async fn a_server_that_closes_without_a_word_is_worth_another_try<R: Runtime>() {
    let outcome = against::<R>(|options| options, |peer| peer.close(1000)).await;
    let cause = FailureCause::Closed(CloseReason::PeerClosed { code: Some(1000) });
    assert_eq!(failure(outcome), (cause, GiveUp::Exhausted(0)));
}

pub async fn a_server_that_does_not_prove_itself_in_time_is_given_up<R: Runtime>() {
    let timeout = Duration::from_millis(200);
    let outcome = against::<R>(|options| options.auth_timeout(timeout), |_| ()).await;
    // The script ends before the time-out, perhaps: then the line is lost.
    let (cause, reason) = failure(outcome);
    assert!(matches!(cause, FailureCause::Closed(CloseReason::Lost | CloseReason::AuthenticationTimeout(_))));
    assert_eq!(reason, GiveUp::Exhausted(0));

    let (listener, at) = raw::listen();
    let connecting = client_at::<R>(at).auth_timeout(timeout).max_reconnect_attempts(0).connect();
    let server = script(move || {
        let mut peer = RawPeer::accept(&listener);
        peer.authenticate();
        peer.until_the_end()
    });
    let (outcome, end) = join(connecting, server).soon::<R>().await;
    let cause = FailureCause::Closed(CloseReason::AuthenticationTimeout(timeout));
    assert_eq!(failure(outcome), (cause, GiveUp::Exhausted(0)));
    assert_eq!(end, (vec![], Some(4408)));
}

pub async fn a_zero_auth_timeout_waits_as_long_as_it_takes<R: Runtime>() {
    let (listener, at) = raw::listen();
    let mut client = client_at::<R>(at).auth_timeout(Duration::ZERO).start().unwrap();
    let server = script(move || {
        let mut peer = RawPeer::accept(&listener);
        peer.authenticate();
        peer
    });
    let peer = server.soon::<R>().await;
    assert_eq!(client.told().await, Some(ClientEvent::Connected));
    client.next().not_for_a_while::<R>().await;
    drop(peer);
    assert_eq!(client.disconnected().await.0, CloseReason::Lost);
    client.close().soon::<R>().await;
}

pub async fn an_expected_server_is_taken_and_another_is_not<R: Runtime>() {
    let (expected, other) = (wallet(), wallet());
    let mut server = server::<R>().wallet(expected.clone()).bind().await.unwrap();
    // One of several is enough.
    let builder = client(&server).expect_server(other.address()).expect_server(expected.address());
    let (line, _) = meet(&mut server, builder).await;
    assert_eq!(line.server(), Some(expected.address()));
    line.close().soon::<R>().await;
    server.disconnected().await;

    let connecting = client(&server).expect_server(other.address()).connect();
    let story = async {
        server.authenticated().await;
        server.disconnected().await.1
    };
    let (outcome, end) = join(connecting, story).soon::<R>().await;
    let cause = FailureCause::Closed(CloseReason::Violation(Violation::UnexpectedServer(expected.address())));
    assert_eq!(failure(outcome), (cause, GiveUp::Final));
    assert_eq!(end, CloseReason::PeerClosed { code: Some(1008) });
    server.close().soon::<R>().await;
}

pub async fn a_reflection_is_no_proof_unless_that_very_address_is_expected<R: Runtime>() {
    let own = wallet();
    let echo = |peer: &mut RawPeer, wallet| peer.send(&authenticate(&wallet, unix_millis()));
    let (mine, reflected) = (own.clone(), own.clone());
    let outcome = against::<R>(|options| options.wallet(mine), move |peer| echo(peer, reflected)).await;
    let cause = FailureCause::Closed(CloseReason::Violation(Violation::Reflected));
    assert_eq!(failure(outcome), (cause, GiveUp::Final));

    let (mine, reflected) = (own.clone(), own.clone());
    let outcome = against::<R>(
        |options| options.wallet(mine).expect_server(own.address()),
        move |peer| echo(peer, reflected),
    );
    let client = outcome.await.unwrap();
    client.close().soon::<R>().await;
}

pub async fn a_bad_or_stale_answer_is_no_proof<R: Runtime>() {
    let stale = authenticate(&wallet(), unix_millis() - 60_000);
    let early = authenticate(&wallet(), unix_millis() + 60_000);
    let mut forged = authenticate(&wallet(), unix_millis());
    forged["address"] = json!(wallet().address());
    let mut malformed = authenticate(&wallet(), unix_millis());
    malformed["timestamp"] = json!(unix_millis().to_string());
    // A clock may be set right; nothing else gets better by itself.
    let hopeful = GiveUp::Exhausted(0);
    for (answer, violation, reason) in [
        (stale.to_string(), Violation::StaleProof, hopeful),
        (early.to_string(), Violation::StaleProof, hopeful),
        (forged.to_string(), Violation::BadSignature, GiveUp::Final),
        (malformed.to_string(), Violation::MalformedProof, GiveUp::Final),
        (json!({ "type": "greeting" }).to_string(), Violation::UnexpectedMessage, GiveUp::Final),
        ("hello".into(), Violation::NotJson, GiveUp::Final),
    ] {
        let said = answer.clone();
        let outcome = against::<R>(|options| options, move |peer| peer.send_text(&said)).await;
        let cause = FailureCause::Closed(CloseReason::Violation(violation));
        assert_eq!(failure(outcome), (cause, reason), "{answer}");
    }
}

pub async fn a_server_too_has_4_kib_before_it_is_authenticated<R: Runtime>() {
    // Its limit on a message that is on its way cannot change.
    if R::ASYNC_TUNGSTENITE {
        return;
    }
    let outcome = against::<R>(|options| options, |peer| peer.bytes(&[0x81, 127, 0, 0, 0, 0, 0, 0x10, 0, 0]));
    let cause = FailureCause::Closed(CloseReason::Violation(Violation::MessageTooLarge { limit: 4 << 10 }));
    assert_eq!(failure(outcome.await), (cause, GiveUp::Exhausted(0)));
}
