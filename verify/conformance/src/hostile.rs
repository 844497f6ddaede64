//! Peers that mean harm, many at once or oddly, beside an honest client that notices nothing.
//!
//! (Single frames that no honest peer sends are in `misbehaviour`, first messages in `strangers`, readers that do not read
//! in `queues`.)

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{join, join_all};
use link_driver::{
    CloseReason, Runtime, ServerEvent, ServerStats, Violation,
    rustls::{
        ClientConfig, ClientConnection, RootCertStore, StreamOwned,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

use crate::{
    support::{
        raw::{self, Dripping, RawPeer, authenticate, frame, unix_millis},
        *,
    },
    tls::Authority,
};

const SHORT: Duration = Duration::from_millis(400);

pub async fn odd_json_comes_back_byte_for_byte<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    let deep = |open: &str, close: &str| {
        format!(r#"{{"type":"deep","x":{}1{}}}"#, open.repeat(100_000), close.repeat(100_000))
    };
    let odd = [
        r#"{"type":"a","type":"b","x":1,"x":2}"#.to_owned(),
        r#"{"type":"nul","x":"\u0000"}"#.into(),
        r#"{"type":"lone","x":"\ud800","\udfff":1}"#.into(),
        r#"{"type":"\ud83d\ude00"}"#.into(),
        r#"{"type":"huge","x":1e400,"y":-0,"z":1E-999,"n":123456789012345678901234567890}"#.into(),
        r#"{"type":{"type":"authenticate"}}"#.into(),
        r#"{"type":"HEARTBEAT"}"#.into(),
        "{\"type\":\"space\"\r\n\t }".into(),
        format!(r#"{{"type":"long","{}":1}}"#, "k".repeat(500_000)),
        format!(r#"{{"type":"many",{}"z":0}}"#, r#""k":0,"#.repeat(100_000)),
        deep("[", "]"),
        deep(r#"{"x":"#, "}"),
        deep(r#"[{"":"#, "}]"),
    ];
    let login = script(move || {
        let mut peer = RawPeer::login(at, &wallet());
        for text in odd {
            peer.send_text(&text);
            let back = peer.text();
            assert!(
                back == text,
                "{} came back as {}",
                &text[..text.len().min(80)],
                &back[..back.len().min(80)]
            );
        }
        peer.close(1000);
    });
    let (_, peer) = join(login, echo.authenticated()).soon::<R>().await;
    assert_eq!(echo.disconnected().await, (peer, CloseReason::PeerClosed { code: Some(1000) }));
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn odd_json_proves_nothing<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    let proof = authenticate(&wallet(), unix_millis()).to_string();
    let inner = &proof[1..proof.len() - 1];
    let digits = unix_millis().to_string();
    let unauthorized = vec!["HTTP/1.1 401 Unauthorized\r\n\r\n".to_owned()];
    for (said, texts, code) in [
        (format!("{{{inner},{inner}}}"), unauthorized.clone(), 4401),
        (format!(r#"{{{inner},"timestamp":{digits}}}"#), unauthorized.clone(), 4401),
        (proof.replace(&digits[..4], &format!("00{}", &digits[..4])), vec![], 1008),
        (proof.replace(r#""address":"xe_"#, r#""address":"xe_\u0000"#), unauthorized.clone(), 4401),
        (proof.replace(r#""address":"xe_"#, r#""address":"\ud800"#), unauthorized, 4401),
        (format!("[{proof}]"), vec![], 1008),
        (format!("{proof} {proof}"), vec![], 1008),
        (format!("{}1{}", "[".repeat(2000), "]".repeat(2000)), vec![], 1008),
        (format!("\u{feff}{proof}"), vec![], 1008),
    ] {
        let text = said.clone();
        let seen = script(move || {
            let mut peer = RawPeer::open(at);
            peer.send_text(&text);
            peer.until_the_end()
        });
        let (seen, (address, _)) = join(seen, echo.rejected()).soon::<R>().await;
        assert_eq!((seen, address), ((texts, Some(code)), None), "{said}");
    }
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn fragments_without_end_have_one<R: Runtime>() {
    let builder = server::<R>().auth_timeout(SHORT).idle_timeout(SHORT);
    let mut echo = Echo::start(builder.heartbeat_interval(SHORT / 4)).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    // Empty ones, which no limit on a message counts, as fast as they go, until nobody takes them any more. (And no longer than
    // that, or whoever would read them to their end could not say so.)
    let endless = |mut peer: RawPeer| {
        peer.bytes(&frame(0x01, b"", true));
        let many = frame(0x00, b"", true).repeat(100_000);
        let began = Instant::now();
        while peer.stream().write_all(&many).is_ok() {
            assert!(began.elapsed() < Duration::from_secs(10), "they are still read");
        }
    };
    let stranger = script(move || endless(RawPeer::open(at)));
    let (_, (_, reason)) = join(stranger, echo.rejected()).soon::<R>().await;
    assert_eq!(reason, CloseReason::AuthenticationTimeout(SHORT));

    let client = script(move || endless(RawPeer::login(at, &wallet())));
    let story = async {
        echo.authenticated().await;
        echo.disconnected().await.1
    };
    let (_, reason) = join(client, story).soon::<R>().await;
    assert_eq!(reason, CloseReason::Idle(SHORT), "what never becomes a message is no sign of life");

    // Those that hold something are counted.
    let client = script(move || {
        let mut peer = RawPeer::login(at, &wallet());
        peer.bytes(&frame(0x01, &[b' '; 1000], true));
        let piece = frame(0x00, &[b' '; 1000], true);
        while peer.stream().write_all(&piece).is_ok() {}
    });
    let story = async {
        echo.authenticated().await;
        echo.disconnected().await.1
    };
    let (_, reason) = join(client, story).soon::<R>().await;
    assert_eq!(reason, CloseReason::Violation(Violation::MessageTooLarge { limit: 1 << 20 }));
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn an_honest_line_may_come_one_byte_at_a_time<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let at = echo.handle.local_address().unwrap();
    let slow = script(move || raw::slow_line(Dripping(raw::dial(at))));
    let (_, peer) = join(slow, echo.authenticated()).soon::<R>().await;
    assert_eq!(echo.disconnected().await.0, peer);
    echo.handle.close().soon::<R>().await;
}

pub async fn an_honest_line_over_tls_may_come_one_byte_at_a_time<R: Runtime>() {
    let authority = Authority::new();
    let mut echo = Echo::start(authority.server::<R>("127.0.0.1")).await;
    let (at, ca) = (echo.handle.local_address().unwrap(), authority.ca());
    let slow = script(move || {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(link_driver::rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = ClientConnection::new(Arc::new(config), at.ip().into()).unwrap();
        raw::slow_line(StreamOwned::new(tls, Dripping(raw::dial(at))));
    });
    let (_, peer) = join(slow, echo.authenticated()).soon::<R>().await;
    assert_eq!(echo.disconnected().await.0, peer);
    echo.handle.close().soon::<R>().await;
}

pub async fn a_storm_of_logins_harms_nobody<R: Runtime>() {
    const THREADS: usize = 6;
    const LOGINS: usize = 15;
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    // Half with a wallet of their own each time, half all with the same one; and a bad proof before each.
    let shared = wallet();
    let storm = (0..THREADS).map(|thread| {
        let shared = shared.clone();
        script(move || {
            for _ in 0..LOGINS {
                let mut bad = RawPeer::open(at);
                bad.send(&authenticate(&wallet(), 1_000_000_000_000));
                bad.until_the_end();
                let mut peer = RawPeer::open(at);
                let who = if thread % 2 == 0 { wallet() } else { shared.clone() };
                peer.send(&authenticate(&who, unix_millis()));
                // It may be replaced, or have signed the same millisecond as another one: then it is told so.
                let _ = peer.try_text();
            }
        })
    });
    let beside = async {
        for _ in 0..20 {
            bystander.notices_nothing().await;
        }
    };
    join(join_all(storm), beside).soon::<R>().await;
    bystander.notices_nothing().await;
    until::<R>(|| echo.handle.stats().authenticated == 1 && echo.handle.stats().unauthenticated == 0).await;
    let stats = echo.handle.stats();
    assert_eq!(stats.rejected.get("stale_proof"), Some(&((THREADS * LOGINS) as u64)));
    bystander.leaves().await;
    // Every one that was let in has left, and was told of once.
    let (mut came, mut left) = (0, 0);
    while came == 0 || left < came {
        match echo.told().await {
            Some(ServerEvent::Authenticated(_)) => came += 1,
            Some(ServerEvent::Disconnected(..)) => left += 1,
            Some(_) => {}
            None => panic!("{came} came, and {left} left"),
        }
    }
    echo.handle.close().soon::<R>().await;
}

pub async fn thousands_of_idle_sockets_harm_nobody<R: Runtime>() {
    const IDLE: usize = 2000;
    rlimit::increase_nofile_limit(8192).unwrap();
    let echo =
        Echo::start(server::<R>().auth_timeout(Duration::from_secs(4)).max_unauthenticated(IDLE / 2, IDLE));
    let mut echo = echo.await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    let idle = script(move || (0..IDLE).map(|_| dial(at)).collect::<Vec<_>>());
    let beside = async {
        for _ in 0..20 {
            bystander.notices_nothing().await;
        }
    };
    let (idle, ()) = join(idle, beside).soon::<R>().await;
    // Half of them had no place; the others are gone by the deadline, though they are all still there. (Some come late: a
    // system whose queue is full lets a connection seem open to its client, and hands it over seconds later.)
    let gone =
        |stats: &ServerStats| stats.turned_away.values().sum::<u64>() + stats.rejected.values().sum::<u64>();
    until::<R>(|| gone(&echo.handle.stats()) >= IDLE as u64).await;
    let stats = echo.handle.stats();
    assert_eq!((gone(&stats), stats.unauthenticated), (IDLE as u64, 0));
    assert!(stats.accepted > (IDLE / 2) as u64, "{stats:?}");
    bystander.notices_nothing().await;
    let builder = client(&echo.handle);
    let newcomer = builder.connect().soon::<R>().await.unwrap();
    newcomer.close().soon::<R>().await;
    drop(idle);
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

/// A connection; it is tried again where the system has a full queue for the moment.
fn dial(at: SocketAddr) -> TcpStream {
    for _ in 0..100 {
        match TcpStream::connect(at) {
            Ok(stream) => return stream,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    panic!("nobody listens at {at}")
}
