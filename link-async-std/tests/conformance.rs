//! Link on async-std does what every adapter must: the suite of `link-conformance`.

use link_async_std::AsyncStd;

link_conformance::conformance!(AsyncStd, async_std::task::block_on);
