//! Hexadecimal text to and from arrays, without an allocation and without echoing what was read.

/// Why a text is not hexadecimal of the wanted length.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotHex {
    /// It has this many characters.
    Length(usize),
    /// The character at this place, counted from 1, is not a digit.
    Digit(usize),
}

/// Reads exactly `BYTES` bytes, two digits for each, in upper or lower case.
pub(super) fn decode<const BYTES: usize>(text: &str) -> Result<[u8; BYTES], NotHex> {
    let length = text.chars().count();
    if length.checked_div(2) != Some(BYTES) || !length.is_multiple_of(2) {
        return Err(NotHex::Length(length));
    }
    if let Some(position) = first_non_digit(text) {
        return Err(NotHex::Digit(position));
    }
    let mut bytes = [0; BYTES];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| NotHex::Length(length))?;
    Ok(bytes)
}

/// The place, counted in characters from 1, of the first one that is not a hexadecimal digit.
pub(super) fn first_non_digit(text: &str) -> Option<usize> {
    text.chars().zip(1..).find_map(|(character, place)| (!character.is_ascii_hexdigit()).then_some(place))
}

/// Writes `bytes` as lower-case digits.
pub(super) fn encode<const BYTES: usize, const DIGITS: usize>(bytes: &[u8; BYTES]) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    encode_into(bytes, &mut digits);
    digits
}

/// Writes `bytes` as lower-case digits where the caller wants them, so that a secret leaves no copy elsewhere.
pub(super) fn encode_into<const BYTES: usize, const DIGITS: usize>(
    bytes: &[u8; BYTES],
    digits: &mut [u8; DIGITS],
) {
    const { assert!(DIGITS == BYTES * 2, "a byte is two digits") };
    // The only error is a wrong length, which the line above refuses to compile.
    let _ = hex::encode_to_slice(bytes, digits);
}

/// The half bytes of `bytes`, high one first: what its hexadecimal digits stand for.
pub(super) fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0f])
}

/// The text of an array that this module's callers only ever fill with ASCII.
pub(super) fn as_text(ascii: &[u8]) -> &str {
    debug_assert!(ascii.is_ascii(), "identity texts are ASCII by construction");
    core::str::from_utf8(ascii).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_counted_in_characters_and_judged_before_the_digits() {
        assert_eq!(decode::<2>("00fF"), Ok([0x00, 0xff]));
        assert_eq!(decode::<2>("éé"), Err(NotHex::Length(2)), "four bytes, two characters");
        assert_eq!(decode::<2>("00f"), Err(NotHex::Length(3)));
        assert_eq!(decode::<2>("00fff"), Err(NotHex::Length(5)));
        assert_eq!(decode::<2>("zzzzz"), Err(NotHex::Length(5)));
    }

    #[test]
    fn the_first_wrong_character_is_named_by_its_place() {
        assert_eq!(decode::<2>("00gz"), Err(NotHex::Digit(3)));
        assert_eq!(decode::<2>("éé00"), Err(NotHex::Digit(1)));
        assert_eq!(first_non_digit("0123456789abcdefABCDEF"), None);
        assert_eq!(first_non_digit("0x1"), Some(2));
    }

    #[test]
    fn what_is_encoded_decodes() {
        let digits: [u8; 8] = encode(&[0x00, 0x1a, 0xb0, 0xff]);
        assert_eq!(as_text(&digits), "001ab0ff");
        assert_eq!(decode::<4>(as_text(&digits)), Ok([0x00, 0x1a, 0xb0, 0xff]));
        assert!(nibbles(&[0x1a, 0xb0]).eq([0x1, 0xa, 0xb, 0x0]));
    }
}
