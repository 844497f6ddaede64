//! The one I/O loop of Link: drives [`link_core::Connection`] over any async stream, on any runtime.
//!
//! Most programs take an adapter, such as `link-tokio`, which names these types for its runtime and re-exports
//! the rest. Take this crate to bring a runtime of your own: implement [`Runtime`], and everything here works
//! there.
//!
//! - [`Server`] accepts clients, and gives each a [`Session`] with a handler of its own; or hands the events of all of them to
//!   the program, in one stream.
//! - [`Client`] keeps a line to a server, and dials again by itself when it is lost.
//!
//! The [`manual`] has a page each on choosing a runtime, writing one, embedding, observability and features.
//!
//! ```text
//! bytes ──▶ socket ──▶ line ──▶ link_core::Connection ──▶ server or client ──▶ event_queue ──▶ your program
//! bytes ◀── socket ◀── line ◀── link_core::Connection ◀── outbox ◀──────────────────────────── your program
//! ```

#![forbid(unsafe_code)]

#[cfg(feature = "async-tungstenite")]
mod async_tungstenite;
mod chain;
mod client;
mod event_queue;
mod framed;
mod line;
pub mod manual;
mod maybe_tls;
mod options;
mod outbox;
mod runtime;
mod server;
mod socket;
#[cfg(feature = "tls")]
mod tls;
mod transport;
mod wallet;

#[cfg(feature = "async-tungstenite")]
pub use async_tungstenite::{AsyncTungstenite, OnAsyncTungstenite};
pub use chain::ErrorChain;
pub use client::{
    Client, ClientBuilder, ClientError, ClientEvent, ClientHandle, ConnectError, ConnectionFailure,
    Destination, DialError, FailureCause, InvalidProxy, Proxy, ProxyError, SocksReply,
};
pub use event_queue::DEFAULT_EVENT_CAPACITY;
pub use framed::Framed;
pub use runtime::{Runtime, Timer};
pub use server::{
    AttachError, BindError, Candidate, ConnectedClient, NoListener, Outcome, Rejected, RoundTrips, Server,
    ServerBuilder, ServerError, ServerEvent, ServerHandle, ServerStats, Serving, Session, Verdict,
};
#[cfg(feature = "tls")]
pub use tls::TlsError;
pub use transport::{StartSendError, Transport};
pub use wallet::{NoRandomness, new_wallet};

/// For an HTTP server that upgrades by itself, and hands the stream to [`ServerHandle::attach`] afterwards.
pub use link_websocket::{NotUpgraded, http, upgrade_response};

/// rustls itself, for a configuration of one's own.
#[cfg(feature = "tls")]
pub use futures_rustls::rustls;

/// What a program needs of the protocol itself.
pub use link_core::{
    Address, CloseReason, ConnectionId, DEFAULT_MAX_SEND_QUEUE, DEFAULT_SEND_TIMEOUT, GiveUp, IntoMessage,
    InvalidAddress, InvalidMessage, InvalidPrivateKey, InvalidSignature, Message, Overload, PrivateKey,
    Protection, PublicKey, Refusal, SendError, Signature, Status, UnixMillis, Violation, Wallet,
};
/// What a [`Transport`] of one's own speaks in.
pub use link_core::{ByteString, Bytes, Close, Config, Frame, Incoming};

/// The port of Link, unless another one is asked for.
pub const DEFAULT_PORT: u16 = 3793;

// What a program hands to its tasks and shares between its threads.
const _: () = {
    const fn is_send<T: Send>() {}
    const fn is_shared<T: Send + Sync>() {}

    #[expect(dead_code, reason = "its body is checked all the same")]
    const fn on<R: Runtime>() {
        is_shared::<Server<R>>();
        is_shared::<ServerBuilder<R>>();
        is_shared::<ServerHandle<R>>();
        is_shared::<Serving<R>>();
        is_shared::<Client<R>>();
        is_shared::<ClientBuilder<R>>();
    }

    is_shared::<ClientHandle>();
    is_shared::<ConnectedClient>();
    is_shared::<Session>();
    is_shared::<ServerEvent>();
    is_shared::<ClientEvent>();
    is_shared::<BindError>();
    is_shared::<ConnectError>();
    is_send::<Framed<Vec<Frame>>>();
};
