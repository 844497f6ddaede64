//! A server's options, and binding.

use std::{
    any::Any,
    collections::BTreeSet,
    convert::Infallible,
    fmt,
    future::Future,
    io,
    marker::PhantomData,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_channel::{mpsc, oneshot};
use futures_util::FutureExt;
use link_core::{Address, AdmissionConfig, Config, InvalidPrivateKey, Refusal, Wallet};

use super::{
    Face, Server, ServerHandle,
    accept::{self, Attached, Shared, Sources},
    connected_client::Data,
    registry::Registry,
    stats::Counters,
};
use crate::{
    DEFAULT_PORT,
    options::Options,
    runtime::Runtime,
    wallet::{IdentityError, NoRandomness},
};

/// A server's options. Each method's first sentence ends with its default.
///
/// A zero time-out or interval switches that guard off.
#[must_use = "a builder does nothing until `bind`, `listen` or `start`"]
pub struct ServerBuilder<R> {
    address: SocketAddr,
    options: Options,
    auth_check_interval: Duration,
    idle_check_interval: Duration,
    admission: AdmissionConfig,
    check: Option<Check>,
    #[cfg(feature = "tls")]
    tls: crate::tls::ServerTls,
    runtime: PhantomData<fn() -> R>,
}

/// Asks the program about a candidate.
pub(super) type Check =
    Box<dyn Fn(Candidate) -> Pin<Box<dyn Future<Output = Verdict> + Send>> + Send + Sync + 'static>;

/// A client that has proved its address, and waits to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// Its wallet address, proved.
    pub address: Address,
    /// Where its connection comes from.
    pub remote_address: SocketAddr,
}

/// What `on_authenticate` says about a [`Candidate`]. A `bool` is one too.
pub struct Verdict(Result<Option<Data>, Refusal>);

impl Verdict {
    /// Let it in.
    pub const fn allow() -> Self {
        Self(Ok(None))
    }

    /// Let it in, and attach `data` to it: [`ConnectedClient::data`](super::ConnectedClient::data) hands it out.
    pub fn allow_with<T: Any + Send + Sync>(data: T) -> Self {
        Self(Ok(Some(Arc::new(data))))
    }

    /// Refuse it, with 403.
    pub const fn deny() -> Self {
        Self(Err(Refusal::Denied))
    }

    pub(super) fn into_data(self) -> Result<Option<Data>, Refusal> {
        self.0
    }
}

impl From<bool> for Verdict {
    fn from(allowed: bool) -> Self {
        if allowed { Self::allow() } else { Self::deny() }
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Ok(None) => "Verdict(allow)",
            Ok(Some(_)) => "Verdict(allow, with data)",
            Err(_) => "Verdict(deny)",
        })
    }
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
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
    /// TLS was configured for a server without a listener.
    #[cfg(feature = "tls")]
    #[error(
        "a server without a listener does not use TLS itself: the HTTP server in front of it does; leave out `tls_cert`, `tls_key` \
         and `tls_config`"
    )]
    TlsWithoutListener,
    /// The address is taken.
    #[error(
        "{address} is in use: another program listens there; stop it, or choose another port (0 for any free one)"
    )]
    InUse {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// The system does not let it listen there.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

impl From<IdentityError> for BindError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::PrivateKey(error) => error.into(),
            IdentityError::NoRandomness(error) => error.into(),
        }
    }
}

impl<R: Runtime> ServerBuilder<R> {
    pub(super) fn new() -> Self {
        let second = Duration::from_secs(1);
        Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_PORT),
            options: Options::default(),
            auth_check_interval: second,
            idle_check_interval: second,
            admission: AdmissionConfig::default(),
            check: None,
            #[cfg(feature = "tls")]
            tls: crate::tls::ServerTls::default(),
            runtime: PhantomData,
        }
    }

    /// The port to listen on: 3793. Port 0 asks the system for a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        self
    }

    /// The IP address to listen at: `0.0.0.0`, every IPv4 one. `::` is usually every one of both kinds.
    pub fn host(mut self, ip: impl Into<IpAddr>) -> Self {
        self.address.set_ip(ip.into());
        self
    }

    /// The wallet of the server: a fresh one.
    pub fn wallet(mut self, wallet: Wallet) -> Self {
        self.options.set_wallet(wallet);
        self
    }

    /// The private key of the server in hex, which wins over [`wallet`](Self::wallet): none. A bad one is
    /// reported when the server starts.
    pub fn private_key(mut self, hex: &str) -> Self {
        self.options.set_private_key(hex);
        self
    }

    /// How long a client may take from its TCP connection to its proof, and how far the time it signed may be
    /// from this machine's: 5 s. Zero takes the deadline away, and leaves the window at 5 s.
    pub fn auth_timeout(mut self, timeout: Duration) -> Self {
        self.options.auth_timeout = timeout;
        self
    }

    /// By how much that deadline may be rounded up, so that many connections share a wake-up: 1 s.
    pub fn auth_check_interval(mut self, interval: Duration) -> Self {
        self.auth_check_interval = interval;
        self
    }

    /// How often each client is sent a heartbeat: 1 s.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.options.heartbeat_interval = interval;
        self
    }

    /// How long a client may be silent before it is dropped: 5 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.options.idle_timeout = timeout;
        self
    }

    /// By how much that deadline may be rounded up: 1 s.
    pub fn idle_check_interval(mut self, interval: Duration) -> Self {
        self.idle_check_interval = interval;
        self
    }

    /// Whether a new connection replaces one of the same address, rather than being refused with 409: true.
    pub fn replace_existing(mut self, replace: bool) -> Self {
        self.admission.replace_existing = replace;
        self
    }

    /// The addresses that may connect; others are refused with 403: anybody. It can be changed while the server runs, by
    /// [`ServerHandle::set_whitelist`].
    pub fn whitelist(mut self, addresses: impl IntoIterator<Item = Address>) -> Self {
        self.admission.whitelist = Some(BTreeSet::from_iter(addresses));
        self
    }

    /// A check of the program's own, asked once about each client that has proved its address and passed the
    /// whitelist: none. It may take its time (the authentication deadline goes on) and attach data to the client.
    ///
    /// It returns a [`Verdict`] or a `bool`. If the client goes away meanwhile, its future is dropped.
    pub fn on_authenticate<F, W, V>(mut self, check: F) -> Self
    where
        F: Fn(Candidate) -> W + Send + Sync + 'static,
        W: Future<Output = V> + Send + 'static,
        V: Into<Verdict> + 'static,
    {
        self.check = Some(Box::new(move |candidate| Box::pin(check(candidate).map(Into::into))));
        self
    }

    /// The certificate chain of the server, a file in PEM: none, which means `ws://`. With it, the server speaks TLS
    /// only. It takes [`tls_key`](Self::tls_key) as well.
    #[cfg(feature = "tls")]
    pub fn tls_cert(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.tls.certificate = Some(path.into());
        self
    }

    /// The private key of the certificate, a file in PEM: none. (It has nothing to do with the wallet.)
    #[cfg(feature = "tls")]
    pub fn tls_key(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.tls.key = Some(path.into());
        self
    }

    /// A TLS configuration of the program's own, which wins over [`tls_cert`](Self::tls_cert) and
    /// [`tls_key`](Self::tls_key): none.
    #[cfg(feature = "tls")]
    pub fn tls_config(mut self, config: Arc<crate::rustls::ServerConfig>) -> Self {
        self.tls.config = Some(config);
        self
    }

    /// The longest message, in bytes, either way: 1 MiB. At least 4 KiB, which the protocol needs for itself.
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.options.max_message_size = bytes;
        self
    }

    /// How many bytes may wait to be sent to one client: 4 MiB.
    pub fn max_send_queue(mut self, bytes: usize) -> Self {
        self.options.max_send_queue = bytes;
        self
    }

    /// How many connections may be unauthenticated at once, in all and from one IP address (for IPv6: one /64
    /// network): 4096 and 1024. Further ones are turned away.
    pub fn max_unauthenticated(mut self, in_all: usize, per_ip: usize) -> Self {
        self.admission.max_unauthenticated = in_all;
        self.admission.max_unauthenticated_per_ip = per_ip;
        self
    }

    /// How many used proofs are remembered, 16 of one address at most: 262,144, about 200 bytes each. Each is kept while
    /// it could be used again. When the memory is full, addresses that are not in it are closed as
    /// [`Busy`](link_core::Refusal::Busy), and may try again; with 0, everybody is.
    pub fn max_remembered_proofs(mut self, proofs: usize) -> Self {
        self.admission.max_remembered_proofs = proofs;
        self
    }

    /// How long a client may accept no data before it is dropped: 30 s. It is dropped as
    /// [`SlowPeer`](link_core::CloseReason::SlowPeer).
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.options.send_timeout = timeout;
        self
    }

    /// How many events may wait for the program, beside one turn's for each connection: 1024. From 1 to 65,536.
    pub fn event_capacity(mut self, events: usize) -> Self {
        self.options.event_capacity = events;
        self
    }

    /// Starts to listen. Nobody is accepted until the server is first polled.
    ///
    /// # Errors
    /// When an option is bad, or the address cannot be listened at; the error says what to do.
    pub async fn bind(self) -> Result<Server<R>, BindError> {
        let address = self.address;
        let launch = self.ready()?;
        let listener = R::bind(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address },
            _ => BindError::Listen { address, error },
        })?;
        launch.with(listener, address)
    }

    /// Starts with a listener that is already bound (`host` and `port` are ignored): one that was handed
    /// down by a supervisor, say, or has socket options of its own. Nobody is accepted until the server is first polled.
    ///
    /// # Errors
    /// When an option is bad, or the listener does not know where it listens.
    ///
    /// # Panics
    /// Where the runtime cannot start a task: on tokio, outside of a runtime.
    pub fn listen(self, listener: R::Listener) -> Result<Server<R>, BindError> {
        let address = self.address;
        self.ready()?.with(listener, address)
    }

    /// Starts without a listener: connections come by [`ServerHandle::attach`] only, and `host` and `port` mean nothing.
    ///
    /// # Errors
    /// When an option is bad; and with TLS, since who upgrades the streams is who secures them.
    ///
    /// # Panics
    /// Where the runtime cannot start a task: on tokio, outside of a runtime.
    pub fn start(self) -> Result<Server<R>, BindError> {
        let launch = self.ready()?;
        #[cfg(feature = "tls")]
        if launch.shared.tls.is_some() {
            return Err(BindError::TlsWithoutListener);
        }
        Ok(launch.launch(None))
    }

    /// Checks every option that can be checked without a listener.
    fn ready(self) -> Result<Launch<R>, BindError> {
        let Self { options, mut admission, .. } = self;
        let event_capacity = options.event_capacity;
        let mut core = options.resolve(Config::server)?;
        core.auth_check_interval = self.auth_check_interval;
        core.idle_check_interval = self.idle_check_interval;
        admission.auth_window = core.auth_window;

        #[cfg(feature = "tls")]
        let tls = self.tls.resolve()?.map(futures_rustls::TlsAcceptor::from);

        let (close, closing) = oneshot::channel();
        let (gone_sender, gone) = oneshot::channel();
        let (abandon, abandoned) = oneshot::channel();
        let (attaching, attached) = mpsc::unbounded();
        let shared = Shared {
            config: Arc::new(core),
            event_capacity,
            check: self.check,
            #[cfg(feature = "tls")]
            tls,
            registry: Registry::new(admission),
            counters: Counters::default(),
            local_address: None,
            attaching,
            close: Mutex::new(Some(close)),
            gone: gone.shared(),
            abandoned: abandoned.shared(),
        };
        Ok(Launch { shared, attached, closing, gone: gone_sender, abandon, runtime: PhantomData })
    }
}

/// A server that lacks nothing but its listener, if it is to have one.
struct Launch<R> {
    shared: Shared,
    attached: mpsc::UnboundedReceiver<Attached>,
    closing: oneshot::Receiver<Infallible>,
    gone: oneshot::Sender<Infallible>,
    abandon: oneshot::Sender<Infallible>,
    runtime: PhantomData<fn() -> R>,
}

impl<R: Runtime> Launch<R> {
    fn with(mut self, listener: R::Listener, address: SocketAddr) -> Result<Server<R>, BindError> {
        let local = R::local_address(&listener).map_err(|error| BindError::Listen { address, error })?;
        self.shared.local_address = Some(local);
        Ok(self.launch(Some(listener)))
    }

    fn launch(self, listener: Option<R::Listener>) -> Server<R> {
        let Self { shared, attached, closing, gone, abandon, .. } = self;
        let (decision, decided) = oneshot::channel();
        let shared = Arc::new(shared);
        let sources = Sources { listener, attached, decided: decided.shared(), closing };
        R::spawn(accept::run::<R>(shared.clone(), sources, gone, abandon));
        Server { handle: ServerHandle { shared, runtime: PhantomData }, face: Face::Undecided(decision) }
    }
}

impl<R> fmt::Debug for ServerBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("address", &self.address).finish_non_exhaustive()
    }
}
