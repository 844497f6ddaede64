//! From HTTP to WebSocket (RFC 6455 §4), on both sides.

use std::{
    fmt,
    io::{ErrorKind, Read, Write},
};

use link_core::{CloseReason, Violation};
use tungstenite::{
    Error,
    client::IntoClientRequest,
    error::ProtocolError,
    handshake::{
        HandshakeError, MidHandshake,
        client::ClientHandshake,
        machine::TryParse,
        server::{self, create_response_with_body, write_response},
    },
    http,
    protocol::Role,
};

use crate::{
    rationed::{HeadTooLarge, Rationed},
    websocket::{FIRST_MAX_UNSENT, WebSocket, config},
};

/// The longest HTTP head that is heard, of a request as of an answer: 16 KiB.
pub const MAX_HEAD: usize = 16 << 10;
/// Bytes of it read at a time.
const PIECE: usize = 1 << 10;
/// Reads of one [`proceed`](ServerUpgrade::proceed).
const READS: u32 = 16;
/// While no more than this has come, it is looked at whether it is HTTP at all.
const BEGINNING: usize = 16;
/// How often something that looks like the end of the request is tried. One that is honest has one end.
const ATTEMPTS: u8 = 8;

const BAD_REQUEST: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const UPGRADE_REQUIRED: &str = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n\
                                Connection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n";
const HEAD_TOO_LARGE: &str =
    "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// How far an upgrade has come.
#[derive(Debug)]
pub enum Progress<T> {
    /// It is done.
    Done(T),
    /// It goes on when the stream can be read, or written, again.
    Waiting,
    /// As much was done as one call may; it can go on at once, after others had their turn.
    Enough,
}

/// Why a connection did not become a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotUpgraded {
    /// It ended, or broke, before.
    #[error("the connection ended before it had become a WebSocket")]
    Ended,
    /// It is HTTP, and did not ask for a WebSocket.
    #[error("plain HTTP, which asks for no WebSocket")]
    NoUpgrade,
    /// It asks for another version of the WebSocket protocol than 13. An HTTP server that answers by itself says
    /// `Sec-WebSocket-Version: 13` (RFC 6455 §4.4).
    #[error("asks for another version of the WebSocket protocol than 13")]
    UnsupportedVersion,
    /// The request is longer than [`MAX_HEAD`].
    #[error("the HTTP request has more than {MAX_HEAD} bytes")]
    HeadTooLarge,
    /// It is no HTTP, or not as RFC 6455 asks for.
    #[error("no request for a WebSocket: {0}")]
    Malformed(String),
}

impl NotUpgraded {
    /// What to answer in plain HTTP before closing; `None` when nobody is there to hear it.
    pub const fn answer(&self) -> Option<&'static str> {
        match self {
            Self::Ended => None,
            Self::NoUpgrade | Self::UnsupportedVersion => Some(UPGRADE_REQUIRED),
            Self::HeadTooLarge => Some(HEAD_TOO_LARGE),
            Self::Malformed(_) => Some(BAD_REQUEST),
        }
    }

    /// The HTTP status of that answer.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Ended => None,
            Self::NoUpgrade | Self::UnsupportedVersion => Some(426),
            Self::HeadTooLarge => Some(431),
            Self::Malformed(_) => Some(400),
        }
    }

    /// How the connection has ended by it.
    pub const fn reason(&self) -> CloseReason {
        match self {
            Self::Ended => CloseReason::Lost,
            _ => CloseReason::Violation(Violation::WebSocket),
        }
    }

    fn of(error: &Error) -> Self {
        match error {
            Error::Protocol(
                ProtocolError::MissingConnectionUpgradeHeader | ProtocolError::MissingUpgradeWebSocketHeader,
            ) => Self::NoUpgrade,
            other => Self::Malformed(other.to_string()),
        }
    }
}

/// The server's half: reads the request, and answers it.
///
/// It does not keep the stream, so that whoever loses patience can still answer on it. Any path is taken, and no
/// subprotocol or extension is selected. A client that sends more before it has the answer is refused, so no byte is
/// ever left in here.
#[derive(Debug, Default)]
pub struct ServerUpgrade {
    head: Vec<u8>,
    attempts: u8,
    /// What is still to be written, and how much of it has been.
    answer: Option<(Vec<u8>, usize)>,
}

impl ServerUpgrade {
    /// Nothing has come yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on as far as that goes without waiting.
    ///
    /// # Errors
    /// When it will not become a WebSocket: [`NotUpgraded::answer`] says what to tell the other side.
    pub fn proceed(&mut self, stream: &mut (impl Read + Write)) -> Result<Progress<()>, NotUpgraded> {
        for _ in 0..READS {
            if self.answer.is_some() {
                return self.write(stream);
            }
            let mut piece = [0; PIECE];
            let read = match stream.read(&mut piece) {
                Ok(0) => return Err(NotUpgraded::Ended),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Waiting),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(NotUpgraded::Ended),
            };
            self.hear(piece.get(..read).unwrap_or_default())?;
        }
        Ok(Progress::Enough)
    }

    fn hear(&mut self, piece: &[u8]) -> Result<(), NotUpgraded> {
        let begins = self.head.len() <= BEGINNING;
        // An end may straddle two pieces: an empty line, with or without its CR.
        let seen = self.head.len().saturating_sub(2);
        self.head.extend_from_slice(piece);
        if self.head.len() > MAX_HEAD {
            return Err(NotUpgraded::HeadTooLarge);
        }
        let fresh = self.head.get(seen..).unwrap_or_default();
        let ends = behind_empty_line(fresh).is_some();
        // Not each time, or a request in thousands of pieces would be read thousands of times.
        if begins || ends {
            self.attempts = self.attempts.saturating_add(u8::from(ends));
            if let Some((length, request)) =
                server::Request::try_parse(&self.head).map_err(|error| NotUpgraded::of(&error))?
            {
                if length != self.head.len() {
                    return Err(NotUpgraded::Malformed("it goes on before it is answered".into()));
                }
                let mut answer = Vec::new();
                write_response(&mut answer, &upgrade_response(&request)?)
                    .map_err(|error| NotUpgraded::of(&error))?;
                self.head = Vec::new();
                self.answer = Some((answer, 0));
                return Ok(());
            }
            if self.attempts >= ATTEMPTS {
                return Err(NotUpgraded::Malformed("it has empty lines within".into()));
            }
        }
        Ok(())
    }

    fn write(&mut self, stream: &mut impl Write) -> Result<Progress<()>, NotUpgraded> {
        while let Some((answer, written)) = &mut self.answer {
            let rest = answer.get(*written..).unwrap_or_default();
            let wrote = if rest.is_empty() { stream.flush().map(|()| 0) } else { stream.write(rest) };
            match wrote {
                Ok(0) if rest.is_empty() => self.answer = None,
                Ok(0) => return Err(NotUpgraded::Ended),
                Ok(more) => *written = written.saturating_add(more),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Waiting),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(NotUpgraded::Ended),
            }
        }
        Ok(Progress::Done(()))
    }
}

/// The place behind the first empty line, with or without its CR: the end of an HTTP head.
pub(crate) fn behind_empty_line(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len()).find_map(|at| match bytes.get(at..)? {
        [b'\n', b'\n', ..] => Some(at.saturating_add(2)),
        [b'\n', b'\r', b'\n', ..] => Some(at.saturating_add(3)),
        _ => None,
    })
}

/// What a server answers to a request for a WebSocket: for an HTTP server that upgrades by itself, and hands the
/// stream to Link afterwards.
///
/// # Errors
/// When this is no request for a WebSocket; [`NotUpgraded::status`] is what to answer then, and a 426 goes with the header
/// `Sec-WebSocket-Version: 13` (RFC 6455 §4.4).
pub fn upgrade_response<B>(request: &http::Request<B>) -> Result<http::Response<()>, NotUpgraded> {
    create_response_with_body(request, || ()).map_err(|error| match error {
        // It means another version as well. Without any, the request is malformed (RFC 6455 §4.2.1).
        Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader)
            if request.headers().contains_key(http::header::SEC_WEBSOCKET_VERSION) =>
        {
            NotUpgraded::UnsupportedVersion
        }
        error => NotUpgraded::of(&error),
    })
}

/// A request for a WebSocket, with the headers that it takes; others may be added.
pub type Request = http::Request<()>;

/// What was given is no URL that can be asked for a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRequest(String);

/// A request for the WebSocket at a URL such as `ws://localhost:3793/`; headers of one's own may be added.
///
/// # Errors
/// When the URL is none.
pub fn request(url: &str) -> Result<Request, InvalidRequest> {
    url.into_client_request().map_err(|error| InvalidRequest(error.to_string()))
}

/// Why a server did not open a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotOpened {
    /// It ended the connection without an answer.
    #[error("it ended the connection without an answer")]
    Ended,
    /// What it says is not HTTP.
    #[error("it does not answer in HTTP")]
    NoHttp,
    /// Its answer is longer than [`MAX_HEAD`].
    #[error("its HTTP answer has more than {MAX_HEAD} bytes")]
    HeadTooLarge,
    /// It answers something else, or not as RFC 6455 asks for.
    #[error("{0}")]
    Refused(String),
}

impl From<Error> for NotOpened {
    fn from(error: Error) -> Self {
        match &error {
            Error::Protocol(ProtocolError::HttparseError(_)) => Self::NoHttp,
            Error::Protocol(ProtocolError::HandshakeIncomplete) => Self::Ended,
            Error::Io(error) if error.kind() == ErrorKind::ConnectionReset => Self::Ended,
            Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<HeadTooLarge>()) => {
                Self::HeadTooLarge
            }
            other => Self::Refused(other.to_string()),
        }
    }
}

/// The client's half: sends the request, and reads the answer.
pub struct ClientUpgrade<S: Read + Write>(Option<MidHandshake<ClientHandshake<Rationed<S>>>>);

impl<S: Read + Write> ClientUpgrade<S> {
    /// Nothing has been sent yet.
    ///
    /// # Errors
    /// When the request is not one for a WebSocket, as [`request`] makes them.
    pub fn new(stream: S, request: Request) -> Result<Self, InvalidRequest> {
        ClientHandshake::start(Rationed::answering(stream, FIRST_MAX_UNSENT), request, Some(config()))
            .map(|upgrade| Self(Some(upgrade)))
            .map_err(|error| InvalidRequest(error.to_string()))
    }

    /// The stream beneath, until the upgrade has ended.
    pub fn stream_mut(&mut self) -> Option<&mut S> {
        self.0.as_mut().map(|upgrade| &mut upgrade.get_mut().get_mut().stream)
    }

    /// Goes on as far as that goes without waiting. After its end, it waits for ever.
    ///
    /// # Errors
    /// When the server did not open a WebSocket.
    pub fn proceed(&mut self) -> Result<Progress<WebSocket<S>>, NotOpened> {
        let Some(mut upgrade) = self.0.take() else { return Ok(Progress::Waiting) };
        upgrade.get_mut().get_mut().replenish();
        match upgrade.handshake() {
            Ok((socket, _response)) => Ok(Progress::Done(WebSocket::new(socket, Role::Client))),
            Err(HandshakeError::Failure(error)) => Err(NotOpened::from(error)),
            Err(HandshakeError::Interrupted(mut upgrade)) => {
                let enough = upgrade.get_mut().get_mut().is_used_up();
                self.0 = Some(upgrade);
                Ok(if enough { Progress::Enough } else { Progress::Waiting })
            }
        }
    }
}

impl<S: Read + Write> fmt::Debug for ClientUpgrade<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientUpgrade")
    }
}
