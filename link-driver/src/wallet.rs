//! Fresh identities: the one place where Link draws randomness, since the core takes it as an argument.

use link_core::{InvalidPrivateKey, PrivateKey, Wallet};

/// The system has no randomness to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random source failed")]
pub struct NoRandomness(#[source] getrandom::Error);

/// A new wallet, from the system's random source.
///
/// # Errors
/// When the system has no randomness to give.
pub fn new_wallet() -> Result<Wallet, NoRandomness> {
    loop {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(NoRandomness)?;
        // One draw in 2^128 lies beyond the group's order: draw again.
        if let Ok(key) = PrivateKey::from_bytes(bytes) {
            return Ok(Wallet::from_private_key(key));
        }
    }
}

/// A seed for jitter.
pub(crate) fn seed() -> u64 {
    getrandom::u64().unwrap_or_default()
}

/// Who a server or client is to be.
#[derive(Default)]
pub(crate) struct Identity {
    pub(crate) wallet: Option<Wallet>,
    pub(crate) private_key: Option<Result<PrivateKey, InvalidPrivateKey>>,
}

/// Why a wallet could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error(transparent)]
    PrivateKey(#[from] InvalidPrivateKey),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Identity {
    /// The private key wins over the wallet; without either, a fresh one.
    pub(crate) fn resolve(self) -> Result<Wallet, IdentityError> {
        match (self.private_key, self.wallet) {
            (Some(key), _) => Ok(Wallet::from_private_key(key?)),
            (None, Some(wallet)) => Ok(wallet),
            (None, None) => Ok(new_wallet()?),
        }
    }
}
