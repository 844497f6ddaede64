use core::{fmt, str::FromStr};

use k256::{CompressedPoint, ecdsa::VerifyingKey};

use super::{
    Address,
    hexadecimal::{self, NotHex},
};

const BYTES: usize = 33;
const DIGITS: usize = 66;

/// The public half of a key: a point of secp256k1, compressed, as 66 lower-case hexadecimal digits.
///
/// Peers never send it; they send signatures, from which it is recovered. It is needed because the
/// [`Address`] is a hash of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    digits: [u8; DIGITS],
}

impl PublicKey {
    /// Reads a public key from exactly 66 hexadecimal digits, in upper or lower case.
    ///
    /// # Errors
    ///
    /// An [`InvalidPublicKey`] if the text is anything but a compressed point of the curve.
    ///
    /// ```
    /// use link_core::PublicKey;
    ///
    /// let text = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    /// let key = PublicKey::from_hex(text)?;
    /// assert_eq!(key.as_str(), text);
    /// assert_eq!(key.address().as_str(), "xe_020fFb413FEF5008eD73CBCc56a1FB5960a0ae86");
    /// # Ok::<(), link_core::InvalidPublicKey>(())
    /// ```
    pub fn from_hex(text: &str) -> Result<Self, InvalidPublicKey> {
        let bytes: [u8; BYTES] = hexadecimal::decode(text).map_err(|flaw| match flaw {
            NotHex::Length(length) => InvalidPublicKey::Length { length },
            NotHex::Digit(position) => InvalidPublicKey::NotHexDigit { position },
        })?;
        // SEC 1 §2.3.4 knows other first bytes, and `k256` reads one of them (05) from 33 bytes too; a wallet
        // hashes the text, so a second spelling of a point would be a second address for it.
        if !matches!(bytes, [0x02 | 0x03, ..]) {
            return Err(InvalidPublicKey::NotCompressed);
        }
        let point = VerifyingKey::from_sec1_bytes(&bytes).map_err(|_| InvalidPublicKey::NotOnCurve)?;
        Ok(Self::from(&point))
    }

    /// The 66 lower-case digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        hexadecimal::as_text(&self.digits)
    }

    /// The address that this key proves: two hashes, no arithmetic on the curve.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::of_public_key(&self.digits)
    }
}

impl From<&VerifyingKey> for PublicKey {
    fn from(key: &VerifyingKey) -> Self {
        let bytes: [u8; BYTES] = CompressedPoint::from(key).into();
        Self { digits: hexadecimal::encode(&bytes) }
    }
}

/// As [`PublicKey::from_hex`].
impl FromStr for PublicKey {
    type Err = InvalidPublicKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_hex(text)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({})", self.as_str())
    }
}

/// Why a text is not a [`PublicKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPublicKey {
    /// It does not have 66 characters.
    #[error("the public key has {length} characters: give the compressed form, which has exactly 66")]
    Length {
        /// How many it has.
        length: usize,
    },
    /// A character is something else than a hexadecimal digit.
    #[error("character {position} of the public key is not a hexadecimal digit: give only 0-9 and a-f")]
    NotHexDigit {
        /// Which one, counted from 1.
        position: usize,
    },
    /// It does not begin with 02 or 03.
    #[error("the public key does not begin with 02 or 03: give the compressed form of the point")]
    NotCompressed,
    /// No point of the curve has this x coordinate.
    #[error("the public key is not a point of secp256k1: check that it was copied whole and unchanged")]
    NotOnCurve,
}
