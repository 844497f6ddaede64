//! Link on smol over WebSockets of async-tungstenite does what every adapter must, but for what these cannot promise, on smol's global executor.

use link_smol::Smol;

link_conformance::conformance!(link_driver::OnAsyncTungstenite<Smol>, smol::block_on);
