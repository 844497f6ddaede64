//! Where a server listens, and who it and its clients are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use link_driver::{
    BindError, Client, ConnectError, DEFAULT_PORT, InvalidPrivateKey, PrivateKey, Runtime, Server, Wallet,
};

use crate::support::*;

const KEY: &str = "abc";
const ADDRESS_OF_KEY: &str = "xe_73FCc533201ec51F28754e5210c503B399E527D4";

pub async fn the_defaults_are_every_address_and_port_3793<R: Runtime>() {
    assert_eq!(DEFAULT_PORT, 3793);
    let server = format!("{:?}", Server::<R>::builder());
    assert!(server.contains("0.0.0.0:3793"), "{server}");
    let client = format!("{:?}", Client::<R>::builder());
    assert!(client.contains("localhost") && client.contains("3793"), "{client}");

    // In earnest as well, at a loopback address; if somebody else has the port, it is named at least.
    match Server::<R>::builder().host(Ipv4Addr::LOCALHOST).bind().await {
        Ok(server) => {
            assert_eq!(server.local_address().unwrap().port(), DEFAULT_PORT);
            server.close().soon::<R>().await;
        }
        Err(BindError::InUse { address }) => assert_eq!(address.port(), DEFAULT_PORT),
        Err(other) => panic!("{other}"),
    }
}

pub async fn a_host_and_a_port_win_over_a_url_whatever_comes_first<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let place = server.local_address().unwrap();
    let (host, url) = (place.ip().to_string(), "ws://nobody.invalid:9/path?query");
    for builder in [
        Client::<R>::builder().url(url).host(host.clone()).port(place.port()),
        Client::<R>::builder().port(place.port()).host(host.clone()).url(url),
        Client::<R>::builder().port(place.port()).url(&format!("ws://{host}:9/")),
    ] {
        let (client, _) = meet(&mut server, builder.max_reconnect_attempts(0)).await;
        client.close().soon::<R>().await;
        server.disconnected().await;
    }
    server.close().soon::<R>().await;
}

pub async fn a_server_listens_where_it_is_told_to<R: Runtime>() {
    let place = place_of_its_own();
    let mut server = Server::<R>::builder().host(place.ip()).port(place.port()).bind().await.unwrap();
    assert_eq!(server.local_address().unwrap(), place);
    assert_eq!(server.url().unwrap(), format!("ws://{place}"));
    let (client, _) = meet(&mut server, client_at(place)).await;
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn port_zero_is_any_free_one<R: Runtime>() {
    let (one, other) = (server::<R>().bind().await.unwrap(), server::<R>().bind().await.unwrap());
    assert_ne!(one.local_address().unwrap().port(), 0);
    assert_ne!(one.local_address().unwrap(), other.local_address().unwrap());
    one.close().soon::<R>().await;
    other.close().soon::<R>().await;
}

pub async fn a_client_dials_localhost_by_name<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let builder = Client::builder().port(server.local_address().unwrap().port());
    let (client, _) = meet(&mut server, builder).await;
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn ipv6_works_where_there_is_any<R: Runtime>() {
    let Ok(mut server) = server::<R>().host(Ipv6Addr::LOCALHOST).bind().await else { return };
    let at = server.local_address().unwrap();
    assert_eq!(server.url().unwrap(), format!("ws://[::1]:{}", at.port()));
    let (client, peer) = meet(&mut server, client_at(at)).await;
    assert_eq!(peer.remote_address().ip(), IpAddr::V6(Ipv6Addr::LOCALHOST));
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_port_in_use_is_named<R: Runtime>() {
    let first = server::<R>().bind().await.unwrap();
    let at = first.local_address().unwrap();
    let error = server::<R>().port(at.port()).bind().await.unwrap_err();
    assert!(matches!(error, BindError::InUse { address } if address == at), "{error:?}");
    assert!(error.to_string().contains(&at.to_string()), "{error}");
    first.close().soon::<R>().await;
}

pub async fn an_address_of_another_machine_is_an_error_that_names_it<R: Runtime>() {
    // RFC 5737 keeps it for documentation.
    let nowhere = Ipv4Addr::new(192, 0, 2, 1);
    let error = server::<R>().host(nowhere).bind().await.unwrap_err();
    assert!(
        matches!(error, BindError::Listen { address, .. } if address == SocketAddr::from((nowhere, 0))),
        "{error:?}"
    );
}

pub async fn without_a_wallet_each_has_a_fresh_one<R: Runtime>() {
    let mut one = server::<R>().bind().await.unwrap();
    let other = server::<R>().bind().await.unwrap();
    assert_ne!(one.address(), other.address());
    let builder = client(&one);
    let (first, _) = meet(&mut one, builder).await;
    let builder = client(&one);
    let (second, _) = meet(&mut one, builder).await;
    assert_ne!(first.address(), second.address());
    first.close().soon::<R>().await;
    second.close().soon::<R>().await;
    one.close().soon::<R>().await;
    other.close().soon::<R>().await;
}

pub async fn a_private_key_wins_over_a_wallet<R: Runtime>() {
    // In whichever order the two are given.
    let one = server::<R>().private_key(KEY).wallet(wallet()).bind().await.unwrap();
    let mut other = server::<R>().wallet(wallet()).private_key(KEY).bind().await.unwrap();
    assert_eq!(one.address().as_str(), ADDRESS_OF_KEY);
    assert_eq!(other.address().as_str(), ADDRESS_OF_KEY);
    assert_eq!(Wallet::from_private_key(PrivateKey::from_hex(KEY).unwrap()).address(), one.address());

    let builder = client(&other).private_key("1").wallet(wallet());
    let (client, peer) = meet(&mut other, builder).await;
    let first = Wallet::from_private_key(PrivateKey::from_hex("1").unwrap()).address();
    assert_eq!((client.address(), peer.address()), (first, first));
    client.close().soon::<R>().await;
    one.close().soon::<R>().await;
    other.close().soon::<R>().await;
}

pub async fn a_bad_private_key_is_an_error_and_no_fresh_wallet<R: Runtime>() {
    for bad in ["", "0", "xyz", &"f".repeat(64), &"1".repeat(65)] {
        let expected: InvalidPrivateKey = PrivateKey::from_hex(bad).unwrap_err();
        let error = server::<R>().wallet(wallet()).private_key(bad).bind().await.unwrap_err();
        assert!(matches!(error, BindError::PrivateKey(why) if why == expected), "{bad:?}: {error:?}");
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let error = client_at::<R>(nobody).wallet(wallet()).private_key(bad).start().unwrap_err();
        assert_eq!(error, ConnectError::PrivateKey(expected), "{bad:?}");
        let error = client_at::<R>(nobody).private_key(bad).connect().soon::<R>().await.unwrap_err();
        assert_eq!(error, ConnectError::PrivateKey(expected), "{bad:?}");
        if bad.len() > 3 {
            assert!(!error.to_string().contains(bad), "a key is not printed, not even a bad one: {error}");
        }
    }
}

pub async fn a_host_that_is_none_is_an_error_at_once<R: Runtime>() {
    for bad in ["", "two words", "a/b", "user@host"] {
        let error = Client::<R>::builder().host(bad).start().unwrap_err();
        assert!(matches!(error, ConnectError::Target(_)), "{bad:?}: {error:?}");
    }
}
