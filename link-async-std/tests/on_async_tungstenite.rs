//! Link on async-std over WebSockets of async-tungstenite does what every adapter must, but for what these cannot promise.

use link_async_std::AsyncStd;

link_conformance::conformance!(link_driver::OnAsyncTungstenite<AsyncStd>, async_std::task::block_on);
