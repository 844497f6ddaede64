//! The Link protocol, pure: no socket, no clock, no thread, no runtime, no random source, no log.
//!
//! Link gives two programs that know each other only by wallet address an authenticated, live line over a
//! WebSocket. This crate holds everything that decides; [`link-tokio`](https://docs.rs/link-tokio) and its
//! siblings bring sockets and clocks. Take this crate to drive the protocol from an event loop of your own, in a
//! simulator, or on a target without `std` (it is `no_std` with `alloc`).
//!
//! # The parts
//!
//! - [`Connection`] is one side of one WebSocket, from open to closed: frames and timestamps in, frames and events
//!   out.
//! - [`Endpoint`] hosts one: what waits to be sent, when its peer is read, when one that takes nothing has had its time, how a
//!   close lets the last words leave; and the order of a turn.
//! - [`Admission`] is a server's memory across connections: whitelist, replay memory, who is connected, limits.
//! - [`Reconnect`] is a client's: when to dial again, and when to stop.
//! - [`Wallet`], [`Address`], [`Signature`] are the identities, [`Message`] is what applications exchange.
//!
//! # The loop
//!
//! For each WebSocket, keep an [`Endpoint`]. Whenever bytes came, a timer fired or the application wants something, give it a
//! turn: [`begin_turn`](Endpoint::begin_turn), and then what [`poll_action`](Endpoint::poll_action) says, until it says to wait. Then
//! arm a timer for [`poll_timeout`](Endpoint::poll_timeout).
//!
//! A [`Connection`] alone is less: feed it frames and time, and drain [`poll_output`](Connection::poll_output).
//!
//! [`manual::writing_a_driver`] has the rules, one by one. Here two connections talk without any network:
//!
//! ```
//! use std::sync::Arc;
//! use link_core::{Config, Connection, Event, Instant, Message, Now, Output, PrivateKey, UnixMillis, Wallet};
//!
//! // In a program, 32 bytes from the system's random source.
//! let wallet = |seed: u8| Wallet::from_private_key(PrivateKey::from_bytes([seed; 32]).unwrap());
//! // In a program, both clocks.
//! let now = Now { mono: Instant::default(), wall: UnixMillis::saturating(1_795_372_174_071) };
//!
//! let mut server = Connection::server(Arc::new(Config::server(wallet(1))), now);
//! let mut client = Connection::client(Arc::new(Config::client(wallet(2))), now);
//! let mut heard = Vec::new();
//! loop {
//!     let mut quiet = true;
//!     while let Some(output) = client.poll_output() {
//!         quiet = false;
//!         match output {
//!             Output::Send(frame) => server.handle_frame(frame, now),
//!             Output::Event(Event::Authenticated { address, .. }) => {
//!                 assert_eq!(address, wallet(1).address());
//!                 client.send(Message::new(&serde_json::json!({ "type": "hello" }))?, now)?;
//!             }
//!             other => panic!("{other:?}"),
//!         }
//!     }
//!     while let Some(output) = server.poll_output() {
//!         quiet = false;
//!         match output {
//!             Output::Send(frame) => client.handle_frame(frame, now),
//!             // A server asks its `Admission`, and then the application, before it decides.
//!             Output::Event(Event::AdmissionRequested { ticket }) => server.decide(ticket, Ok(()), now)?,
//!             Output::Event(Event::Message(message)) => heard.push(message),
//!             Output::Event(Event::Authenticated { .. }) => {}
//!             other => panic!("{other:?}"),
//!         }
//!     }
//!     if quiet {
//!         break;
//!     }
//! }
//! assert_eq!(heard[0].kind(), Some("hello"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Time and randomness are arguments
//!
//! Every input takes a [`Now`]: the monotonic clock for deadlines, the wall clock for what is signed. A key is made
//! from 32 bytes that you drew, a [`Reconnect`] from a seed. The same inputs give the same outputs, byte for byte.
//!
//! # Whose fault it was
//!
//! [`Misuse`] is the caller's, [`Violation`] the peer's, [`Refusal`] policy; [`CloseReason`] tells the application
//! how it ended, once. No input from a peer panics, hangs, or costs more memory than the limits allow.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod admission;
mod config;
mod connection;
mod endpoint;
mod error;
mod event;
mod frame;
mod handshake;
mod identity;
pub mod manual;
mod message;
mod reconnect;
mod time;

pub use admission::{Admission, AdmissionConfig, Admitted, ConnectionId, Overload};
pub use config::{
    Config, DEFAULT_AUTH_TIMEOUT, DEFAULT_MAX_MESSAGE_SIZE, DEFAULT_MAX_SEND_QUEUE,
    DEFAULT_MAX_UNAUTHENTICATED_MESSAGE_SIZE, DEFAULT_SEND_TIMEOUT,
};
pub use connection::{Connection, Role, Ticket};
pub use endpoint::{Action, Endpoint, Incoming, SendError, SendQueue, Traffic};
pub use error::{CloseReason, Misuse, Refusal, Violation};
pub use event::{Event, Output, Protection};
pub use frame::{Close, Frame, close_code};
pub use handshake::Proof;
pub use identity::*;
pub use message::{IntoMessage, InvalidMessage, Message, RESERVED_TYPES, Status};
pub use reconnect::{GiveUp, Next, Reconnect, ReconnectPolicy};
pub use time::{Instant, Now, UnixMillis};

// The types in which payloads travel, so that a caller need not name the crates they come from.
pub use bytes::Bytes;
pub use bytestring::ByteString;
