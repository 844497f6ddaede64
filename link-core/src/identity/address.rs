use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{hash, hexadecimal};

const PREFIX: &str = "xe_";
const DIGITS: usize = 40;
const LENGTH: usize = 43;

/// The name a peer is known by: `xe_` and 40 hexadecimal digits whose letter case is a checksum.
///
/// The digits are the end of the Keccak-256 hash of the *text* of a [`PublicKey`](super::PublicKey); each
/// letter among them is upper-case where the hash of the lower-case digits says so. A value of this type always
/// holds the checksummed form, so two addresses are equal exactly when their texts are, and a typing
/// mistake in one goes unnoticed about once in 4,000 times. It is 43 bytes, `Copy`, and sorts as its text does.
///
/// ```
/// use link_core::{Address, InvalidAddress};
///
/// let address: Address = "xe_61db6997734714592fa3524Ee39a118A412Aaf0E".parse()?;
/// assert_eq!(address.short().to_string(), "xe_61db...af0E");
/// assert_eq!("xe_61db6997734714592fa3524ee39a118a412aaf0e".parse::<Address>(), Err(InvalidAddress::Checksum));
/// # Ok::<(), InvalidAddress>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    text: [u8; LENGTH],
}

impl Address {
    /// The 43 characters, in the checksummed form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        hexadecimal::as_text(&self.text)
    }

    /// The form to show to people: the first 7 characters, `...`, and the last 4.
    ///
    /// It says which of a few known peers is meant and proves nothing: anyone can make a key whose address has
    /// the same short form, so never compare, store or admit by it.
    #[must_use]
    pub fn short(&self) -> ShortAddress {
        const TAIL: usize = LENGTH - 4;
        let mut text = [b'.'; ShortAddress::LENGTH];
        let shown = self.text.iter().take(7).chain(b"...").chain(self.text.iter().skip(TAIL));
        for (slot, character) in text.iter_mut().zip(shown) {
            *slot = *character;
        }
        ShortAddress { text }
    }

    /// The address of the key whose compressed form has these digits.
    pub(super) fn of_public_key(key: &[u8; 66]) -> Self {
        // The reference hashes the 66 characters, not the 33 bytes they stand for.
        let digits: [u8; 64] = hexadecimal::encode(&hash::keccak256(key));
        let mut last = [b'0'; DIGITS];
        for (slot, digit) in last.iter_mut().rev().zip(digits.iter().rev()) {
            *slot = *digit;
        }
        Self::checksummed(&last)
    }

    /// Puts the letters of 40 lower-case digits into the case that is their checksum (as in EIP-55).
    fn checksummed(lower: &[u8; DIGITS]) -> Self {
        let hash = hash::keccak256(lower);
        let digits = lower.iter().zip(hexadecimal::nibbles(&hash)).map(|(digit, nibble)| match nibble {
            0..8 => *digit,
            _ => digit.to_ascii_uppercase(),
        });
        let mut text = [b'0'; LENGTH];
        for (slot, character) in text.iter_mut().zip(PREFIX.bytes().chain(digits)) {
            *slot = character;
        }
        Self { text }
    }
}

/// Reads the checksummed form, or the form whose letters are all upper-case.
///
/// The second carries no checksum; other programs of this network take it, so it is taken here and becomes
/// the checksummed form. The prefix is lower-case in both. Nothing else is an address: not the form whose
/// letters are all lower-case (unless that happens to be the checksummed one), nor one with a space or a line
/// break around it.
impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let length = text.chars().count();
        if length != LENGTH {
            return Err(InvalidAddress::Length { length });
        }
        let digits = text.strip_prefix(PREFIX).ok_or(InvalidAddress::Prefix)?;
        if let Some(position) = hexadecimal::first_non_digit(digits) {
            return Err(InvalidAddress::NotHexDigit { position: position.saturating_add(PREFIX.len()) });
        }
        let digits =
            <[u8; DIGITS]>::try_from(digits.as_bytes()).map_err(|_| InvalidAddress::Length { length })?;

        let address = Self::checksummed(&digits.map(|digit| digit.to_ascii_lowercase()));
        let all_upper = !digits.iter().any(u8::is_ascii_lowercase);
        if all_upper || address.as_str() == text { Ok(address) } else { Err(InvalidAddress::Checksum) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Address({})", self.as_str())
    }
}

/// Written as a string.
impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Read from a string, by the rules of its `FromStr`.
impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(AddressVisitor)
    }
}

/// Reads the text in place, where `String::deserialize` would allocate.
struct AddressVisitor;

impl de::Visitor<'_> for AddressVisitor {
    type Value = Address;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an address, which is a string of `xe_` and 40 hexadecimal digits")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
        text.parse().map_err(E::custom)
    }
}

/// An [`Address`] as people are shown it, such as `xe_61db...af0E`; made by [`Address::short`].
///
/// For display only: it has no comparison, since many addresses share one short form.
#[derive(Clone, Copy)]
pub struct ShortAddress {
    text: [u8; Self::LENGTH],
}

impl ShortAddress {
    const LENGTH: usize = 14;
}

impl fmt::Display for ShortAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(hexadecimal::as_text(&self.text))
    }
}

impl fmt::Debug for ShortAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ShortAddress({})", hexadecimal::as_text(&self.text))
    }
}

/// Why a text is not an [`Address`]. It repeats nothing of the text, which may come from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAddress {
    /// It does not have 43 characters.
    #[error(
        "the address has {length} characters: give exactly 43, `xe_` and 40 hexadecimal digits, without a space \
         or a line break"
    )]
    Length {
        /// How many it has.
        length: usize,
    },
    /// It does not begin with `xe_`.
    #[error("the address does not begin with `xe_`: the prefix is part of it and is lower-case")]
    Prefix,
    /// A character after the prefix is something else than a hexadecimal digit.
    #[error(
        "character {position} of the address is not a hexadecimal digit: after `xe_`, give only 0-9 and a-f"
    )]
    NotHexDigit {
        /// Which one, counted from 1 with the prefix.
        position: usize,
    },
    /// The case of its letters is not the checksum of its digits.
    #[error(
        "the address does not match its checksum, which is the case of its letters: a digit was mistyped or a \
         letter changed its case, so copy the address again, exactly as its owner shows it"
    )]
    Checksum,
}
