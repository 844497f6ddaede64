//! tokio gives each task a share of its thread's time. A timer that is polled when that is used up waits, and will wake nobody.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use link_conformance::raw::RawPeer;
use link_driver::{Runtime, Server};
use link_tokio::{CloseReason, ServerEvent, Tokio};
use tokio::task::coop;

/// tokio, with tasks whose share is used up each time that they first poll a timer.
struct Busy;

struct Timer {
    timer: <Tokio as Runtime>::Timer,
    fresh: bool,
}

impl Runtime for Busy {
    type Stream = <Tokio as Runtime>::Stream;
    type Listener = <Tokio as Runtime>::Listener;
    type Timer = Timer;

    async fn connect(host: &str, port: u16) -> io::Result<Self::Stream> {
        Tokio::connect(host, port).await
    }

    async fn bind(address: SocketAddr) -> io::Result<Self::Listener> {
        Tokio::bind(address).await
    }

    fn local_address(listener: &Self::Listener) -> io::Result<SocketAddr> {
        Tokio::local_address(listener)
    }

    async fn accept(listener: &mut Self::Listener) -> io::Result<(Self::Stream, SocketAddr)> {
        Tokio::accept(listener).await
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        Tokio::spawn(task);
    }

    fn timer() -> Timer {
        Timer { timer: Tokio::timer(), fresh: false }
    }
}

impl link_driver::Timer for Timer {
    fn arm(mut self: Pin<&mut Self>, deadline: Instant) {
        self.fresh = true;
        Pin::new(&mut self.timer).arm(deadline);
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        while self.fresh && coop::has_budget_remaining() {
            let _ = pin!(coop::consume_budget()).poll(cx);
        }
        self.fresh = false;
        Pin::new(&mut self.timer).poll(cx)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept_by_a_task_that_has_had_its_share() {
    let builder = Server::<Busy>::builder().host(Ipv4Addr::LOCALHOST).port(0);
    let mut server = builder.auth_timeout(Duration::from_secs(1)).bind().await.unwrap();
    let at = server.local_address().unwrap();
    let silent = tokio::task::spawn_blocking(move || RawPeer::open(at));
    let rejected = async {
        loop {
            if let Some(ServerEvent::Rejected(rejected)) = server.next().await {
                return rejected.reason;
            }
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(20), rejected).await.expect("it is ended");
    assert!(matches!(reason, CloseReason::AuthenticationTimeout(_)), "{reason}");
    drop(silent.await);
    server.close().await;
}
