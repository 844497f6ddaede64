//! Who a peer is: XE wallets, their addresses, and the signatures that prove them.
//!
//! An identity starts as a [`PrivateKey`] on the curve secp256k1. Its [`PublicKey`] follows from it, and the
//! [`Address`] (`xe_` and 40 hexadecimal digits, the name peers know each other by) follows from that.
//! A [`Wallet`] keeps the three together. A [`Signature`] over a text names the address of the key that made
//! it, so a peer that signs proves its address without ever sending its public key.
//!
//! Everything here is deterministic and does no input or output: a new key is made from 32 random bytes that
//! the caller brings, and the same key signs the same text with the same signature (RFC 6979).
//!
//! ```
//! use link_core::{PrivateKey, Wallet};
//!
//! let wallet = Wallet::from_private_key(PrivateKey::from_hex("abc")?);
//! assert_eq!(wallet.address().as_str(), "xe_73FCc533201ec51F28754e5210c503B399E527D4");
//!
//! let signature = wallet.sign("1795372174071");
//! assert!(signature.verify("1795372174071", &wallet.address()));
//! assert!(!signature.verify("1795372174072", &wallet.address()));
//! # Ok::<(), link_core::InvalidPrivateKey>(())
//! ```

mod address;
mod hash;
mod hexadecimal;
mod private_key;
mod public_key;
mod signature;
mod wallet;

pub use address::{Address, InvalidAddress, ShortAddress};
pub use private_key::{InvalidPrivateKey, PrivateKey};
pub use public_key::{InvalidPublicKey, PublicKey};
pub use signature::{InvalidSignature, Signature};
pub use wallet::Wallet;
