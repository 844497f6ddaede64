use alloc::string::String;
use core::{fmt, str::FromStr};

use k256::ecdsa::SigningKey;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{PublicKey, Signature, hash, hexadecimal};

const BYTES: usize = 32;
const DIGITS: usize = 64;

/// The secret behind an identity: whoever has it can sign as its [`Address`](super::Address).
///
/// A number from 1 to the order of the curve secp256k1 less 1. Its memory is wiped when it is dropped, it is
/// never copied without a word, `Debug` prints `PrivateKey(..)`, and the one way to its text is
/// [`to_hex`](Self::to_hex). The wiping cannot reach what it does not own: the text or bytes a caller made
/// the key from, or what the compiler left on the stack when the key was moved.
///
/// Making a key computes its public key once (a multiplication on the curve); [`public_key`](Self::public_key)
/// then only writes it down.
#[derive(Clone)]
pub struct PrivateKey {
    signing_key: SigningKey,
}

impl PrivateKey {
    /// Makes a key of 32 bytes, read as a big-endian number.
    ///
    /// For a new key, pass 32 bytes of a cryptographic random source (the `getrandom` crate, for instance).
    ///
    /// # Errors
    ///
    /// [`InvalidPrivateKey::OutOfRange`] if the number is zero or not below the order of the group. Random bytes
    /// meet that with a chance of 2⁻¹²⁸, so a source that meets it is broken, not unlucky.
    ///
    /// ```
    /// use link_core::{InvalidPrivateKey, PrivateKey};
    ///
    /// assert!(PrivateKey::from_bytes([7; 32]).is_ok());
    /// assert_eq!(PrivateKey::from_bytes([0; 32]).unwrap_err(), InvalidPrivateKey::OutOfRange);
    /// ```
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, InvalidPrivateKey> {
        Self::from_secret(&Zeroizing::new(bytes))
    }

    /// Reads a key from 1 to 64 hexadecimal digits, in upper or lower case.
    ///
    /// Leading zeros may be missing, since other programs of this network write keys without them: `"abc"` is
    /// the key 0xabc. No prefix, space or line break is taken.
    ///
    /// # Errors
    ///
    /// An [`InvalidPrivateKey`] that says what was wrong, and where, and repeats nothing of the text.
    ///
    /// ```
    /// use link_core::{InvalidPrivateKey, PrivateKey};
    ///
    /// let key = PrivateKey::from_hex("ABC")?;
    /// assert_eq!(*key.to_hex(), format!("{:0>64}", "abc"));
    /// assert_eq!(PrivateKey::from_hex("0xabc").unwrap_err(), InvalidPrivateKey::NotHexDigit { position: 2 });
    /// # Ok::<(), InvalidPrivateKey>(())
    /// ```
    pub fn from_hex(text: &str) -> Result<Self, InvalidPrivateKey> {
        if text.is_empty() {
            return Err(InvalidPrivateKey::Empty);
        }
        // Before the length, because a `0x` or a line break also makes a text too long, and the place says more.
        if let Some(position) = hexadecimal::first_non_digit(text) {
            return Err(InvalidPrivateKey::NotHexDigit { position });
        }
        let too_long = InvalidPrivateKey::TooLong { length: text.len() };
        if text.len() > DIGITS {
            return Err(too_long);
        }

        let mut digits = Zeroizing::new([b'0'; DIGITS]);
        for (slot, digit) in digits.iter_mut().rev().zip(text.bytes().rev()) {
            *slot = digit;
        }
        let mut bytes = Zeroizing::new([0; BYTES]);
        hex::decode_to_slice(digits.as_slice(), &mut *bytes).map_err(|_| too_long)?;
        Self::from_secret(&bytes)
    }

    fn from_secret(bytes: &[u8; BYTES]) -> Result<Self, InvalidPrivateKey> {
        match SigningKey::from_bytes(bytes.into()) {
            Ok(signing_key) => Ok(Self { signing_key }),
            Err(_) => Err(InvalidPrivateKey::OutOfRange),
        }
    }

    /// Writes the key as 64 lower-case hexadecimal digits, to be stored where only its owner reads.
    ///
    /// The text is wiped from memory when it is dropped; a copy of it made by the caller is not.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(<[u8; BYTES]>::from(self.signing_key.to_bytes()));
        let mut digits = Zeroizing::new([0; DIGITS]);
        hexadecimal::encode_into::<BYTES, DIGITS>(&bytes, &mut digits);
        Zeroizing::new(String::from(hexadecimal::as_text(&*digits)))
    }

    /// The public half of the key, which may be shown to anyone.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from(self.signing_key.verifying_key())
    }

    /// Signs the UTF-8 of `message`, so that [`Signature::recover`] gives back this key's address.
    ///
    /// ECDSA over SHA-256 with the nonce of RFC 6979 and the low form of *s*: the same key and message always
    /// give the same signature.
    ///
    /// ```
    /// # use link_core::{InvalidPrivateKey, PrivateKey};
    /// let key = PrivateKey::from_hex("abc")?;
    /// let signature = key.sign("1795372174071");
    /// assert_eq!(signature.recover("1795372174071"), Some(key.public_key().address()));
    /// # Ok::<(), InvalidPrivateKey>(())
    /// ```
    #[must_use]
    pub fn sign(&self, message: &str) -> Signature {
        let (signature, recovery_id) =
            self.signing_key.sign_prehash_recoverable(&hash::sha256(message.as_bytes()));
        Signature::from_parts(signature, recovery_id)
    }
}

/// As [`PrivateKey::from_hex`].
impl FromStr for PrivateKey {
    type Err = InvalidPrivateKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_hex(text)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKey(..)")
    }
}

impl ZeroizeOnDrop for PrivateKey {}

/// The wiping above is the signing key's own: a `k256` that drops it does not build here.
const _: fn() = || {
    fn wiped_on_drop<T: ZeroizeOnDrop>() {}
    wiped_on_drop::<SigningKey>();
};

/// Why something is not a private key. It never repeats any of the key's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPrivateKey {
    /// There was no text.
    #[error("the private key is empty: give 1 to 64 hexadecimal digits")]
    Empty,
    /// There were more than 64 digits.
    #[error("the private key has {length} digits: give at most 64, so check that nothing was pasted twice")]
    TooLong {
        /// How many there were.
        length: usize,
    },
    /// A character was something else than a hexadecimal digit.
    #[error(
        "character {position} of the private key is not a hexadecimal digit: give only 0-9 and a-f, \
         without a 0x, a space or a line break"
    )]
    NotHexDigit {
        /// Which one, counted from 1.
        position: usize,
    },
    /// The number is zero, or not below the order of the group.
    #[error(
        "the private key is zero or not below the group order of secp256k1: check that it was copied whole, \
         or make a new one of 32 fresh random bytes"
    )]
    OutOfRange,
}
