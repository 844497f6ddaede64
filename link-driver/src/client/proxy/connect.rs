//! From a connection to a proxy to one to the server behind it.
//!
//! Nothing behind the proxy's answer is read here: it belongs to the server. So both handshakes leave the runtime's own stream, with
//! nothing around it.

use std::{
    io, mem,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use data_encoding::BASE64;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::{AsyncReadExt, AsyncWriteExt};
use httparse::{EMPTY_HEADER, Response, Status};
use link_websocket::http::StatusCode;
use tokio_socks::{Error as SocksError, io::AsyncSocket, tcp::Socks5Stream};

use super::{super::dial::Target, Credentials, Protocol, ProxyServer};
use crate::runtime::Runtime;

/// The longest answer that an HTTP proxy may give, in bytes.
const MAX_ANSWER: usize = 8 << 10;
/// The most headers that it may have.
const MAX_HEADERS: usize = 64;
/// The longest name that SOCKS5 has room for, in bytes.
const MAX_SOCKS_HOST: usize = 255;
/// How an answer in HTTP begins.
const HTTP: &[u8] = b"HTTP/1.";

/// Why a proxy did not connect a client to its server.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// There is no connection to the proxy itself.
    #[error("cannot connect to the proxy")]
    Connect(#[source] Arc<io::Error>),
    /// The connection to the proxy broke before the proxy had answered.
    #[error("the connection to the proxy broke")]
    Broken(#[source] Arc<io::Error>),
    /// The proxy ended the connection before it had answered, or in the middle of its answer.
    #[error("the proxy ended the connection before its answer was complete")]
    Ended,
    /// What answers does not speak HTTP.
    #[error("it does not answer in HTTP; is this an HTTP proxy? (For a SOCKS5 proxy, use `socks5://`)")]
    NotHttp,
    /// What answers does not speak SOCKS5.
    #[error("it does not answer in SOCKS5; is this a SOCKS5 proxy? (For an HTTP proxy, use `http://`)")]
    NotSocks5,
    /// The HTTP answer is too long.
    #[error("the proxy's answer is too long (at most {MAX_ANSWER} bytes and {MAX_HEADERS} headers)")]
    AnswerTooLong,
    /// The proxy wants credentials, and none were given.
    #[error("the proxy wants credentials; put them into its URL, as `user:password@` before the host")]
    CredentialsNeeded,
    /// The proxy does not take the credentials that were given.
    #[error("the proxy does not accept these credentials; check the user name and the password")]
    CredentialsRefused,
    /// The SOCKS5 proxy wants another kind of authentication than a user name and a password.
    #[error("the proxy accepts neither a user name with a password nor an anonymous client")]
    NoAcceptableMethod,
    /// The HTTP proxy refuses, with this status.
    #[error("the proxy refuses to connect to the server: {}", status(*.0))]
    Refused(u16),
    /// The SOCKS5 proxy refuses, with this reply.
    #[error("the proxy cannot connect to the server: {0}")]
    Reply(SocksReply),
    /// This machine cannot resolve the server's name, which is its part with `socks5://`.
    #[error("cannot resolve the server's name; to leave that to the proxy, use `socks5h://`")]
    Resolve(#[source] Arc<io::Error>),
    /// The server's name is too long for SOCKS5.
    #[error("SOCKS5 takes no host name of more than {MAX_SOCKS_HOST} bytes; use an HTTP proxy")]
    HostTooLong,
}

/// Why a SOCKS5 proxy refuses, in the words of RFC 1928 §6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SocksReply {
    /// 1.
    #[error("general SOCKS server failure")]
    GeneralFailure,
    /// 2.
    #[error("connection not allowed by ruleset")]
    NotAllowed,
    /// 3.
    #[error("network unreachable")]
    NetworkUnreachable,
    /// 4.
    #[error("host unreachable")]
    HostUnreachable,
    /// 5.
    #[error("connection refused")]
    ConnectionRefused,
    /// 6.
    #[error("TTL expired")]
    TtlExpired,
    /// 7.
    #[error("command not supported")]
    CommandNotSupported,
    /// 8.
    #[error("address type not supported")]
    AddressTypeNotSupported,
}

/// Of what the system said, the kind is compared: an `io::Error` itself cannot be.
impl PartialEq for ProxyError {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Connect(error), Self::Connect(said))
            | (Self::Broken(error), Self::Broken(said))
            | (Self::Resolve(error), Self::Resolve(said)) => error.kind() == said.kind(),
            (Self::Refused(status), Self::Refused(said)) => status == said,
            (Self::Reply(reply), Self::Reply(said)) => reply == said,
            _ => mem::discriminant(self) == mem::discriminant(other),
        }
    }
}

impl Eq for ProxyError {}

/// The number and its standard name. What the proxy itself calls it is not repeated: it may say anything.
fn status(code: u16) -> String {
    match StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason()) {
        Some(reason) => format!("HTTP status {code} ({reason})"),
        None => format!("HTTP status {code}"),
    }
}

impl ProxyServer {
    /// A stream to the server.
    pub(in crate::client) async fn connect<R: Runtime>(
        &self,
        target: &Target,
    ) -> Result<R::Stream, ProxyError> {
        let credentials = self.credentials.as_ref();
        let addresses = match self.protocol {
            Protocol::Http => {
                let mut stream = self.reach::<R>().await?;
                http_connect(&mut stream, target, credentials).await?;
                return Ok(stream);
            }
            Protocol::Socks5 { resolve_here: true } => addresses::<R>(target).await?,
            Protocol::Socks5 { resolve_here: false } => vec![target.host.clone()],
        };
        let mut failure = ProxyError::Resolve(Arc::new(io::Error::other("the name has no address")));
        // One connection to the proxy can ask for one address only.
        for address in addresses {
            let mut stream = self.reach::<R>().await?;
            match socks5_connect(&mut stream, &address, target.port, credentials).await {
                Ok(()) => return Ok(stream),
                // Another address may do better.
                Err(error @ ProxyError::Reply(_)) => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    /// A stream to the proxy.
    async fn reach<R: Runtime>(&self) -> Result<R::Stream, ProxyError> {
        R::connect(&self.host, self.port).await.map_err(|error| ProxyError::Connect(Arc::new(error)))
    }
}

/// The addresses of a server, as this machine resolves its name.
async fn addresses<R: Runtime>(target: &Target) -> Result<Vec<String>, ProxyError> {
    if target.host.parse::<IpAddr>().is_ok() {
        return Ok(vec![target.host.clone()]);
    }
    let resolved = R::resolve(&target.host, target.port).await;
    let addresses = resolved.map_err(|error| ProxyError::Resolve(Arc::new(error)))?;
    Ok(addresses.iter().map(SocketAddr::ip).map(|ip| ip.to_string()).collect())
}

/// Why a read or a write failed.
fn broken(error: io::Error) -> ProxyError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => ProxyError::Ended,
        _ => ProxyError::Broken(Arc::new(error)),
    }
}

/// Has an HTTP proxy connect the stream to the server.
async fn http_connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &Target,
    credentials: Option<&Credentials>,
) -> Result<(), ProxyError> {
    stream.write_all(connect_request(target, credentials).as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut answer = ConnectAnswer { has_credentials: credentials.is_some(), ..ConnectAnswer::default() };
    let mut byte = [0];
    loop {
        // Byte by byte: what follows the answer is for whoever reads the stream next. The answer is short.
        stream.read_exact(&mut byte).await.map_err(broken)?;
        for byte in byte {
            if answer.hear(byte)? {
                return Ok(());
            }
        }
    }
}

fn connect_request(target: &Target, credentials: Option<&Credentials>) -> String {
    let authorization = credentials.map_or(String::new(), |Credentials { user, password }| {
        let encoded = BASE64.encode(format!("{user}:{password}").as_bytes());
        format!("Proxy-Authorization: Basic {encoded}\r\n")
    });
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n")
}

/// An HTTP proxy's answer, as far as it has come.
#[derive(Debug, Default)]
struct ConnectAnswer {
    has_credentials: bool,
    head: Vec<u8>,
    /// Bytes of interim answers (1xx) before this one.
    before: usize,
}

impl ConnectAnswer {
    /// Takes one more byte, and says whether the stream leads to the server from here on.
    fn hear(&mut self, byte: u8) -> Result<bool, ProxyError> {
        if HTTP.get(self.head.len()).is_some_and(|expected| *expected != byte) {
            return Err(ProxyError::NotHttp);
        }
        if self.before.saturating_add(self.head.len()) >= MAX_ANSWER {
            return Err(ProxyError::AnswerTooLong);
        }
        self.head.push(byte);
        if byte != b'\n' {
            return Ok(false);
        }
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut answer = Response::new(&mut headers);
        match answer.parse(&self.head) {
            Ok(Status::Partial) => return Ok(false),
            Ok(Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(ProxyError::AnswerTooLong),
            Err(_) => return Err(ProxyError::NotHttp),
        }
        match answer.code.unwrap_or_default() {
            200..=299 => Ok(true),
            100..=199 => {
                self.before = self.before.saturating_add(self.head.len());
                self.head.clear();
                Ok(false)
            }
            407 if self.has_credentials => Err(ProxyError::CredentialsRefused),
            407 => Err(ProxyError::CredentialsNeeded),
            code => Err(ProxyError::Refused(code)),
        }
    }
}

/// Has a SOCKS5 proxy connect the stream to the server, by its name or IP address.
async fn socks5_connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    host: &str,
    port: u16,
    credentials: Option<&Credentials>,
) -> Result<(), ProxyError> {
    if host.len() > MAX_SOCKS_HOST {
        return Err(ProxyError::HostTooLong);
    }
    let (stream, target) = (Flushing(stream), (host, port));
    let connected = match credentials {
        None => Socks5Stream::connect_with_socket(stream, target).await,
        Some(Credentials { user, password }) => {
            Socks5Stream::connect_with_password_and_socket(stream, target, user, password).await
        }
    };
    connected.map(drop).map_err(|error| match error {
        SocksError::Io(error) => broken(error),
        SocksError::AuthorizationRequired => ProxyError::CredentialsNeeded,
        SocksError::NoAcceptableAuthMethods if credentials.is_none() => ProxyError::CredentialsNeeded,
        SocksError::NoAcceptableAuthMethods => ProxyError::NoAcceptableMethod,
        SocksError::PasswordAuthFailure(_) => ProxyError::CredentialsRefused,
        SocksError::GeneralSocksServerFailure => ProxyError::Reply(SocksReply::GeneralFailure),
        SocksError::ConnectionNotAllowedByRuleset => ProxyError::Reply(SocksReply::NotAllowed),
        SocksError::NetworkUnreachable => ProxyError::Reply(SocksReply::NetworkUnreachable),
        SocksError::HostUnreachable => ProxyError::Reply(SocksReply::HostUnreachable),
        SocksError::ConnectionRefused => ProxyError::Reply(SocksReply::ConnectionRefused),
        SocksError::TtlExpired => ProxyError::Reply(SocksReply::TtlExpired),
        SocksError::CommandNotSupported => ProxyError::Reply(SocksReply::CommandNotSupported),
        SocksError::AddressTypeNotSupported => ProxyError::Reply(SocksReply::AddressTypeNotSupported),
        _ => ProxyError::NotSocks5,
    })
}

/// A stream in the shape that `tokio-socks` takes. It flushes what was written before it waits for an answer, which
/// `tokio-socks` leaves to the stream.
struct Flushing<'a, S>(&'a mut S);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncSocket for Flushing<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut *self.0).poll_flush(cx))?;
        Pin::new(&mut *self.0).poll_read(cx, buffer)
    }

    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, bytes)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    /// A proxy that says all of this, whatever it is told.
    struct Says<'a> {
        said: Cursor<&'a [u8]>,
        heard: Vec<u8>,
        /// Whether something was written since the last flush.
        held_back: bool,
    }

    impl<'a> Says<'a> {
        fn new(said: &'a [u8]) -> Self {
            Self { said: Cursor::new(said), heard: Vec::new(), held_back: false }
        }

        fn unread(&self) -> usize {
            let read = usize::try_from(self.said.position()).expect("short");
            self.said.get_ref().len().saturating_sub(read)
        }
    }

    impl AsyncRead for Says<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            assert!(!self.held_back, "an answer is waited for, and the question has not left");
            Pin::new(&mut self.said).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Says<'_> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.heard.extend(bytes);
            self.held_back = true;
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.held_back = false;
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn credentials() -> Credentials {
        Credentials { user: "Aladdin".into(), password: "open sesame".into() }
    }

    /// What comes of an HTTP proxy that says this, and how much of that was left for the server's reader.
    fn http(said: &[u8], with: Option<&Credentials>) -> (Result<(), ProxyError>, usize) {
        let mut stream = Says::new(said);
        let outcome = http_connect(&mut stream, &Target::default(), with).now_or_never();
        (outcome.expect("nothing to wait for"), stream.unread())
    }

    fn socks5(said: &[u8], with: Option<&Credentials>) -> (Result<(), ProxyError>, usize) {
        let mut stream = Says::new(said);
        let outcome = socks5_connect(&mut stream, "link.example", 3793, with).now_or_never();
        (outcome.expect("nothing to wait for"), stream.unread())
    }

    #[test]
    fn a_connect_request_names_the_server_and_has_the_credentials_of_rfc_7617() {
        let target = Target { host: "::1".into(), ..Target::default() };
        assert_eq!(connect_request(&target, None), "CONNECT [::1]:3793 HTTP/1.1\r\nHost: [::1]:3793\r\n\r\n");
        assert_eq!(
            connect_request(&Target::default(), Some(&credentials())),
            "CONNECT localhost:3793 HTTP/1.1\r\nHost: localhost:3793\r\n\
             Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
    }

    #[test]
    fn an_http_answer_is_taken_to_its_last_byte_and_no_further() {
        for answer in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.0 200 Connection established\r\n\r\n",
            "HTTP/1.1 200\r\n\r\n",
            "HTTP/1.1 204 No\n\n",
            "HTTP/1.1 200 OK\r\nVia: x\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            let said = format!("{answer}\r\nfrom the server");
            let unread = said.len() - answer.len();
            assert_eq!(http(said.as_bytes(), None), (Ok(()), unread), "{answer:?}");
        }
    }

    #[test]
    fn what_an_http_proxy_says_instead_is_told() {
        use ProxyError::*;
        let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(MAX_ANSWER));
        let headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1));
        for (said, expected) in [
            ("", Ended),
            ("HTTP/1.1 200 OK\r\nVia: ", Ended),
            ("HTTP/1.1 403 Whatever\r\n\r\nno", Refused(403)),
            ("HTTP/1.1 502 \x1b[31m\r\n\r\n", NotHttp),
            ("HTTP/1.1 301 Moved\r\nLocation: x\r\n\r\n", Refused(301)),
            ("HTTP/1.1 000 Zero\r\n\r\n", Refused(0)),
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", CredentialsNeeded),
            ("HTTP/2 200\r\n\r\n", NotHttp),
            ("HTTP/1.7 200 OK\r\n\r\n", NotHttp),
            ("HTTP/1.1 20\r\n\r\n", NotHttp),
            ("HTTP/1.1 200 OK\r\nbad header\r\n\r\n", NotHttp),
            ("SSH-2.0-OpenSSH\r\n", NotHttp),
            ("\r\n\r\n", NotHttp),
            (&endless, AnswerTooLong),
            (&long, AnswerTooLong),
            (&headers, AnswerTooLong),
        ] {
            assert_eq!(http(said.as_bytes(), None).0, Err(expected), "{said:?}");
        }
        let refused = http(b"HTTP/1.1 407 No\r\n\r\n", Some(&credentials())).0;
        assert_eq!(refused, Err(CredentialsRefused));
        assert!(Refused(403).to_string().contains("403 (Forbidden)"));
        assert!(Refused(799).to_string().ends_with("799"));
    }

    #[test]
    fn a_socks5_answer_is_taken_to_its_last_byte_and_no_further() {
        for answer in [
            &b"\x05\x00\x05\x00\x00\x01\x7f\0\0\x01\x12\x34"[..],
            b"\x05\x00\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x12\x34",
            b"\x05\x00\x05\x00\x00\x03\x04name\x12\x34",
            b"\x05\x00\x05\x00\x00\x03\x00\x12\x34",
        ] {
            let said = [answer, &b"\x05from the server"[..]].concat();
            assert_eq!(socks5(&said, None), (Ok(()), said.len() - answer.len()), "{answer:?}");
        }
        let known = b"\x05\x02\x01\x00\x05\x00\x00\x01\x7f\0\0\x01\x12\x34".as_slice();
        assert_eq!(socks5(known, Some(&credentials())), (Ok(()), 0));
    }

    #[test]
    fn what_a_socks5_proxy_says_instead_is_told() {
        use ProxyError::*;
        for (said, expected) in [
            (&b""[..], Ended),
            (b"\x05", Ended),
            (b"\x05\x00\x05\x00\x00\x01\x7f", Ended),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", NotSocks5),
            (b"\x04\x00", NotSocks5),
            (b"\x05\x01", NotSocks5),
            (b"\x05\xff", CredentialsNeeded),
            (b"\x05\x02", CredentialsNeeded),
            (b"\x05\x00\x04\x00\x00\x01", NotSocks5),
            (b"\x05\x00\x05\x00\x00\x09", NotSocks5),
            (b"\x05\x00\x05\x09\x00\x01", NotSocks5),
            (b"\x05\x00\x05\x01\x00\x01", Reply(SocksReply::GeneralFailure)),
            (b"\x05\x00\x05\x02\x00\x01", Reply(SocksReply::NotAllowed)),
            (b"\x05\x00\x05\x03\x00\x01", Reply(SocksReply::NetworkUnreachable)),
            (b"\x05\x00\x05\x04\x00\x01", Reply(SocksReply::HostUnreachable)),
            (b"\x05\x00\x05\x05\x00\x01", Reply(SocksReply::ConnectionRefused)),
            (b"\x05\x00\x05\x06\x00\x01", Reply(SocksReply::TtlExpired)),
            (b"\x05\x00\x05\x07\x00\x01", Reply(SocksReply::CommandNotSupported)),
            (b"\x05\x00\x05\x08\x00\x01", Reply(SocksReply::AddressTypeNotSupported)),
        ] {
            assert_eq!(socks5(said, None).0, Err(expected), "{said:?}");
        }
        let known = Some(credentials());
        assert_eq!(socks5(b"\x05\xff", known.as_ref()).0, Err(NoAcceptableMethod));
        assert_eq!(socks5(b"\x05\x02\x01\x01", known.as_ref()).0, Err(CredentialsRefused));
        let mut stream = Says::new(b"\x05\x00");
        let outcome = socks5_connect(&mut stream, &"x".repeat(256), 1, None).now_or_never();
        assert_eq!(outcome, Some(Err(HostTooLong)));
    }

    #[test]
    fn a_socks5_proxy_is_given_the_name_and_sees_credentials_only_when_it_asks() {
        let mut stream = Says::new(b"\x05\x00\x05\x00\x00\x01\x7f\0\0\x01\x12\x34");
        let known = credentials();
        socks5_connect(&mut stream, "link.example", 3793, Some(&known)).now_or_never();
        assert_eq!(stream.heard, b"\x05\x02\x00\x02\x05\x01\x00\x03\x0clink.example\x0e\xd1");
        let mut stream = Says::new(b"\x05\x02\x01\x00");
        socks5_connect(&mut stream, "127.0.0.1", 3793, Some(&known)).now_or_never();
        assert_eq!(
            stream.heard,
            b"\x05\x02\x00\x02\x01\x07Aladdin\x0bopen sesame\x05\x01\x00\x01\x7f\0\0\x01\x0e\xd1"
        );
    }

    proptest! {
        /// Half of what it says is an answer, bent in one place.
        #[test]
        fn whatever_an_http_proxy_says_ends_within_the_bound(
            garbage in prop::collection::vec(any::<u8>(), 0..200),
            answer in "HTTP/1\\.[01] [0-9]{3}( \\PC{0,5})?\r?\n(x-[a-z]{0,3}: \\PC{0,5}\r?\n){0,3}\r?\n",
            at in any::<prop::sample::Index>(),
            byte: u8,
            repeat in 1..1000_usize,
        ) {
            let _ = http(&garbage, None);
            let mut bent = answer.into_bytes();
            let at = at.index(bent.len());
            bent[at] = byte;
            let said = bent.repeat(repeat);
            let unread = http(&said, None).1;
            prop_assert!(unread.saturating_add(MAX_ANSWER + 1) >= said.len());
        }

        #[test]
        fn whatever_a_socks5_proxy_says_ends_within_the_bound(
            mut said in prop::collection::vec(any::<u8>(), 0..1000),
            honest in 0..7_usize,
        ) {
            for (at, byte) in b"\x05\x02\x01\x00\x05\x00\x00".iter().take(honest).enumerate() {
                if let Some(place) = said.get_mut(at) {
                    *place = *byte;
                }
            }
            let unread = socks5(&said, Some(&credentials())).1;
            prop_assert!(unread.saturating_add(4 + 4 + 1 + 255 + 2) >= said.len());
        }
    }
}
