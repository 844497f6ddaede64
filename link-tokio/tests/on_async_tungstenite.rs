//! Link on tokio over WebSockets of async-tungstenite does what every adapter must, but for what these cannot promise, on a runtime with two threads.

use link_tokio::Tokio;

#[allow(clippy::panic, reason = "so does a test fail")]
fn block_on<F: Future>(test: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    match runtime.worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime.block_on(test),
        Err(error) => panic!("no runtime: {error}"),
    }
}

link_conformance::conformance!(link_driver::OnAsyncTungstenite<Tokio>, block_on);
