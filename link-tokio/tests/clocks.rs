//! Runtimes of one process whose clocks differ: a test's paused clock, which ran ahead, beside an ordinary one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use link_tokio::{CloseReason, Server, ServerEvent};
use tokio::runtime::Builder;

#[test]
fn a_clock_that_ran_ahead_stops_no_deadline_of_another_runtime() {
    let builder = || Server::builder().host(Ipv4Addr::LOCALHOST).port(0);
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
        tokio::time::advance(Duration::from_secs(3600)).await;
        builder().bind().await.unwrap().close().await;
    });
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let builder = builder().auth_timeout(Duration::from_millis(300)).auth_check_interval(Duration::ZERO);
        let mut server = builder.bind().await.unwrap();
        let _silent = TcpStream::connect(server.local_address().unwrap()).unwrap();
        let rejected = async {
            loop {
                if let Some(ServerEvent::Rejected(rejected)) = server.next().await {
                    return rejected.reason;
                }
            }
        };
        let reason = tokio::time::timeout(Duration::from_secs(20), rejected).await.expect("it is ended");
        assert!(matches!(reason, CloseReason::AuthenticationTimeout(_)), "{reason}");
        server.close().await;
    });
}
