//! The manual beyond the first page: each page is about one thing, and its examples run.
//!
//! - [`choosing_a_runtime`]: tokio, smol, async-std, one of your own, or none.
//! - [`writing_a_runtime`]: what a [`Runtime`](crate::Runtime) has to do, and how to know that it does.
//! - [`embedding`]: Link within a larger program: other listeners, other HTTP servers, proxies, headers.
//! - [`observability`]: what is logged, under which names, and what is counted.
//! - [`features`]: what can be left out.
//!
//! (How to drive a connection without any of this is the page `manual::writing_a_driver` of `link-core`.)

#[doc = include_str!("choosing_a_runtime.md")]
pub mod choosing_a_runtime {}
#[doc = include_str!("writing_a_runtime.md")]
pub mod writing_a_runtime {}
#[doc = include_str!("embedding.md")]
pub mod embedding {}
#[doc = include_str!("observability.md")]
pub mod observability {}
#[doc = include_str!("features.md")]
pub mod features {}
