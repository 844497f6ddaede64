//! `edge-link serve --metrics`: a server's counters for Prometheus, over HTTP on a listener of their own.
//!
//! It runs beside the server, whatever runtime that one uses. A scraper gets one answer for each connection, within a deadline,
//! and can neither stop the others nor the server.
//!
//! - `exposition`: the counters as text.

mod exposition;

use std::{
    collections::VecDeque, convert::Infallible, future::ready, io, net::SocketAddr, sync::Arc, time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use link_driver::{Runtime, ServerHandle};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::debug;

use crate::Failure;
use exposition::Exposition;

/// The target of everything that is logged here.
const LOG: &str = "edge_link::metrics";
/// How long a connection may last.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many connections there may be. One more ends the oldest: an honest scraper takes milliseconds, so it is not that.
const MAX_CONNECTIONS: usize = 32;
/// How many bytes of a request are buffered; a longer head is refused.
const MAX_HEAD: usize = 16 << 10;
/// How long to wait after the system could not accept a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// A bound listener, which does not answer yet.
#[derive(Debug)]
pub(crate) struct Metrics {
    listener: TcpListener,
    address: SocketAddr,
}

impl Metrics {
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bound.await.map_err(|error: io::Error| {
            Failure::Failed(format!("cannot serve metrics at {address}: {error}"))
        })
    }

    /// Where to scrape.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    /// Answers for as long as the program runs.
    pub(crate) async fn serve<R: Runtime>(self, server: ServerHandle<R>) {
        let exposition = Arc::new(Exposition::new(server));
        let mut connections: VecDeque<JoinHandle<()>> = VecDeque::new();
        loop {
            let (stream, scraper) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!(target: LOG, detail = %error, "cannot accept");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            connections.retain(|connection| !connection.is_finished());
            if connections.len() >= MAX_CONNECTIONS
                && let Some(oldest) = connections.pop_front()
            {
                debug!(target: LOG, "too many connections: the oldest is dropped");
                oldest.abort();
            }
            connections.push_back(tokio::spawn(answer(stream, scraper, exposition.clone())));
        }
    }
}

/// Answers one request.
async fn answer(stream: TcpStream, scraper: SocketAddr, exposition: Arc<Exposition>) {
    let service = service_fn(|request| ready(Ok::<_, Infallible>(response(&request, &exposition))));
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(DEADLINE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(target: LOG, %scraper, detail = %error, "failed"),
        Err(_) => debug!(target: LOG, %scraper, "timed out"),
    }
}

fn response(request: &Request<Incoming>, exposition: &Exposition) -> Response<String> {
    let (status, content_type, text) = match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET | &Method::HEAD) => match exposition.text() {
            Ok(text) => (StatusCode::OK, exposition::CONTENT_TYPE, text),
            Err(error) => {
                (StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("cannot write the metrics: {error}\n"))
            }
        },
        ("/metrics", _) => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "use GET\n".into()),
        _ => (StatusCode::NOT_FOUND, PLAIN, "the metrics are at /metrics\n".into()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}

const PLAIN: &str = "text/plain; charset=utf-8";
