//! One byte at a time, in every phase.

use crate::*;

/// Drips that, and then one more byte again and again, until the server has had enough; says what it answered.
fn drip_without_end(mut stream: TcpStream, begin: &[u8]) -> Vec<u8> {
    let mut writing = stream.try_clone().unwrap();
    let begin = begin.to_owned();
    let drip = thread::spawn(move || {
        for byte in begin.iter().chain(std::iter::repeat(&b'a')) {
            if writing.write_all(&[*byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    let answer = raw::all_or_reset(&mut stream);
    // It may be closed already.
    let _ = stream.shutdown(Shutdown::Both);
    drip.join().unwrap();
    answer
}

#[test]
fn heads_that_drip() {
    let row = Row {
        sent: "an HTTP head without end, a byte every 5 ms",
        attackers: 64,
        gets: "408 at the deadline",
        each: SOCKET + HEAD,
        shared: 0,
    };
    row.play(&["--auth-timeout", "1s"], |scene| {
        for answer in scene.all_at_once(|at| drip_without_end(raw::dial(at), b"GET / HTTP/1.1\r\nX: ")) {
            assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
        }
    });
}

#[test]
fn first_messages_that_drip() {
    let row = Row {
        sent: "a proof of 4 KiB, a byte every 5 ms",
        attackers: 64,
        gets: "408 at the deadline",
        each: STRANGER,
        shared: 0,
    };
    row.play(&["--auth-timeout", "1s"], |scene| {
        let answers = scene.all_at_once(|at| {
            let mut peer = RawPeer::open(at);
            let stream = peer.stream().try_clone().unwrap();
            drip_without_end(stream, &announcement(FIRST_MESSAGE))
        });
        for answer in answers {
            assert!(answer[2..].starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
        }
    });
}

#[test]
fn messages_that_drip() {
    let row = Row {
        sent: "a message of 1 MiB, a byte every 5 ms",
        attackers: 64,
        gets: "408, as silent",
        each: SOCKET,
        shared: 0,
    };
    row.play(&["--client-timeout", "5s"], |scene| {
        let answers = scene.all_at_once(|at| {
            let mut peer = login(at);
            let stream = peer.stream().try_clone().unwrap();
            drip_without_end(stream, &announcement(MESSAGE))
        });
        let quoted = br#""HTTP/1.1 408 Request Timeout"#;
        for answer in answers {
            assert!(answer.windows(quoted.len()).any(|part| part == quoted), "{}", answer.escape_ascii());
        }
    });
}

#[test]
fn lines_that_drip() {
    let row = Row {
        sent: "all of an honest line, one byte at a time",
        attackers: 32,
        gets: "its echo: it is honest",
        each: STRANGER,
        shared: 0,
    };
    row.play(&[], |scene| {
        scene.all_at_once(|at| raw::slow_line(Dripping(raw::dial(at))));
    });
}

#[test]
fn tls_that_drips() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (file("cert.pem", cert.pem()), file("key.pem", signing_key.serialize_pem()));
    let row = Row {
        sent: "over TLS: a first record without end, a byte every 5 ms; all of an honest line, one byte at a time",
        attackers: 64,
        gets: "the end at the deadline; its echo",
        each: STRANGER + TLS,
        shared: 0,
    };
    let options = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    row.play_securely(&[&options[..], &["--auth-timeout", "2s"]].concat(), Some(&cert), |scene| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&cert).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        // A handshake record of 16 KiB, in it a client's hello.
        let hello = [0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3];
        let at = scene.at;
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let tls = ClientConnection::new(config.clone(), at.ip().into()).unwrap();
                    raw::slow_line(StreamOwned::new(tls, Dripping(raw::dial(at))));
                });
            }
            scene.all_at_once(|at| drip_without_end(raw::dial(at), &hello));
        });
        scene.until("the deadline", |stats| rejected(stats, "authentication_timeout") == 64);
    });
}
