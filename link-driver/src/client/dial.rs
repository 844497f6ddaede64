//! From a host name to an open WebSocket.

use std::{io, sync::Arc, time::Duration};

use link_core::Instant;
use tungstenite::{client::IntoClientRequest, handshake::client::Request};

use crate::{limits::Limits, line::within, runtime::Runtime, socket::WebSocket};

/// Where a client dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Why no connection came to be.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The name does not resolve, or nobody accepts connections there.
    #[error("cannot connect to {target}: {error}")]
    Connect {
        /// Host and port.
        target: String,
        /// What the system said.
        error: Arc<io::Error>,
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
    /// The host is not one.
    #[error("{target} is no host and port: {reason}")]
    Target {
        /// What was given.
        target: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// By what they say: an `io::Error` cannot be compared.
impl PartialEq for DialError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for DialError {}

impl Target {
    fn request(&self) -> Result<Request, DialError> {
        format!("ws://{self}/")
            .into_client_request()
            .map_err(|error| DialError::Target { target: self.to_string(), reason: error.to_string() })
    }

    /// Whether it can be dialled at all.
    pub(super) fn check(&self) -> Result<(), DialError> {
        self.request().map(drop)
    }
}

/// `host:port`, with the brackets that an IPv6 address needs.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Opens a WebSocket.
pub(super) async fn dial<R: Runtime>(
    target: &Target,
    started: Instant,
    timeout: Duration,
    limits: &Limits,
) -> Result<WebSocket<R::Stream>, DialError> {
    let work = async {
        let request = target.request()?;
        let stream = R::connect(&target.host, target.port)
            .await
            .map_err(|error| DialError::Connect { target: target.to_string(), error: Arc::new(error) })?;
        WebSocket::client(stream, request, limits)
            .await
            .map_err(|error| DialError::Upgrade { target: target.to_string(), answer: error.to_string() })
    };
    match within::<R, _>(started, timeout, work).await {
        Some(outcome) => outcome,
        None => Err(DialError::Timeout { target: target.to_string(), timeout }),
    }
}
