//! From a host name to an open WebSocket.

use std::{io, net::Ipv6Addr, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use link_core::Config;
use link_websocket::{
    NotOpened, Request,
    http::{HeaderMap, Uri, uri::InvalidUri},
};

use super::proxy::{Proxy, ProxyError, ProxyServer};
#[cfg(feature = "async-tungstenite")]
use crate::async_tungstenite::AsyncTungstenite;
use crate::{
    DEFAULT_PORT,
    line::within,
    maybe_tls::{ByteStream, Dialled, MaybeTls},
    runtime::{self, Runtime},
    socket::WebSocket,
    transport::Transport,
};

/// Where a client dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    /// What the HTTP request asks for; with a leading slash. A server of ours takes any.
    pub(super) path: String,
    /// Whether to speak TLS.
    pub(super) tls: bool,
}

/// The default: `localhost` and the port of Link.
impl Default for Target {
    fn default() -> Self {
        Self { host: "localhost".into(), port: DEFAULT_PORT, path: "/".into(), tls: false }
    }
}

/// Where a [`connector`](super::ClientBuilder::connector) is to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Destination {
    /// The host's name or IP address, as the program gave it.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What the program does itself of the way to a WebSocket.
#[derive(Clone)]
pub(super) enum Connector {
    /// It connects.
    Stream(By<Box<dyn ByteStream>>),
    /// All of it.
    WebSocket(By<Box<dyn Transport + Send>>),
}

/// By a function of the program's.
pub(super) type By<T> = Arc<dyn Fn(Destination) -> BoxFuture<'static, io::Result<T>> + Send + Sync>;

/// An open WebSocket.
pub(super) enum Opened<S> {
    Own(Box<WebSocket<MaybeTls<Dialled<S>>>>),
    #[cfg(feature = "async-tungstenite")]
    AsyncTungstenite(Box<AsyncTungstenite<MaybeTls<Dialled<S>>>>),
    Foreign(Box<dyn Transport + Send>),
}

/// All that it takes to open a WebSocket, again and again.
#[derive(Clone)]
pub(super) struct Dialler {
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    /// `None` for the runtime's own way.
    pub(super) connector: Option<Connector>,
    /// On the runtime's own way.
    pub(super) proxy: Option<Proxy>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<futures_rustls::TlsConnector>,
    pub(super) timeout: Duration,
}

/// Why no connection came to be.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The name does not resolve, or nobody accepts connections there.
    #[error("cannot connect to {target}")]
    Connect {
        /// Host and port.
        target: String,
        /// What the system said.
        #[source]
        error: Arc<io::Error>,
    },
    /// The proxy is not there, or did not connect to the server.
    #[error("cannot connect to {target} through the proxy {proxy}")]
    Proxy {
        /// Host and port of the server.
        target: String,
        /// The proxy's URL, without credentials.
        proxy: String,
        /// What is wrong, and what to do.
        #[source]
        error: ProxyError,
    },
    /// There is no TLS, or none that can be trusted.
    #[error("{target}: {reason}")]
    Tls {
        /// Host and port.
        target: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Something else than a WebSocket server answers there.
    #[error("{target} did not open a WebSocket: {answer}")]
    Upgrade {
        /// Host and port.
        target: String,
        /// What it did instead.
        answer: String,
    },
    /// It took too long.
    #[error("{target} did not answer within {timeout:?}")]
    Timeout {
        /// Host and port.
        target: String,
        /// How long it had.
        timeout: Duration,
    },
    /// The server's URL or host is not valid.
    #[error("invalid server address {target:?}: {reason}")]
    Target {
        /// What was given.
        target: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Of what the system said, the kind is compared: an `io::Error` itself cannot be.
impl PartialEq for DialError {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Connect { target, error }, Self::Connect { target: to, error: said }) => {
                (target, error.kind()) == (to, said.kind())
            }
            (Self::Proxy { target, proxy, error }, Self::Proxy { target: to, proxy: by, error: said }) => {
                (target, proxy, error) == (to, by, said)
            }
            (Self::Tls { target, reason }, Self::Tls { target: to, reason: said })
            | (Self::Target { target, reason }, Self::Target { target: to, reason: said })
            | (Self::Upgrade { target, answer: reason }, Self::Upgrade { target: to, answer: said }) => {
                (target, reason) == (to, said)
            }
            (Self::Timeout { target, timeout }, Self::Timeout { target: to, timeout: after }) => {
                (target, timeout) == (to, after)
            }
            _ => false,
        }
    }
}

impl Eq for DialError {}

impl Target {
    /// Reads a URL such as `ws://example.org:3793/path`. Without a port it is the port of Link, whatever HTTP's
    /// would be.
    pub(super) fn from_url(url: &str) -> Result<Self, DialError> {
        // What stands before an `@` may be a password.
        let shown = match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
            (None, Some((_, rest))) => format!("…@{rest}"),
            (_, None) => url.to_owned(),
        };
        let bad = |reason: &str| DialError::Target { target: shown.clone(), reason: reason.into() };
        let uri: Uri = url.parse().map_err(|error: InvalidUri| {
            bad(&format!("{error}; a URL looks like `ws://example.org:3793/`"))
        })?;
        let tls = match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("ws") => false,
            Some("wss") if cfg!(feature = "tls") => true,
            Some("wss") => return Err(bad("this program was built without TLS; use `ws://`")),
            _ => return Err(bad("it must begin with `ws://` or `wss://`")),
        };
        let authority = uri.authority().ok_or_else(|| bad("there is no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("a user name means nothing here: the wallet says who you are"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(bad("there is no host"));
        }
        let port = match authority.as_str().get(authority.host().len()..) {
            None | Some("") => DEFAULT_PORT,
            Some(_) => authority.port_u16().ok_or_else(|| bad("the port must be from 0 to 65535"))?,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self { host: host.into(), port, path: path.into(), tls })
    }

    fn request(&self, headers: &HeaderMap) -> Result<Request, DialError> {
        let url = format!("{}://{self}{}", if self.tls { "wss" } else { "ws" }, self.path);
        let mut request = link_websocket::request(&url)
            .map_err(|error| DialError::Target { target: self.to_string(), reason: error.to_string() })?;
        // One that is there already, such as `Host`, gives way; one that is given twice is sent twice.
        for name in headers.keys() {
            request.headers_mut().remove(name);
            for value in headers.get_all(name) {
                request.headers_mut().append(name, value.clone());
            }
        }
        Ok(request)
    }

    /// Whether it can be dialled at all.
    pub(super) fn check(self) -> Result<Self, DialError> {
        let host = self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&self.host);
        let odd = |c: char| matches!(c, '/' | '@' | '?' | '#' | '[' | ']') || c.is_whitespace();
        if host.is_empty() || host.contains(odd) || (host.contains(':') && host.parse::<Ipv6Addr>().is_err())
        {
            return Err(DialError::Target {
                target: self.host,
                reason: "a host is a name or an IP address; the port goes to `port`, and a URL to `url`"
                    .into(),
            });
        }
        let target = Self { host: host.into(), ..self };
        target.request(&HeaderMap::new())?;
        Ok(target)
    }
}

/// `host:port`, with the brackets that an IPv6 address needs.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Dialler {
    /// Opens a WebSocket.
    pub(super) async fn dial<R: Runtime>(&self, config: &Config) -> Result<Opened<R::Stream>, DialError> {
        let Self { target, timeout, .. } = self;
        match within::<R, _>(runtime::now::<R>().mono, *timeout, self.open::<R>(config)).await {
            Some(outcome) => outcome,
            None => {
                let target = match self.proxy_server() {
                    Some(proxy) => format!("{target} (through the proxy {proxy})"),
                    None => target.to_string(),
                };
                Err(DialError::Timeout { target, timeout: *timeout })
            }
        }
    }

    /// The proxy on the way to the target, if there is one.
    fn proxy_server(&self) -> Option<&ProxyServer> {
        let proxy = self.proxy.as_ref().filter(|_| self.connector.is_none())?;
        proxy.server_for(&self.target)
    }

    async fn open<R: Runtime>(&self, _config: &Config) -> Result<Opened<R::Stream>, DialError> {
        let target = &self.target;
        let not_connected = |error| DialError::Connect { target: target.to_string(), error: Arc::new(error) };
        let destination = || Destination { host: target.host.clone(), port: target.port };
        let request = target.request(&self.headers)?;
        let stream = match &self.connector {
            None => match self.proxy_server() {
                None => R::connect(&target.host, target.port).await.map(Dialled::Own),
                Some(proxy) => {
                    let connected = proxy.connect::<R>(target).await;
                    let failed = |error| DialError::Proxy {
                        target: target.to_string(),
                        proxy: proxy.to_string(),
                        error,
                    };
                    Ok(Dialled::Own(connected.map_err(failed)?))
                }
            },
            Some(Connector::Stream(connector)) => {
                by_program(connector, destination()).await.map(Dialled::Foreign)
            }
            Some(Connector::WebSocket(connector)) => {
                let opened = by_program(connector, destination()).await;
                return opened.map(Opened::Foreign).map_err(not_connected);
            }
        };
        let stream = stream.map_err(not_connected)?;
        #[cfg(feature = "tls")]
        let stream = secure(target, stream, self.tls.as_ref()).await?;
        #[cfg(not(feature = "tls"))]
        let stream = MaybeTls::Plain(stream);
        #[cfg(feature = "async-tungstenite")]
        if R::ASYNC_TUNGSTENITE {
            let opened = AsyncTungstenite::client(stream, request, _config).await;
            return opened
                .map(|socket| Opened::AsyncTungstenite(Box::new(socket)))
                .map_err(|error| not_opened(target, &error));
        }
        let opened = WebSocket::client(stream, request).await;
        opened.map(|socket| Opened::Own(Box::new(socket))).map_err(|error| not_opened(target, &error))
    }
}

fn not_opened(target: &Target, error: &NotOpened) -> DialError {
    let answer = match error {
        // An alert; or what OpenSSL does to who says HTTP where it expects TLS.
        NotOpened::NoHttp | NotOpened::Ended if !target.tls => {
            format!("{error}; if it speaks TLS, use `wss://`")
        }
        error => error.to_string(),
    };
    DialError::Upgrade { target: target.to_string(), answer }
}

/// A panic there is the program's affair; it is told, and does not end the client.
async fn by_program<T>(connector: &By<T>, destination: Destination) -> io::Result<T> {
    AssertUnwindSafe(async { connector(destination).await })
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the program's connector panicked")))
}

/// The client's half of the TLS handshake, if there is to be one.
#[cfg(feature = "tls")]
async fn secure<S: futures_io::AsyncRead + futures_io::AsyncWrite + Unpin>(
    target: &Target,
    stream: S,
    tls: Option<&futures_rustls::TlsConnector>,
) -> Result<MaybeTls<S>, DialError> {
    let failed = |reason: String| DialError::Tls { target: target.to_string(), reason };
    let Some(connector) = tls else { return Ok(MaybeTls::Plain(stream)) };
    let name = crate::tls::server_name(&target.host).map_err(|error| failed(error.to_string()))?;
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(MaybeTls::Tls(Box::new(stream.into()))),
        Err(error) => Err(failed(crate::tls::explain(&error))),
    }
}
