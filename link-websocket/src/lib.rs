//! The WebSocket under a Link connection: bytes in and out, in the frames of [`link_core`].
//!
//! The protocol itself is tungstenite's. This crate stands between it and a [`Connection`](link_core::Connection): it turns
//! tungstenite's messages and errors into the core's frames and violations, bounds what a peer can make it do in one
//! go, and has the HTTP upgrade of both sides. It knows no runtime: whatever implements [`Read`](std::io::Read) and
//! [`Write`](std::io::Write) without waiting, and says `WouldBlock` instead, will do. `link-driver` wraps async streams
//! that way; the example `custom-event-loop` uses mio's sockets as they are.
//!
//! ```text
//! bytes ──▶ ServerUpgrade or ClientUpgrade ──▶ WebSocket::read ──frames──▶ link_core::Connection
//! bytes ◀────────────────────────── flush ◀── WebSocket::write ◀──frames── link_core::Connection
//! ```
//!
//! Two of them over a pipe in memory (in a program, a socket):
//!
//! ```
//! use std::{cell::RefCell, collections::VecDeque, io, rc::Rc};
//! use link_core::{Frame, Incoming};
//! use link_websocket::{ClientUpgrade, Progress, ServerUpgrade, WebSocket, request};
//!
//! # #[derive(Clone, Default)]
//! # struct Way(Rc<RefCell<VecDeque<u8>>>);
//! # #[derive(Clone)]
//! # struct Pipe { to: Way, from: Way }
//! # impl Pipe {
//! #     fn pair() -> (Self, Self) {
//! #         let (a, b) = (Way::default(), Way::default());
//! #         (Self { to: a.clone(), from: b.clone() }, Self { to: b, from: a })
//! #     }
//! # }
//! # impl io::Read for Pipe {
//! #     fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
//! #         match io::Read::read(&mut *self.from.0.borrow_mut(), buffer)? {
//! #             0 => Err(io::ErrorKind::WouldBlock.into()),
//! #             read => Ok(read),
//! #         }
//! #     }
//! # }
//! # impl io::Write for Pipe {
//! #     fn write(&mut self, bytes: &[u8]) -> io::Result<usize> { io::Write::write(&mut *self.to.0.borrow_mut(), bytes) }
//! #     fn flush(&mut self) -> io::Result<()> { Ok(()) }
//! # }
//! let (mut here, there) = Pipe::pair();
//! let mut client = ClientUpgrade::new(there, request("ws://localhost:3793/")?)?;
//! let mut server = ServerUpgrade::new();
//!
//! assert!(matches!(client.proceed()?, Progress::Waiting)); // the request is out
//! assert!(matches!(server.proceed(&mut here)?, Progress::Done(())));
//! let mut server = WebSocket::server(here);
//! let Progress::Done(mut client) = client.proceed()? else { panic!("the answer is there") };
//!
//! client.write(Frame::Text("{}".into()))?;
//! assert!(client.flush()?, "all of it has left");
//! // `Connection::receive_limit` says how long the next message may be.
//! let Incoming::Frame(frame) = server.read(4096) else { panic!("the frame is there") };
//! assert_eq!(frame, Frame::Text("{}".into()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod convert;
mod detach;
mod outgoing;
mod rationed;
mod upgrade;
mod websocket;

pub use convert::{incoming, outgoing};
pub use detach::Detach;
pub use upgrade::{
    ClientUpgrade, InvalidRequest, MAX_HEAD, NotOpened, NotUpgraded, Progress, Request, ServerUpgrade,
    request, upgrade_response,
};
pub use websocket::{FIRST_MAX_UNSENT, READ_BUFFER, WRITE_BATCH, WebSocket, WriteError};

/// The types of HTTP requests and responses, for [`upgrade_response`].
pub use tungstenite::http;

/// What a server answers, in plain HTTP, when it has no place for a connection.
pub const OVERLOADED: &str =
    "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
