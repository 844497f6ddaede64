//! The two hashes of an XE wallet.

use sha2::Sha256;
use sha3::{Digest, Keccak256};

/// What addresses are made with: Keccak-256 as Ethereum uses it, which is not SHA3-256 (the padding differs).
pub(super) fn keccak256(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

/// What signatures are made over.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
