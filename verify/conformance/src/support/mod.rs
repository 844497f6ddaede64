//! What the tests lean on: patience, servers and clients to begin with, and the stories that both tell.

pub(crate) mod counted;
pub mod raw;

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::Location,
    pin::{Pin, pin},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use futures_channel::{mpsc, oneshot};
use futures_util::{
    StreamExt,
    future::{Either, join, select},
};
use link_driver::{
    Address, Client, ClientBuilder, ClientEvent, CloseReason, ConnectError, ConnectedClient, FailureCause,
    GiveUp, Message, Runtime, SendError, Server, ServerBuilder, ServerEvent, ServerHandle, Serving, Session,
    Timer, Wallet,
};
use serde_json::{Value, json};

/// How long anything may take that has to happen. Reached only by a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing is watched to happen, where nothing may.
pub(crate) const A_WHILE: Duration = Duration::from_millis(300);

/// Futures that must be ready soon.
pub(crate) trait Soon: Future + Sized {
    /// Waits, and panics where it was called when nothing comes of it.
    #[track_caller]
    fn soon<R: Runtime>(self) -> impl Future<Output = Self::Output> {
        let caller = Location::caller();
        async move {
            match within::<R, _>(PATIENCE, self).await {
                Some(output) => output,
                None => panic!("waited in vain at {caller}"),
            }
        }
    }

    /// Panics where it was called when it is ready within [`A_WHILE`].
    #[track_caller]
    fn not_for_a_while<R: Runtime>(self) -> impl Future<Output = ()> {
        self.not_within::<R>(A_WHILE)
    }

    /// Panics where it was called when it is ready within that time.
    #[track_caller]
    fn not_within<R: Runtime>(self, time: Duration) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            assert!(within::<R, _>(time, self).await.is_none(), "came, though it must not, at {caller}");
        }
    }
}

impl<F: Future> Soon for F {}

pub(crate) async fn within<R: Runtime, F: Future>(time: Duration, work: F) -> Option<F::Output> {
    match select(pin!(work), pin!(pause::<R>(time))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

pub(crate) async fn pause<R: Runtime>(time: Duration) {
    let mut timer = pin!(R::timer());
    timer.as_mut().arm(R::now() + time);
    timer.await;
}

/// Asks again and again, until it is so.
#[track_caller]
pub(crate) fn until<R: Runtime>(mut so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    async move {
        while !so() {
            pause::<R>(Duration::from_millis(5)).await;
        }
    }
    .soon::<R>()
}

/// Runs blocking code, which a runtime's own threads must not, and hands out what it returns.
pub(crate) fn script<T: Send + 'static>(
    lines: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || sender.send(lines()));
    async { receiver.await.expect("the script panicked, and has said why") }
}

pub(crate) fn wallet() -> Wallet {
    link_driver::new_wallet().expect("randomness")
}

/// A server on a free loopback port, whose guards are not rounded up.
pub(crate) fn server<R: Runtime>() -> ServerBuilder<R> {
    Server::builder()
        .host(Ipv4Addr::LOCALHOST)
        .port(0)
        .auth_check_interval(Duration::ZERO)
        .idle_check_interval(Duration::ZERO)
}

/// A server, or a handle of it.
pub(crate) trait Listening<R> {
    fn place(&self) -> SocketAddr;
}

impl<R: Runtime> Listening<R> for Server<R> {
    fn place(&self) -> SocketAddr {
        self.local_address().unwrap()
    }
}

impl<R: Runtime> Listening<R> for ServerHandle<R> {
    fn place(&self) -> SocketAddr {
        self.local_address().unwrap()
    }
}

/// A client of that server that comes back quickly.
pub(crate) fn client<R: Runtime>(server: &impl Listening<R>) -> ClientBuilder<R> {
    client_at(server.place())
}

pub(crate) fn client_at<R: Runtime>(at: SocketAddr) -> ClientBuilder<R> {
    Client::builder().host(at.ip().to_string()).port(at.port()).reconnect_delay(Duration::from_millis(20))
}

/// A place that nobody else is handed, for a server that goes away and comes back. Where every 127.x.y.z is this
/// machine, it has an IP address of its own.
pub(crate) fn place_of_its_own() -> SocketAddr {
    static PLACES: AtomicU8 = AtomicU8::new(1);
    let ip = if cfg!(target_os = "linux") {
        let [low, high, ..] = std::process::id().to_le_bytes();
        Ipv4Addr::new(127, high | 1, low, PLACES.fetch_add(1, Ordering::Relaxed))
    } else {
        Ipv4Addr::LOCALHOST
    };
    std::net::TcpListener::bind((ip, 0)).expect("a port").local_addr().expect("its address")
}

/// Connects a client, and hands out both ends.
pub(crate) async fn meet<R: Runtime>(
    server: &mut impl ServerStory<Runtime = R>,
    client: ClientBuilder<R>,
) -> (Client<R>, ConnectedClient) {
    let (client, peer) = join(client.connect(), server.authenticated()).soon::<R>().await;
    (client.expect("the client is let in"), peer)
}

/// Why a client got no line.
pub(crate) fn failure<R: Runtime>(outcome: Result<Client<R>, ConnectError>) -> (FailureCause, GiveUp) {
    match outcome {
        Err(ConnectError::Failed(failure)) => (failure.cause, failure.reason),
        other => panic!("expected a failure, got {other:?}"),
    }
}

pub(crate) fn numbered(number: usize) -> Value {
    json!({ "type": "number", "number": number })
}

/// A numbered message of about so many bytes.
pub(crate) fn numbered_and_long(number: usize, bytes: usize) -> Value {
    json!({ "type": "number", "number": number, "filling": "x".repeat(bytes) })
}

pub(crate) fn number_of(message: &Message) -> usize {
    let value: Value = message.json().expect("JSON");
    usize::try_from(value["number"].as_u64().expect("a number")).expect("a small one")
}

/// Sends numbered messages until none has been taken for a while, and says how many were.
pub(crate) async fn send_until_stuck<R: Runtime>(
    bytes: usize,
    a_while: Duration,
    mut send: impl FnMut(&Value) -> Result<(), SendError>,
) -> usize {
    /// More than any kernel takes into its buffers.
    const BOUND: usize = 128 << 20;
    let (mut sent, mut since) = (0, R::now());
    while R::now() < since + a_while {
        match send(&numbered_and_long(sent, bytes)) {
            Ok(()) => (sent, since) = (sent + 1, R::now()),
            Err(SendError::Full { .. }) => pause::<R>(Duration::from_millis(5)).await,
            Err(error) => panic!("the line ended after {sent} messages: {error}"),
        }
        assert!(sent * bytes < BOUND, "{sent} messages of {bytes} bytes went somewhere");
    }
    sent
}

/// What a server tells, event by event. Heartbeats are passed over.
pub(crate) trait ServerStory {
    type Runtime: Runtime;

    async fn next_event(&mut self) -> Option<ServerEvent>;

    /// The next event; `None` at the end.
    async fn told(&mut self) -> Option<ServerEvent> {
        let beyond_heartbeats = async {
            loop {
                match self.next_event().await {
                    Some(ServerEvent::Heartbeat(..)) => {}
                    other => return other,
                }
            }
        };
        beyond_heartbeats.soon::<Self::Runtime>().await
    }

    /// The next event for which `pick` has something.
    async fn hears<T>(&mut self, mut pick: impl FnMut(ServerEvent) -> Option<T>) -> T {
        loop {
            let event = self.told().await.expect("the story goes on");
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    }

    async fn connected(&mut self) -> SocketAddr {
        match self.told().await {
            Some(ServerEvent::Connected { remote_address, .. }) => remote_address,
            other => panic!("expected `Connected`, got {other:?}"),
        }
    }

    /// The next client that is let in.
    async fn authenticated(&mut self) -> ConnectedClient {
        match self.told().await {
            Some(ServerEvent::Connected { .. }) => match self.told().await {
                Some(ServerEvent::Authenticated(peer)) => peer,
                other => panic!("expected `Authenticated`, got {other:?}"),
            },
            Some(ServerEvent::Authenticated(peer)) => peer,
            other => panic!("expected `Connected` or `Authenticated`, got {other:?}"),
        }
    }

    async fn message(&mut self) -> (ConnectedClient, Message) {
        match self.told().await {
            Some(ServerEvent::Message(peer, message)) => (peer, message),
            other => panic!("expected a message, got {other:?}"),
        }
    }

    async fn disconnected(&mut self) -> (ConnectedClient, CloseReason) {
        match self.told().await {
            Some(ServerEvent::Disconnected(peer, reason)) => (peer, reason),
            other => panic!("expected `Disconnected`, got {other:?}"),
        }
    }

    /// The next connection that is not let in, which may have been announced before.
    async fn rejected(&mut self) -> (Option<Address>, CloseReason) {
        loop {
            match self.told().await {
                Some(ServerEvent::Connected { .. }) => {}
                Some(ServerEvent::Rejected(rejected)) => return (rejected.address, rejected.reason),
                other => panic!("expected `Rejected`, got {other:?}"),
            }
        }
    }
}

impl<R: Runtime> ServerStory for Server<R> {
    type Runtime = R;

    async fn next_event(&mut self) -> Option<ServerEvent> {
        self.next().await
    }
}

/// A server with a task of its own, that sends every message back and passes every other event on.
pub(crate) struct Echo<R: Runtime> {
    pub(crate) handle: ServerHandle<R>,
    events: mpsc::UnboundedReceiver<ServerEvent>,
}

impl<R: Runtime> Echo<R> {
    pub(crate) async fn start(builder: ServerBuilder<R>) -> Self {
        let mut server = builder.bind().await.expect("a free port");
        let (handle, (sender, events)) = (server.handle(), mpsc::unbounded());
        R::spawn(async move {
            while let Some(event) = server.next().await {
                match event {
                    ServerEvent::Heartbeat(..) => {}
                    // A client that has gone meanwhile misses its echo.
                    ServerEvent::Message(peer, message) => drop(peer.try_send(message)),
                    event => drop(sender.unbounded_send(event)),
                }
            }
        });
        Self { handle, events }
    }
}

impl<R: Runtime> ServerStory for Echo<R> {
    type Runtime = R;

    async fn next_event(&mut self) -> Option<ServerEvent> {
        self.events.next().await
    }
}

/// What a client tells, event by event. Heartbeats are passed over.
pub(crate) trait ClientStory {
    async fn told(&mut self) -> Option<ClientEvent>;

    /// The next event for which `pick` has something.
    async fn hears<T>(&mut self, mut pick: impl FnMut(ClientEvent) -> Option<T>) -> T {
        loop {
            let event = self.told().await.expect("the story goes on");
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    }

    /// The next message; before it, nothing but the line's beginning.
    async fn message(&mut self) -> Message {
        loop {
            match self.told().await {
                Some(ClientEvent::Connected | ClientEvent::Authenticated { .. }) => {}
                Some(ClientEvent::Message(message)) => return message,
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    /// The end of the line; before it, nothing but its beginning.
    async fn disconnected(&mut self) -> (CloseReason, Vec<Message>) {
        loop {
            match self.told().await {
                Some(ClientEvent::Connected | ClientEvent::Authenticated { .. }) => {}
                Some(ClientEvent::Disconnected { reason, unsent }) => return (reason, unsent),
                other => panic!("expected `Disconnected`, got {other:?}"),
            }
        }
    }
}

impl<R: Runtime> ClientStory for Client<R> {
    async fn told(&mut self) -> Option<ClientEvent> {
        let beyond_heartbeats = async {
            loop {
                match self.next().await {
                    Some(ClientEvent::Heartbeat { .. }) => {}
                    other => return other,
                }
            }
        };
        beyond_heartbeats.soon::<R>().await
    }
}

/// An honest client of an [`Echo`], beside whatever else goes on there.
pub(crate) struct Bystander<R: Runtime> {
    client: Client<R>,
    sent: usize,
}

impl<R: Runtime> Bystander<R> {
    pub(crate) async fn of(echo: &mut Echo<R>) -> Self {
        let builder = client(&echo.handle);
        let (mut client, _) = meet(echo, builder).await;
        assert_eq!(client.told().await, Some(ClientEvent::Connected));
        assert!(matches!(client.told().await, Some(ClientEvent::Authenticated { .. })));
        let mut bystander = Self { client, sent: 0 };
        bystander.notices_nothing().await;
        bystander
    }

    /// Its line is the one it had, and works.
    pub(crate) async fn notices_nothing(&mut self) {
        self.sent += 1;
        self.client.try_send(numbered(self.sent)).expect("the line is there");
        match self.client.told().await {
            Some(ClientEvent::Message(message)) => assert_eq!(number_of(&message), self.sent),
            other => panic!("the honest client noticed {other:?}"),
        }
    }

    pub(crate) fn address(&self) -> Address {
        self.client.address()
    }

    pub(crate) async fn leaves(self) {
        self.client.close().soon::<R>().await;
    }
}

/// Says when it is dropped.
pub(crate) struct Dropped(Option<oneshot::Sender<()>>);

impl Dropped {
    pub(crate) fn new() -> (Self, Pin<Box<dyn Future<Output = ()> + Send>>) {
        let (sender, receiver) = oneshot::channel();
        (
            Self(Some(sender)),
            Box::pin(async {
                let _ = receiver.await;
            }),
        )
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    IpAddr::is_loopback(&address.ip())
}

/// A server whose handler hands each session to the test, and ends with what the test holds of it.
pub(crate) struct Lobby<R: Runtime> {
    pub(crate) serving: Serving<R>,
    pub(crate) handle: ServerHandle<R>,
    arrived: mpsc::UnboundedReceiver<Held>,
}

/// A session, in the hands of the test.
pub(crate) struct Held {
    session: Session,
    /// With it, the handler ends.
    _handler: oneshot::Sender<()>,
}

impl<R: Runtime> Lobby<R> {
    pub(crate) fn new(server: Server<R>) -> Self {
        let (arrives, arrived) = mpsc::unbounded();
        let handle = server.handle();
        let serving = server.serve(move |session| {
            let (held, ends) = oneshot::channel();
            // If the test is over, nobody waits for it.
            let _ = arrives.unbounded_send(Held { session, _handler: held });
            async move {
                let _ = ends.await;
            }
        });
        Self { serving, handle, arrived }
    }

    pub(crate) async fn accept(&mut self) -> Held {
        self.arrived.next().await.expect("it serves")
    }

    /// Connects a client, and hands out the server's session with it.
    pub(crate) async fn meet(&mut self, builder: ClientBuilder<R>) -> (Client<R>, Held) {
        let (client, session) = join(builder.connect(), self.accept()).soon::<R>().await;
        (client.expect("let in"), session)
    }
}

impl std::ops::Deref for Held {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl std::ops::DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}
