use alloc::string::String;
use core::{fmt, str::FromStr};

use k256::{
    NonZeroScalar,
    ecdsa::{self, RecoveryId, VerifyingKey},
};

use super::{
    Address, PublicKey, hash,
    hexadecimal::{self, NotHex},
};

const BYTES: usize = 65;
const DIGITS: usize = 130;

/// A proof that the owner of an address signed a text, made by [`PrivateKey::sign`](super::PrivateKey::sign).
///
/// ECDSA on secp256k1 over SHA-256 of the text's UTF-8, with the bit that lets the public key be recovered.
/// Written as 130 hexadecimal digits: *r* (64), *s* (64), and the recovery id (2), which is `00` or `01`.
///
/// Someone who only saw a signature cannot write another that [`from_hex`](Self::from_hex) takes for the same
/// text, save for letter case. Its owner can, by picking another nonce; so to remember what was signed, remember
/// the address and the text, never the signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    signature: ecdsa::Signature,
    recovery_id: RecoveryId,
}

impl Signature {
    /// What a signer made: in range and low already.
    ///
    /// A recovery id of 2 or 3 would need an *r* that wrapped around the group order, which a nonce meets with
    /// a chance of about 2⁻¹²⁷; it is kept as it is rather than turned into a signature of somebody else.
    pub(super) fn from_parts(signature: ecdsa::Signature, recovery_id: RecoveryId) -> Self {
        Self { signature, recovery_id }
    }

    /// Reads a signature from exactly 130 hexadecimal digits, in upper or lower case.
    ///
    /// # Errors
    ///
    /// An [`InvalidSignature`] that names the flaw. This is stricter than the reference, which also takes the
    /// high form of *s* and anything after the 130th character; no honest peer writes either.
    pub fn from_hex(text: &str) -> Result<Self, InvalidSignature> {
        let bytes: [u8; BYTES] = hexadecimal::decode(text).map_err(|flaw| match flaw {
            NotHex::Length(length) => InvalidSignature::Length { length },
            NotHex::Digit(position) => InvalidSignature::NotHexDigit { position },
        })?;
        let [scalars @ .., id] = &bytes;
        let signature = ecdsa::Signature::from_slice(scalars).map_err(|_| flaw_in_range(scalars))?;
        // An x coordinate above the group order (ids 2 and 3) does not occur by chance, and the reference throws.
        let recovery_id = match id {
            0 => RecoveryId::new(false, false),
            1 => RecoveryId::new(true, false),
            _ => return Err(InvalidSignature::RecoveryId { id: *id }),
        };
        if signature.normalize_s() != signature {
            return Err(InvalidSignature::HighS);
        }
        Ok(Self { signature, recovery_id })
    }

    /// Writes the signature as 130 lower-case hexadecimal digits, as it goes on the wire.
    #[must_use]
    pub fn to_hex(&self) -> String {
        String::from(hexadecimal::as_text(&self.digits()))
    }

    /// The address of the key that made this signature over `message`, if there is one.
    ///
    /// Nearly every well-formed signature gives *some* address for *any* message. Only the comparison with an
    /// address that was claimed or expected proves anything; see [`verify`](Self::verify). `None` means that
    /// no key can have made it.
    #[must_use]
    pub fn recover(&self, message: &str) -> Option<Address> {
        let digest = hash::sha256(message.as_bytes());
        let key = VerifyingKey::recover_from_prehash(&digest, &self.signature, self.recovery_id).ok()?;
        Some(PublicKey::from(&key).address())
    }

    /// Whether the owner of `address` signed exactly this `message`.
    ///
    /// ```
    /// use link_core::{Address, Signature};
    ///
    /// let address: Address = "xe_020fFb413FEF5008eD73CBCc56a1FB5960a0ae86".parse().unwrap();
    /// let signature: Signature = "cd690d694c52c98d4570784ecda6f991116c0b8c03f99f587ea41ec4448570b6\
    ///                             07d3085e6b13718328fb1c18868b106a80247628c95f14622e125a67328ef17201".parse()?;
    /// assert!(signature.verify("0", &address));
    /// assert!(!signature.verify("1", &address));
    /// # Ok::<(), link_core::InvalidSignature>(())
    /// ```
    #[must_use]
    pub fn verify(&self, message: &str, address: &Address) -> bool {
        // Plain comparison: both sides are public, so its time tells nothing.
        self.recover(message) == Some(*address)
    }

    fn digits(&self) -> [u8; DIGITS] {
        let mut bytes = [self.recovery_id.to_byte(); BYTES];
        for (slot, byte) in bytes.iter_mut().zip(self.signature.to_bytes()) {
            *slot = byte;
        }
        hexadecimal::encode(&bytes)
    }
}

/// Which half made `k256` refuse the two: *r* is judged first, so *s* is at fault only if *r* is not.
fn flaw_in_range(scalars: &[u8; 64]) -> InvalidSignature {
    match scalars.first_chunk::<32>().map(|r| NonZeroScalar::try_from(r.as_slice())) {
        Some(Ok(_)) => InvalidSignature::SOutOfRange,
        _ => InvalidSignature::ROutOfRange,
    }
}

/// As [`Signature::from_hex`].
impl FromStr for Signature {
    type Err = InvalidSignature;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_hex(text)
    }
}

/// The 130 digits of [`to_hex`](Signature::to_hex).
impl fmt::Display for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(hexadecimal::as_text(&self.digits()))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Signature({})", hexadecimal::as_text(&self.digits()))
    }
}

/// Why a text is not a [`Signature`]. It repeats nothing of the text, which may come from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSignature {
    /// It does not have 130 characters.
    #[error("the signature has {length} characters: it must have exactly 130")]
    Length {
        /// How many it has.
        length: usize,
    },
    /// A character is something else than a hexadecimal digit.
    #[error("character {position} of the signature is not a hexadecimal digit")]
    NotHexDigit {
        /// Which one, counted from 1.
        position: usize,
    },
    /// The number *r* is zero or not below the order of the group.
    #[error("r of the signature is zero or not below the group order of secp256k1")]
    ROutOfRange,
    /// The number *s* is zero or not below the order of the group.
    #[error("s of the signature is zero or not below the group order of secp256k1")]
    SOutOfRange,
    /// The last two digits are neither `00` nor `01`.
    #[error("the signature ends in the recovery id {id:02x}: only 00 and 01 are in use")]
    RecoveryId {
        /// What they say.
        id: u8,
    },
    /// The number *s* is in the upper half of its range, where anyone could have mirrored it.
    #[error("s of the signature is in its high form: sign with the low form, as BIP 62 describes it")]
    HighS,
}
