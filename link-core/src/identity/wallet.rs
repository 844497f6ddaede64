use core::fmt;

use super::{Address, PrivateKey, PublicKey, Signature};

/// An identity that can sign: a private key with its public key and its address, each computed once.
///
/// `Debug` shows the address alone. A clone is another copy of the secret; each is wiped when it is dropped.
///
/// ```
/// use link_core::{PrivateKey, Wallet};
///
/// let random = [7; 32]; // 32 bytes of a cryptographic random source
/// let wallet = Wallet::from_private_key(PrivateKey::from_bytes(random)?);
/// assert!(wallet.sign("hello").verify("hello", &wallet.address()));
/// # Ok::<(), link_core::InvalidPrivateKey>(())
/// ```
#[derive(Clone)]
pub struct Wallet {
    private_key: PrivateKey,
    public_key: PublicKey,
    address: Address,
}

impl Wallet {
    /// Makes the wallet of a key.
    #[must_use]
    pub fn from_private_key(private_key: PrivateKey) -> Self {
        let public_key = private_key.public_key();
        Self { address: public_key.address(), public_key, private_key }
    }

    /// The name that peers know this wallet by.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    /// The public half of the key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The secret itself, for whoever has to store it: see [`PrivateKey::to_hex`].
    #[must_use]
    pub fn private_key(&self) -> &PrivateKey {
        &self.private_key
    }

    /// Signs the UTF-8 of `message`: see [`PrivateKey::sign`].
    ///
    /// A signature over the decimal text of a time is what logs a wallet in. Never sign a text that somebody else
    /// chose.
    #[must_use]
    pub fn sign(&self, message: &str) -> Signature {
        self.private_key.sign(message)
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Wallet({})", self.address)
    }
}
