//! The manual beyond the first page.
//!
//! - [`writing_a_driver`]: how to drive connections from an event loop of one's own, rule by rule.

#[doc = include_str!("writing_a_driver.md")]
pub mod writing_a_driver {}
