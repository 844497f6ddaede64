//! Through HTTP and SOCKS5 proxies, honest and not.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use futures_util::future::join;
use link_driver::{
    Client, ClientBuilder, ClientError, ClientEvent, DialError, FailureCause, GiveUp, Proxy, ProxyError,
    Runtime, SocksReply,
};

use crate::{
    support::{counted::counted, raw, *},
    tls::Authority,
};

const SHORT: Duration = Duration::from_millis(200);
/// Needs percent-encoding in a URL.
const PASSWORD: &str = "s3cr:t p@ss";
const IN_A_URL: &str = "us3r:s3cr%3At%20p%40ss@";
/// The same, as `Basic` of HTTP wants them.
const BASIC: &str = "dXMzcjpzM2NyOnQgcEBzcw==";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Socks5,
}

const KINDS: [Kind; 2] = [Kind::Http, Kind::Socks5];

impl Kind {
    /// The proxy at this address, for a client.
    fn at(self, at: SocketAddr, credentials: &str) -> Proxy {
        let scheme = match self {
            Self::Http => "http",
            Self::Socks5 => "socks5h",
        };
        Proxy::parse(&format!("{scheme}://{credentials}{at}")).unwrap()
    }

    /// What a proxy says when it has connected its client.
    fn yes(self) -> &'static [u8] {
        match self {
            Self::Http => b"HTTP/1.1 200 Connection established\r\n\r\n",
            Self::Socks5 => b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34",
        }
    }
}

/// An honest proxy, which connects everybody to one server, whatever name that is asked for by.
struct HonestProxy {
    at: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What it thinks of a place: 0 is yes, anything else the reply of SOCKS5.
type Rule = fn(&str) -> u8;

impl HonestProxy {
    fn start(kind: Kind, server: SocketAddr, wants_credentials: bool) -> Self {
        Self::choosy(kind, server, wants_credentials, |_| 0)
    }

    fn choosy(kind: Kind, server: SocketAddr, wants_credentials: bool, rule: Rule) -> Self {
        let ((listener, at), asked) = (raw::listen(), Arc::<Mutex<Vec<String>>>::default());
        let log = asked.clone();
        thread::spawn(move || {
            for near in listener.incoming() {
                let (near, log) = (near.unwrap(), log.clone());
                thread::spawn(move || {
                    let mut near = raw::patient(near);
                    let connected = match kind {
                        Kind::Http => http(&mut near, &log, wants_credentials),
                        Kind::Socks5 => socks5(&mut near, &log, wants_credentials, rule),
                    };
                    // Whoever goes away in the middle is no fault of the proxy.
                    if let Ok(true) = connected {
                        relay(near, raw::dial(server));
                    }
                });
            }
        });
        Self { at, asked }
    }

    /// Where its clients wanted to go.
    fn asked(&self) -> MutexGuard<'_, Vec<String>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn http(near: &mut TcpStream, log: &Mutex<Vec<String>>, wants_credentials: bool) -> io::Result<bool> {
    let head = head(near)?;
    let target = head.strip_prefix("CONNECT ").unwrap().split_once(" HTTP/1.1\r\n").unwrap().0;
    assert!(head.contains(&format!("\r\nHost: {target}\r\n")), "{head}");
    if wants_credentials && !head.contains(&format!("\r\nProxy-Authorization: Basic {BASIC}\r\n")) {
        near.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(false);
    }
    log.lock().unwrap().push(target.to_owned());
    near.write_all(Kind::Http.yes())?;
    Ok(true)
}

/// The head of a request in HTTP.
fn head(near: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(exactly::<1>(near)?);
    }
    Ok(String::from_utf8(head).unwrap())
}

fn socks5(
    near: &mut TcpStream,
    log: &Mutex<Vec<String>>,
    wants_credentials: bool,
    rule: Rule,
) -> io::Result<bool> {
    let [version, methods] = exactly(near)?;
    assert_eq!(version, 5);
    let methods = some(near, methods)?;
    let method = if wants_credentials { 2 } else { 0 };
    if !methods.contains(&method) {
        near.write_all(b"\x05\xff")?;
        return Ok(false);
    }
    near.write_all(&[5, method])?;
    if wants_credentials {
        let [version, length] = exactly(near)?;
        assert_eq!(version, 1);
        let user = some(near, length)?;
        let [length] = exactly(near)?;
        let password = some(near, length)?;
        let known = (user.as_slice(), password.as_slice()) == (b"us3r", PASSWORD.as_bytes());
        near.write_all(&[1, u8::from(!known)])?;
        if !known {
            return Ok(false);
        }
    }
    let [5, 1, 0, kind] = exactly(near)? else { panic!("not a request to connect") };
    let host = match kind {
        1 => Ipv4Addr::from(exactly(near)?).to_string(),
        4 => Ipv6Addr::from(exactly(near)?).to_string(),
        _ => {
            let [length] = exactly(near)?;
            String::from_utf8(some(near, length)?).unwrap()
        }
    };
    let target = format!("{host}:{}", u16::from_be_bytes(exactly(near)?));
    let reply = rule(&target);
    log.lock().unwrap().push(target);
    // A name, for its client to read as well.
    near.write_all(&[&[5, reply, 0, 3, 4][..], b"here", &[0, 0]].concat())?;
    Ok(reply == 0)
}

fn exactly<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map(|()| bytes)
}

fn some(stream: &mut TcpStream, length: u8) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).map(|()| bytes)
}

fn relay(near: TcpStream, far: TcpStream) {
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        }
    };
    thread::spawn(copy(near.try_clone().unwrap(), far.try_clone().unwrap()));
    copy(far, near)();
}

/// A proxy that reads something, says these bytes to its one client, ends its own direction, and waits for the client's end.
fn says(bytes: impl Into<Vec<u8>>) -> (SocketAddr, impl Future<Output = ()>) {
    let ((listener, at), bytes) = (raw::listen(), bytes.into());
    let done = script(move || {
        let mut near = raw::patient(listener.accept().unwrap().0);
        exactly::<1>(&mut near).unwrap();
        near.write_all(&bytes).unwrap();
        // A client that does not like what it hears may have left.
        let _ = near.shutdown(Shutdown::Write);
        raw::all_or_reset(&mut near);
    });
    (at, done)
}

/// A client for a name that nobody but the proxy can resolve.
fn through<R: Runtime>(proxy: Proxy) -> ClientBuilder<R> {
    Client::builder().host("link.invalid").proxy(proxy).reconnect_delay(Duration::from_millis(20))
}

/// What a client that gets nowhere says.
async fn complaint<R: Runtime>(builder: ClientBuilder<R>) -> DialError {
    match failure(builder.max_reconnect_attempts(0).connect().soon::<R>().await) {
        (FailureCause::Dial(error), GiveUp::Exhausted(_)) => error,
        other => panic!("{other:?}"),
    }
}

/// The same, when the proxy is what it complains of.
async fn of_the_proxy<R: Runtime>(builder: ClientBuilder<R>, at: SocketAddr) -> ProxyError {
    let error = complaint(builder).await;
    let text = format!("{error} {error:?}");
    assert!(!text.contains("s3cr") && !text.contains("us3r") && !text.contains(BASIC), "{text}");
    match error {
        DialError::Proxy { proxy, error, .. } => {
            assert!(proxy.ends_with(&at.to_string()), "{proxy}");
            error
        }
        other => panic!("{other}"),
    }
}

pub async fn ws_and_wss_go_through_each_kind_of_proxy<R: Runtime>() {
    let authority = Authority::new();
    for (tls, kind, credentials) in [false, true].into_iter().flat_map(|tls| {
        KINDS.into_iter().flat_map(move |kind| ["", IN_A_URL].map(|credentials| (tls, kind, credentials)))
    }) {
        let builder = if tls { authority.server::<R>("link.invalid") } else { server::<R>() };
        let mut server = builder.bind().await.unwrap();
        let proxy = HonestProxy::start(kind, server.local_address().unwrap(), !credentials.is_empty());
        let mut builder = through::<R>(kind.at(proxy.at, credentials)).port(4321);
        if tls {
            builder = builder.tls(true).tls_ca(authority.ca());
        }
        let (mut client, peer) = meet(&mut server, builder).await;
        assert_eq!(*proxy.asked(), ["link.invalid:4321"], "{kind:?}");
        client.try_send(numbered(1)).unwrap();
        assert_eq!(number_of(&server.message().await.1), 1);
        peer.try_send(numbered_and_long(2, 500 << 10)).unwrap();
        assert_eq!(number_of(&client.message().await), 2);
        client.close().soon::<R>().await;
        server.close().soon::<R>().await;
    }
}

pub async fn a_client_comes_back_through_the_proxy<R: Runtime>() {
    for kind in KINDS {
        let mut server = server::<R>().bind().await.unwrap();
        let proxy = HonestProxy::start(kind, server.local_address().unwrap(), true);
        let (client, peer) = meet(&mut server, through::<R>(kind.at(proxy.at, IN_A_URL))).await;
        peer.close();
        assert_eq!(server.disconnected().await.0, peer);
        server.authenticated().await;
        assert_eq!(*proxy.asked(), ["link.invalid:3793", "link.invalid:3793"]);
        client.close().soon::<R>().await;
        server.close().soon::<R>().await;
    }
}

/// A client that resolves names itself.
fn resolving_here<R: Runtime>(proxy: SocketAddr, host: &str) -> ClientBuilder<R> {
    through(Proxy::parse(&format!("socks5://{proxy}")).unwrap()).host(host)
}

pub async fn with_socks5_this_machine_resolves_the_name<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let proxy = HonestProxy::start(Kind::Socks5, server.local_address().unwrap(), false);
    for host in ["localhost", "127.0.0.1", "::1"] {
        let (client, _) = meet(&mut server, resolving_here::<R>(proxy.at, host)).await;
        let asked = proxy.asked().pop().unwrap();
        assert!(asked == "127.0.0.1:3793" || asked == "::1:3793", "{asked}");
        client.close().soon::<R>().await;
        server.disconnected().await;
    }
    server.close().soon::<R>().await;
}

pub async fn with_socks5_each_address_of_a_name_is_tried<R: Runtime>() {
    counted!(C);
    C::<R>::resolves_to(vec![([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 1).into()]);
    let mut server = server::<C<R>>().bind().await.unwrap();
    let at = server.local_address().unwrap();
    let second_only: Rule = |target| if target == "192.0.2.2:3793" { 0 } else { 4 };
    let proxy = HonestProxy::choosy(Kind::Socks5, at, false, second_only);
    let (client, _) = meet(&mut server, resolving_here::<C<R>>(proxy.at, "link.invalid")).await;
    assert_eq!(*proxy.asked(), ["192.0.2.1:3793", "192.0.2.2:3793"]);
    client.close().soon::<C<R>>().await;
    server.close().soon::<C<R>>().await;

    let proxy = HonestProxy::choosy(Kind::Socks5, at, false, |_| 4);
    let error = of_the_proxy(resolving_here::<C<R>>(proxy.at, "link.invalid"), proxy.at).await;
    assert_eq!(error, ProxyError::Reply(SocksReply::HostUnreachable));
    assert_eq!(proxy.asked().len(), 2);
}

pub async fn a_server_that_is_excepted_is_reached_directly<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let proxy = HonestProxy::start(Kind::Http, server.local_address().unwrap(), false);
    let direct = Kind::Http.at(proxy.at, "").except("127.0.0.0/8");
    let builder = client(&server).proxy(direct.clone());
    let (client, _) = meet(&mut server, builder).await;
    assert!(proxy.asked().is_empty());
    client.close().soon::<R>().await;
    server.disconnected().await;
    let (client, _) = meet(&mut server, through::<R>(direct)).await;
    assert_eq!(*proxy.asked(), ["link.invalid:3793"]);
    client.close().soon::<R>().await;
    server.disconnected().await;
    server.close().soon::<R>().await;
}

pub async fn a_connector_takes_the_place_of_a_proxy_whichever_comes_first<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let at = server.local_address().unwrap();
    let proxy = HonestProxy::start(Kind::Http, at, false);
    let connector = move |_| async move { R::connect("127.0.0.1", at.port()).await };
    let through_it = Kind::Http.at(proxy.at, "");
    for builder in [
        through::<R>(through_it.clone()).connector(connector),
        Client::<R>::builder().connector(connector).proxy(through_it),
    ] {
        let (client, _) = meet(&mut server, builder).await;
        client.close().soon::<R>().await;
        server.disconnected().await;
    }
    assert!(proxy.asked().is_empty());
    server.close().soon::<R>().await;
}

pub async fn wrong_or_missing_credentials_are_told_apart_and_never_shown<R: Runtime>() {
    for kind in KINDS {
        // Nobody is ever let through.
        let proxy = HonestProxy::start(kind, ([127, 0, 0, 1], 1).into(), true);
        let error = of_the_proxy(through::<R>(kind.at(proxy.at, "")), proxy.at).await;
        assert_eq!(error, ProxyError::CredentialsNeeded, "{kind:?}");
        let builder = through::<R>(kind.at(proxy.at, "us3r:s3cret@"));
        assert!(!format!("{builder:?}").contains("s3cret"));
        let error = of_the_proxy(builder, proxy.at).await;
        assert_eq!(error, ProxyError::CredentialsRefused, "{kind:?}");
        assert!(proxy.asked().is_empty());

        // The same, as an event of a client that goes on.
        let mut client = through::<R>(kind.at(proxy.at, "us3r:s3cret@")).start().unwrap();
        match client.told().soon::<R>().await {
            Some(ClientEvent::Error(ClientError::Dial(DialError::Proxy { error, .. }))) => {
                assert_eq!(error, ProxyError::CredentialsRefused);
            }
            other => panic!("{other:?}"),
        }
        client.close().soon::<R>().await;
    }
}

pub async fn a_proxy_that_refuses_says_why<R: Runtime>() {
    for (kind, answer, expected, said) in [
        (Kind::Http, &b"HTTP/1.1 403 Hello\r\n\r\nno"[..], ProxyError::Refused(403), "403 (Forbidden)"),
        (Kind::Http, b"HTTP/1.0 502 x\r\n\r\n", ProxyError::Refused(502), "502 (Bad Gateway)"),
        (
            Kind::Socks5,
            b"\x05\x00\x05\x02\x00\x01\0\0\0\0\0\0",
            ProxyError::Reply(SocksReply::NotAllowed),
            "not allowed by ruleset",
        ),
        (
            Kind::Socks5,
            b"\x05\x00\x05\x05\x00\x01\0\0\0\0\0\0",
            ProxyError::Reply(SocksReply::ConnectionRefused),
            "connection refused",
        ),
    ] {
        let (at, done) = says(answer);
        let (error, ()) = join(of_the_proxy(through::<R>(kind.at(at, "")), at), done.soon::<R>()).await;
        assert_eq!(error, expected);
        assert!(error.to_string().contains(said) && !error.to_string().contains("Hello"), "{error}");
    }
}

pub async fn a_proxy_that_is_not_there_is_named<R: Runtime>() {
    let (listener, at) = raw::listen();
    drop(listener);
    for kind in KINDS {
        let error = of_the_proxy(through::<R>(kind.at(at, "")), at).await;
        assert!(matches!(error, ProxyError::Connect(_)), "{error}");
    }
}

pub async fn a_name_that_does_not_resolve_is_told<R: Runtime>() {
    counted!(C);
    C::<R>::resolves_to(Vec::new());
    let (_listener, at) = raw::listen();
    let error = of_the_proxy(resolving_here::<C<R>>(at, "link.invalid"), at).await;
    assert!(matches!(error, ProxyError::Resolve(_)) && error.to_string().contains("socks5h"), "{error}");
}

pub async fn a_silent_proxy_is_given_up_after_the_connect_timeout<R: Runtime>() {
    // The second has begun to answer, and stays there.
    for (kind, said) in [
        (Kind::Http, &b""[..]),
        (Kind::Http, b"HTTP/1.1 200 OK\r\n"),
        (Kind::Socks5, b""),
        (Kind::Socks5, b"\x05\x00\x05"),
    ] {
        let (listener, at) = raw::listen();
        let silent = script(move || {
            let mut near = raw::patient(listener.accept().unwrap().0);
            near.write_all(said).unwrap();
            // Until the client leaves.
            raw::all_or_reset(&mut near);
        });
        let builder = through::<R>(kind.at(at, IN_A_URL)).connect_timeout(SHORT);
        let (error, ()) = join(complaint(builder), silent.soon::<R>()).await;
        assert!(matches!(error, DialError::Timeout { timeout: SHORT, .. }), "{error}");
        let text = format!("{error} {error:?}");
        assert!(
            text.contains(&format!("proxy {}", if kind == Kind::Http { "http" } else { "socks5h" })),
            "{text}"
        );
        assert!(!text.contains("s3cr"), "{text}");
    }
}

pub async fn a_proxy_that_never_ends_its_answer_is_left<R: Runtime>() {
    let (listener, at) = raw::listen();
    let endless = script(move || {
        let mut near = raw::patient(listener.accept().unwrap().0);
        head(&mut near).unwrap();
        let _ = near.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        // Until the client leaves.
        while near.write_all(&[b'x'; 1024]).is_ok() {}
    });
    let builder = through::<R>(Kind::Http.at(at, ""));
    let (error, ()) = join(of_the_proxy(builder, at), endless.soon::<R>()).await;
    assert_eq!(error, ProxyError::AnswerTooLong);
}

pub async fn half_an_answer_and_garbage_are_told_apart<R: Runtime>() {
    for (kind, answer, expected) in [
        (Kind::Http, &b""[..], ProxyError::Ended),
        (Kind::Http, b"HTTP/1.1 200 OK\r\n", ProxyError::Ended),
        (Kind::Http, b"\x05\xff", ProxyError::NotHttp),
        (Kind::Http, b"HTTP/1.1 yes\r\n\r\n", ProxyError::NotHttp),
        (Kind::Socks5, b"", ProxyError::Ended),
        (Kind::Socks5, b"\x05\x00\x05\x00\x00\x01\x7f", ProxyError::Ended),
        (Kind::Socks5, b"HTTP/1.1 400 Bad Request\r\n\r\n", ProxyError::NotSocks5),
        (Kind::Socks5, b"\x05\x00\xff\xff\xff\xff\xff", ProxyError::NotSocks5),
    ] {
        let (at, done) = says(answer);
        let (error, ()) = join(of_the_proxy(through::<R>(kind.at(at, "")), at), done.soon::<R>()).await;
        assert_eq!(error, expected, "{answer:?}");
    }
}

pub async fn what_the_server_says_right_behind_the_proxys_answer_is_not_lost<R: Runtime>() {
    for kind in KINDS {
        let server = b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n";
        let (at, done) = says([kind.yes(), server].concat());
        let (error, ()) = join(complaint(through::<R>(kind.at(at, ""))), done.soon::<R>()).await;
        let DialError::Upgrade { answer, .. } = error else { panic!("{error}") };
        assert!(answer.contains("418"), "{answer}");
    }
}

pub async fn a_client_can_be_closed_while_the_proxy_says_nothing<R: Runtime>() {
    for kind in KINDS {
        let ((listener, at), (sender, reached)) = (raw::listen(), mpsc::channel());
        let silent = script(move || {
            let mut near = raw::patient(listener.accept().unwrap().0);
            exactly::<1>(&mut near).unwrap();
            sender.send(()).unwrap();
            raw::all_or_reset(&mut near);
        });
        let client = through::<R>(kind.at(at, "")).connect_timeout(Duration::ZERO).start().unwrap();
        until::<R>(|| reached.try_recv().is_ok()).await;
        client.close().soon::<R>().await;
        silent.soon::<R>().await;
    }
}
