//! A client's options, and starting.

use std::{
    fmt, io,
    marker::PhantomData,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use futures_channel::oneshot;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::FutureExt;
use link_core::{Address, Config, InvalidPrivateKey, Reconnect, ReconnectPolicy, Wallet};
use link_websocket::http::{HeaderMap, HeaderName, HeaderValue, header::HOST};
use tracing::{Instrument, info_span};

use super::{
    Client, ClientHandle, ConnectionFailure, DialError, LOG, Shared,
    dial::{Connector, Destination, Dialler, Target},
    proxy::Proxy,
    run::{Run, Welcome},
};
use crate::{
    event_queue,
    maybe_tls::ByteStream,
    options::Options,
    runtime::Runtime,
    transport::Transport,
    wallet::{IdentityError, NoRandomness, seed},
};

/// Headers by which a WebSocket comes to be, and those of a body, which its request has not. (A client of Link asks for no extension and no subprotocol.)
const OWN_HEADERS: [&str; 8] = [
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
];

/// A client's options. Each method's first sentence ends with its default.
///
/// A zero time-out or interval switches that guard off.
#[must_use = "a builder does nothing until `connect` or `start`"]
pub struct ClientBuilder<R> {
    /// What the last URL says, or what is wrong with it.
    url: Option<Result<Target, DialError>>,
    host: Option<String>,
    port: Option<u16>,
    tls_on: Option<bool>,
    headers: HeaderMap,
    /// What was wrong with a header, likewise.
    bad_header: Option<ConnectError>,
    connector: Option<Connector>,
    proxy: Option<Proxy>,
    #[cfg(feature = "tls")]
    tls: crate::tls::ClientTls,
    options: Options,
    connect_timeout: Duration,
    expected_servers: Vec<Address>,
    reconnect: ReconnectPolicy,
    max_reconnect_delay: Option<Duration>,
    runtime: PhantomData<fn() -> R>,
}

/// Why the client could not connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The private key is not valid.
    #[error("invalid private key")]
    PrivateKey(#[from] InvalidPrivateKey),
    /// The system has no random numbers for a new wallet.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// TLS cannot be set up.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Tls(#[from] crate::TlsError),
    /// The server's URL or host is not valid.
    #[error(transparent)]
    Target(DialError),
    /// An extra header cannot be sent.
    #[error("the header {name:?} cannot be sent: {reason}")]
    Header {
        /// Its name, as it was given.
        name: String,
        /// What is wrong with it. The value is not told: it may be a secret.
        reason: &'static str,
    },
    /// It was tried, and given up.
    #[error(transparent)]
    Failed(#[from] ConnectionFailure),
    /// Disconnected by a handle meanwhile.
    #[error("disconnected by this side")]
    Disconnected,
}

impl From<IdentityError> for ConnectError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::PrivateKey(error) => error.into(),
            IdentityError::NoRandomness(error) => error.into(),
        }
    }
}

impl<R: Runtime> ClientBuilder<R> {
    pub(super) fn new() -> Self {
        Self {
            url: None,
            host: None,
            port: None,
            tls_on: None,
            headers: HeaderMap::new(),
            bad_header: None,
            connector: None,
            proxy: None,
            #[cfg(feature = "tls")]
            tls: crate::tls::ClientTls::default(),
            options: Options::default(),
            connect_timeout: Duration::from_secs(10),
            expected_servers: Vec::new(),
            reconnect: ReconnectPolicy::default(),
            max_reconnect_delay: None,
            runtime: PhantomData,
        }
    }

    /// The server's host name or IP address: that of the [`url`](Self::url), or `localhost`.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// The server's port: that of the [`url`](Self::url), or 3793.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The server's host, port and path in one, such as `wss://example.org:443/link?room=1`: `ws://localhost:3793/`. Without a
    /// port it is 3793, the port of Link, for `wss://` as well: write `:443` where a web server stands in front. A bad URL is
    /// reported by [`connect`](Self::connect) and [`start`](Self::start).
    ///
    /// [`host`](Self::host), [`port`](Self::port) and [`tls`](Self::tls) win over what it says, whatever comes first.
    pub fn url(mut self, url: &str) -> Self {
        self.url = Some(Target::from_url(url));
        self
    }

    /// A header of the HTTP request, beside those of the WebSocket: none. Called again, one more. For a gateway that wants
    /// an `Authorization`, say, or an `Origin`; `Host` may be set as well. A bad one is reported by
    /// [`connect`](Self::connect) and [`start`](Self::start).
    ///
    /// The values are sent in the clear on `ws://`. They say nothing to a Link server: the wallet does.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let bad = |reason| Some(ConnectError::Header { name: name.into(), reason });
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Err(_), _) => self.bad_header = bad("invalid header name"),
            (_, Err(_)) => self.bad_header = bad("invalid header value"),
            (Ok(key), _) if OWN_HEADERS.contains(&key.as_str()) => {
                self.bad_header = bad("the WebSocket handshake sets this header itself");
            }
            (Ok(key), Ok(_)) if key == HOST && self.headers.contains_key(HOST) => {
                self.bad_header = bad("it can be given only once");
            }
            (Ok(key), Ok(value)) if key == HOST && value.to_str().is_err() => {
                self.bad_header = bad("a host's name has ASCII characters only here; write it in Punycode");
            }
            (Ok(key), Ok(value)) => drop(self.headers.append(key, value)),
        }
        self
    }

    /// The proxy to connect through, each time when the client dials: none. The
    /// [`connect_timeout`](Self::connect_timeout) covers the proxy as well; a proxy that refuses is a [`DialError`], like a
    /// server that cannot be reached. A [`connector`](Self::connector) or a
    /// [`websocket_connector`](Self::websocket_connector) takes its place, whichever comes first.
    ///
    /// ```
    /// # fn with<R: link_driver::Runtime>() -> Result<link_driver::ClientBuilder<R>, link_driver::InvalidProxy> {
    /// use link_driver::{Client, Proxy};
    ///
    /// let proxy = Proxy::parse("http://user:password@proxy.example:3128")?; // or `Proxy::from_env()?`
    /// Ok(Client::<R>::builder().url("wss://link.example/").proxy(proxy))
    /// # }
    /// ```
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// How to connect to the server, in place of the runtime's own way and of a [`proxy`](Self::proxy): through a tunnel, say.
    /// TLS and the WebSocket go over the stream that it returns, whatever kind that is. It is asked each time when the client
    /// dials, and the [`connect_timeout`](Self::connect_timeout) goes on meanwhile. The stream should have `TCP_NODELAY` set,
    /// and its `poll_close` should end the sending direction only.
    ///
    /// ```
    /// # fn with<R: link_driver::Runtime>() -> link_driver::ClientBuilder<R> {
    /// link_driver::Client::<R>::builder().host("link.example").connector(|destination| async move {
    ///     let mut stream = R::connect("gateway.example", 4000).await?;
    ///     // Here the gateway is asked for `destination.host` and `destination.port`.
    ///     # let _ = (&mut stream, destination.host);
    ///     Ok(stream)
    /// })
    /// # }
    /// ```
    pub fn connector<F, C, S>(mut self, connector: F) -> Self
    where
        F: Fn(Destination) -> C + Send + Sync + 'static,
        C: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.connector = Some(Connector::Stream(Arc::new(move |destination| {
            let connecting = connector(destination);
            async move { connecting.await.map(|stream| Box::new(stream) as Box<dyn ByteStream>) }.boxed()
        })));
        self
    }

    /// How it comes to a WebSocket, when the program does all of that itself, the HTTP upgrade included: a function of the
    /// destination, called for each attempt. It takes the place of a [`connector`](Self::connector), of a [`proxy`](Self::proxy), of
    /// TLS and of headers. Another library's WebSocket becomes a [`Transport`] as [`Framed`](crate::Framed).
    pub fn websocket_connector<F, C, T>(mut self, connector: F) -> Self
    where
        F: Fn(Destination) -> C + Send + Sync + 'static,
        C: Future<Output = io::Result<T>> + Send + 'static,
        T: Transport + Send + 'static,
    {
        self.connector = Some(Connector::WebSocket(Arc::new(move |destination| {
            let connecting = connector(destination);
            async move { connecting.await.map(|socket| Box::new(socket) as Box<dyn Transport + Send>) }
                .boxed()
        })));
        self
    }

    /// Whether to speak TLS: if the [`url`](Self::url) says `wss://`. The server's certificate must be for its host, and issued by somebody
    /// whom browsers trust, unless [`tls_ca`](Self::tls_ca) or [`tls_config`](Self::tls_config) says otherwise.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: bool) -> Self {
        self.tls_on = Some(tls);
        self
    }

    /// A file in PEM with the certificates of those who may have issued the server's, in place of those whom browsers
    /// trust: none. It does not turn TLS on.
    #[cfg(feature = "tls")]
    pub fn tls_ca(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.tls.ca = Some(path.into());
        self
    }

    /// A TLS configuration of the program's own: none. It does not turn TLS on.
    #[cfg(feature = "tls")]
    pub fn tls_config(mut self, config: Arc<crate::rustls::ClientConfig>) -> Self {
        self.tls.config = Some(config);
        self
    }

    /// The wallet of the client: a fresh one.
    pub fn wallet(mut self, wallet: Wallet) -> Self {
        self.options.set_wallet(wallet);
        self
    }

    /// The private key of the client in hex, which wins over [`wallet`](Self::wallet): none. A bad one is
    /// reported by [`connect`](Self::connect) and [`start`](Self::start).
    pub fn private_key(mut self, hex: &str) -> Self {
        self.options.set_private_key(hex);
        self
    }

    /// An address that the server may have; called again, one more: any address.
    pub fn expect_server(mut self, address: Address) -> Self {
        self.expected_servers.push(address);
        self
    }

    /// How long the server may take to prove its address, and how far the time it signed may be from this
    /// machine's: 5 s. Zero takes the deadline away, and leaves the window at 5 s.
    pub fn auth_timeout(mut self, timeout: Duration) -> Self {
        self.options.auth_timeout = timeout;
        self
    }

    /// How long opening the WebSocket may take: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How often the server is pinged, to measure the round trip and to notice that it is gone: 1 s.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.options.heartbeat_interval = interval;
        self
    }

    /// How long the server may be silent before it counts as gone: 5 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.options.idle_timeout = timeout;
        self
    }

    /// How many times in a row to dial again before giving up: 5. Zero never dials again; `u32::MAX` never
    /// gives up.
    pub fn max_reconnect_attempts(mut self, attempts: u32) -> Self {
        self.reconnect.max_attempts = attempts;
        self
    }

    /// The upper bound of the first delay, which doubles with each attempt: 1 s. The delay itself is drawn
    /// evenly from zero to the bound.
    pub fn reconnect_delay(mut self, delay: Duration) -> Self {
        self.reconnect.delay = delay;
        self
    }

    /// The upper bound of every delay: 30 s, or the first one's if that is longer.
    pub fn max_reconnect_delay(mut self, delay: Duration) -> Self {
        self.max_reconnect_delay = Some(delay);
        self
    }

    /// How long a session must last for the attempts to be counted anew: 10 s.
    pub fn reconnect_reset_after(mut self, lasted: Duration) -> Self {
        self.reconnect.lasted = lasted;
        self
    }

    /// Whether to dial again after a refusal (401, 403, 409) or a replacement: false.
    pub fn retry_refusals(mut self, retry: bool) -> Self {
        self.reconnect.retry_refusals = retry;
        self
    }

    /// The longest message, in bytes, either way: 1 MiB. At least 4 KiB, which the protocol needs for itself.
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.options.max_message_size = bytes;
        self
    }

    /// How many bytes may wait to be sent: 4 MiB.
    pub fn max_send_queue(mut self, bytes: usize) -> Self {
        self.options.max_send_queue = bytes;
        self
    }

    /// How long the server may accept no data before the connection is dropped: 30 s. It is dropped as
    /// [`SlowPeer`](link_core::CloseReason::SlowPeer). Zero switches that off, but not for a client that disconnects:
    /// what it still has to send gets the default.
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.options.send_timeout = timeout;
        self
    }

    /// How many events may wait for the program, beside one turn's: 1024. From 1 to 65,536.
    pub fn event_capacity(mut self, events: usize) -> Self {
        self.options.event_capacity = events;
        self
    }

    /// Starts, and waits until the line is authenticated. The events of that are the client's first ones.
    ///
    /// # Errors
    /// When an option is bad, the server refuses, or all attempts fail.
    pub async fn connect(self) -> Result<Client<R>, ConnectError> {
        let (client, welcome) = self.launch()?;
        match welcome.await {
            Ok(outcome) => outcome.map(|()| client).map_err(ConnectError::from),
            Err(oneshot::Canceled) => Err(ConnectError::Disconnected),
        }
    }

    /// Starts, and does not wait: for a program that is to come up before its server does. How it goes is told
    /// by the events.
    ///
    /// # Errors
    /// When an option is bad.
    ///
    /// # Panics
    /// Where the runtime cannot start a task: on tokio, outside of a runtime.
    pub fn start(self) -> Result<Client<R>, ConnectError> {
        self.launch().map(|(client, _)| client)
    }

    #[allow(clippy::type_complexity, reason = "the pair is taken apart at once")]
    fn launch(self) -> Result<(Client<R>, oneshot::Receiver<Result<(), ConnectionFailure>>), ConnectError> {
        let target = self.target().and_then(Target::check).map_err(ConnectError::Target)?;
        if let Some(error) = self.bad_header {
            return Err(error);
        }
        #[cfg(feature = "tls")]
        let tls = match target.tls {
            true => Some(futures_rustls::TlsConnector::from(self.tls.resolve()?)),
            false => None,
        };
        let event_capacity = self.options.event_capacity;
        let mut config = self.options.resolve(Config::client)?;
        config.expected_servers = self.expected_servers;
        let mut reconnect = self.reconnect;
        reconnect.max_delay =
            self.max_reconnect_delay.unwrap_or_else(|| reconnect.max_delay.max(reconnect.delay));

        let (stop_sender, stop) = oneshot::channel();
        let (gone_sender, gone) = oneshot::channel();
        let (welcome_sender, welcome) = oneshot::channel();
        let (sender, events) = event_queue::channel(event_capacity);
        let shared = Arc::new(Shared {
            address: config.wallet.address(),
            line: Mutex::new(None),
            stop: Mutex::new(Some(stop_sender)),
            failure: OnceLock::new(),
            gone: gone.shared(),
        });
        let run = Run {
            shared: shared.clone(),
            dialler: Arc::new(Dialler {
                target,
                headers: self.headers,
                connector: self.connector,
                proxy: self.proxy,
                #[cfg(feature = "tls")]
                tls,
                timeout: self.connect_timeout,
            }),
            config: Arc::new(config),
            reconnect: Reconnect::new(reconnect, seed()),
            events: sender.queue(),
            stop,
            welcome: Welcome(Some(welcome_sender)),
            _gone: gone_sender,
        };
        let span = info_span!(target: LOG, "client", address = %shared.address, server = %run.dialler.target);
        R::spawn(run.run::<R>().instrument(span));
        Ok((Client { handle: ClientHandle { shared }, events, runtime: PhantomData }, welcome))
    }
}

impl<R> ClientBuilder<R> {
    /// Where to, by all that was said about it.
    fn target(&self) -> Result<Target, DialError> {
        let mut target = self.url.clone().unwrap_or_else(|| Ok(Target::default()))?;
        target.host = self.host.clone().unwrap_or(target.host);
        target.port = self.port.unwrap_or(target.port);
        target.tls = self.tls_on.unwrap_or(target.tls);
        Ok(target)
    }
}

impl<R> fmt::Debug for ClientBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target();
        f.debug_struct("ClientBuilder").field("target", &target).finish_non_exhaustive()
    }
}
