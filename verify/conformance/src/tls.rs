//! `wss://`: who may be trusted, and what each mistake is called.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use link_driver::{
    BindError, ClientBuilder, ClientEvent, CloseReason, ConnectError, DialError, FailureCause, Runtime,
    Server, ServerBuilder, ServerError, ServerEvent, TlsError, Violation,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{raw, *};

/// Certificates of an authority that nobody else trusts.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a name and its key, as files.
    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |kind: &str| self.folder.path().join(format!("{name}-{kind}.pem"));
        fs::write(path("cert"), certificate.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("cert"), path("key"))
    }

    pub(crate) fn server<R: Runtime>(&self, name: &str) -> ServerBuilder<R> {
        let (cert, key) = self.issue(name, |_| {});
        server().tls_cert(cert).tls_key(key)
    }
}

fn client_of<R: Runtime>(server: &Server<R>) -> ClientBuilder<R> {
    client(server).tls(true).max_reconnect_attempts(0)
}

/// What a client that cannot get TLS says.
async fn complaint<R: Runtime>(builder: ClientBuilder<R>) -> String {
    match builder.connect().soon::<R>().await {
        Err(ConnectError::Failed(failure)) => match failure.cause {
            FailureCause::Dial(error @ (DialError::Tls { .. } | DialError::Upgrade { .. })) => {
                error.to_string()
            }
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    }
}

pub async fn a_client_that_trusts_the_certificate_talks_over_tls<R: Runtime>() {
    let authority = Authority::new();
    let mut server = authority.server::<R>("127.0.0.1").bind().await.unwrap();
    assert!(server.url().unwrap().starts_with("wss://127.0.0.1:"));
    let builder = client_of(&server).tls_ca(authority.ca());
    let (mut client, peer) = meet(&mut server, builder).await;
    let long = "x".repeat(900 << 10);
    client.try_send(json!({ "type": "long", "text": long })).unwrap();
    let message = server
        .hears(|event| match event {
            ServerEvent::Message(_, message) => Some(message),
            _ => None,
        })
        .await;
    assert_eq!(message.kind(), Some("long"));
    peer.try_send(&message).unwrap();
    let back = client
        .hears(|event| match event {
            ClientEvent::Message(message) => Some(message),
            _ => None,
        })
        .await;
    assert_eq!(back, message);
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_url_may_say_wss_and_name_the_host<R: Runtime>() {
    let authority = Authority::new();
    let mut server = authority.server::<R>("localhost").bind().await.unwrap();
    let url = format!("wss://localhost:{}", server.local_address().unwrap().port());
    let builder = link_driver::Client::builder().url(&url).tls_ca(authority.ca());
    let (client, _) = meet(&mut server, builder).await;
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_configuration_of_ones_own_wins<R: Runtime>() {
    use link_driver::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto, pki_types::*};
    let authority = Authority::new();
    let (cert, key) = authority.issue("127.0.0.1", |_| {});
    let provider = Arc::new(crypto::ring::default_provider());
    let own = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![pem::PemObject::from_pem_file(cert).unwrap()],
            pem::PemObject::from_pem_file(key).unwrap(),
        )
        .unwrap();
    let mut server = server::<R>().tls_cert("/nowhere").tls_config(Arc::new(own)).bind().await.unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pem::PemObject::from_pem_file(authority.ca()).unwrap()).unwrap();
    let own = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = client_of(&server).tls_config(Arc::new(own));
    let (client, _) = meet(&mut server, builder).await;
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_certificate_or_key_that_cannot_be_used_is_named<R: Runtime>() {
    let authority = Authority::new();
    let (cert, key) = authority.issue("one", |_| {});
    let (_, other_key) = authority.issue("two", |_| {});
    let rubbish = authority.folder.path().join("rubbish.pem");
    fs::write(&rubbish, "no certificate").unwrap();
    let nowhere = authority.folder.path().join("nowhere.pem");
    for (builder, said) in [
        (server::<R>().tls_cert(&cert), "only one of them was given"),
        (server().tls_key(&key), "only one of them was given"),
        (server().tls_cert(&nowhere).tls_key(&key), "nowhere.pem"),
        (server().tls_cert(&cert).tls_key(&nowhere), "nowhere.pem"),
        (server().tls_cert(&rubbish).tls_key(&key), "holds no certificate"),
        (server().tls_cert(&cert).tls_key(&rubbish), "holds no private key"),
        (server().tls_cert(&key).tls_key(&key), "holds no certificate"),
        (server().tls_cert(&cert).tls_key(&other_key), "does not belong to the certificate"),
    ] {
        match builder.bind().await {
            Err(BindError::Tls(error)) => assert!(error.to_string().contains(said), "{error}"),
            other => panic!("{said}: {other:?}"),
        }
    }
    match client_at::<R>(([127, 0, 0, 1], 1).into()).tls(true).tls_ca(&nowhere).start() {
        Err(ConnectError::Tls(TlsError::File { path, .. })) => assert_eq!(path, nowhere),
        other => panic!("{other:?}"),
    }
}

pub async fn an_expired_a_foreign_and_a_strangers_certificate_are_told_apart<R: Runtime>() {
    let (authority, namesake) = (Authority::new(), Authority::new());
    for (name, old, trusted, said) in [
        ("127.0.0.1", true, Some(&authority), "has expired"),
        ("somebody.example", false, Some(&authority), "is for another name"),
        ("127.0.0.1", false, Some(&namesake), "if its issuer was made anew"),
        ("127.0.0.1", false, None, "certificate issued by an untrusted CA"),
    ] {
        let (cert, key) = authority.issue(name, |params| {
            if old {
                params.not_before = date_time_ymd(2001, 1, 1);
                params.not_after = date_time_ymd(2002, 1, 1);
            }
        });
        let mut server = server::<R>().tls_cert(cert).tls_key(key).bind().await.unwrap();
        let mut builder = client_of(&server);
        if let Some(trusted) = trusted {
            builder = builder.tls_ca(trusted.ca());
        }
        let rejected = server.hears(|event| match event {
            ServerEvent::Rejected(rejected) => Some(rejected.reason),
            _ => None,
        });
        let (complaint, reason) = futures_util::future::join(complaint(builder), rejected).await;
        assert!(complaint.contains(said), "{complaint}");
        assert!(
            matches!(reason, CloseReason::Violation(Violation::Tls) | CloseReason::Lost),
            "{said}: {reason}"
        );
        server.close().soon::<R>().await;
    }
}

pub async fn plain_text_on_a_tls_port_and_tls_on_a_plain_one_are_told_apart<R: Runtime>() {
    let authority = Authority::new();
    let mut secure = authority.server::<R>("127.0.0.1").bind().await.unwrap();
    let plain_client = client(&secure).max_reconnect_attempts(0);
    let rejected = secure.hears(|event| match event {
        ServerEvent::Rejected(rejected) => Some(rejected.reason),
        _ => None,
    });
    let (said, reason) = futures_util::future::join(complaint(plain_client), rejected).await;
    assert!(said.contains("if it speaks TLS, use `wss://`"), "{said}");
    assert_eq!(reason, CloseReason::Violation(Violation::Tls));
    secure.close().soon::<R>().await;

    // Not every TLS answers with an alert: OpenSSL hangs up.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs_up = client_at::<R>(listener.local_addr().unwrap()).max_reconnect_attempts(0);
    let listening = script(move || {
        use std::io::Read as _;
        let (mut socket, _) = listener.accept().unwrap();
        assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
    });
    let (said, ()) = futures_util::future::join(complaint(hangs_up), listening).await;
    assert!(said.contains("without an answer; if it speaks TLS, use `wss://`"), "{said}");

    let mut plain = server::<R>().bind().await.unwrap();
    let tls_client = client_of(&plain).tls_ca(authority.ca());
    let rejected = plain.hears(|event| match event {
        ServerEvent::Rejected(rejected) => Some(rejected.reason),
        _ => None,
    });
    let (said, reason) = futures_util::future::join(complaint(tls_client), rejected).await;
    assert!(said.contains("does not speak TLS; use `ws://`"), "{said}");
    assert_eq!(reason, CloseReason::Violation(Violation::WebSocket));
    plain.close().soon::<R>().await;
}

pub async fn who_is_turned_away_from_a_tls_port_is_not_told_to_do_without_tls<R: Runtime>() {
    let authority = Authority::new();
    let builder = authority.server::<R>("127.0.0.1").max_unauthenticated(1, 1);
    let mut server = builder.bind().await.unwrap();
    let at = server.local_address().unwrap();
    let stranger = script(move || {
        let stream = raw::dial(at);
        // Accepted, and in the way.
        (stream, raw::all_or_reset(&mut raw::dial(at)))
    });
    let turned_away = server.hears(|event| match event {
        ServerEvent::Error(ServerError::TurnedAway { .. }) => Some(()),
        _ => None,
    });
    let ((stranger, answer), ()) = futures_util::future::join(stranger, turned_away).soon::<R>().await;
    assert_eq!(answer, b"", "nothing in plain text");
    let said = complaint(client_of(&server).tls_ca(authority.ca())).await;
    assert!(!said.contains("ws://"), "{said}");
    drop(stranger);
    server.close().soon::<R>().await;
}

pub async fn the_authentication_deadline_covers_the_tls_handshake<R: Runtime>() {
    let authority = Authority::new();
    let deadline = Duration::from_millis(200);
    let mut server = authority.server::<R>("127.0.0.1").auth_timeout(deadline).bind().await.unwrap();
    let at = server.local_address().unwrap();
    let silent = script(move || {
        use std::io::Read as _;
        let mut socket = std::net::TcpStream::connect(at).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut heard = Vec::new();
        // A reset ends it as well as an end.
        let _ = socket.read_to_end(&mut heard);
        heard
    });
    let rejected = server.hears(|event| match event {
        ServerEvent::Rejected(rejected) => Some(rejected.reason),
        _ => None,
    });
    let (heard, reason) = futures_util::future::join(silent, rejected).soon::<R>().await;
    assert_eq!(heard, b"", "there is no plain answer to one that may speak TLS");
    assert_eq!(reason, CloseReason::AuthenticationTimeout(deadline));
    server.close().soon::<R>().await;
}
