//! Keys, addresses and signatures, against libsecp256k1.
//!
//! The first byte of the input says what the rest is: a text to be read, or numbers to be signed with and recovered from.

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use link_core::{Address, InvalidSignature, PrivateKey, PublicKey, Signature, Wallet};
use secp256k1::{
    Message as Digest, SecretKey,
    ecdsa::{RecoverableSignature, RecoveryId},
};
use sha2::{Digest as _, Sha256};
use tiny_keccak::{Hasher, Keccak};

const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba,
    0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];
/// The largest *s* that is low.
const HALF: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d,
    0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// A signature to begin with: the edges of the ranges are near it, and near nothing that is drawn at random.
static HONEST: LazyLock<(Wallet, [u8; 65])> = LazyLock::new(|| {
    let wallet = Wallet::from_private_key(PrivateKey::from_bytes([7; 32]).unwrap());
    let signature = wallet.sign(MESSAGE);
    (wallet, bytes(&signature.to_hex()).unwrap())
});
const MESSAGE: &str = "1795372174071";

#[derive(Debug, Arbitrary)]
enum What {
    PrivateKey,
    PublicKey,
    PublicKeyOfX { first: u8, x: [u8; 32] },
    Address,
    AddressOf { key: [u8; 32], case: u64 },
    Signature,
    Signs { key: Number },
    Recovers { r: Number, s: Number, id: u8, upper: bool },
}

/// A number of 32 bytes.
#[derive(Debug, Arbitrary)]
enum Number {
    Any([u8; 32]),
    /// Near zero, the half of the order, the order, or the end.
    Edge {
        edge: u8,
        off: i8,
    },
    /// Of the honest signature.
    R,
    S,
    /// *s* mirrored at the order: the same signature in its high form.
    MirroredS,
}

/// Reads and does with `input` what identities are read from and do.
pub fn identity(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(what) = What::arbitrary(&mut input) else { return };
    let rest = input.take_rest();
    let text = &*String::from_utf8_lossy(rest);
    match what {
        What::PrivateKey => private_key(text),
        What::PublicKey => public_key(text),
        What::PublicKeyOfX { first, x } => public_key(&format!("0{}{}", first % 8, hex(&x))),
        What::Address => address(text),
        What::AddressOf { key, case } => address_of(key, case),
        What::Signature => signature(text, MESSAGE),
        What::Signs { key } => signs(key.bytes(), text),
        What::Recovers { r, s, id, upper } => {
            let digits = hex(&r.bytes()) + &hex(&s.bytes()) + &hex(&[id]);
            let message = if rest.is_empty() { MESSAGE } else { text };
            signature(&if upper { digits.to_uppercase() } else { digits }, message);
        }
    }
}

fn private_key(text: &str) {
    let parsed = PrivateKey::from_hex(text);
    assert_eq!(parsed.is_ok(), text.parse::<PrivateKey>().is_ok());
    let shaped = (1..=64).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let expected = if shaped { bytes(&format!("{text:0>64}")).and_then(secret) } else { None };
    match (&parsed, expected) {
        (Ok(key), Some(expected)) => {
            assert_eq!(*key.to_hex(), hex(&expected.to_secret_bytes()));
            assert_eq!(key.public_key().as_str(), hex(&expected.public_key().serialize()));
            assert_eq!(key.public_key().address().as_str(), address_of_key(key.public_key().as_str()));
        }
        (Err(_), None) => {}
        (ours, theirs) => panic!("{ours:?}, and libsecp256k1 {theirs:?}"),
    }
}

fn public_key(text: &str) {
    let parsed = PublicKey::from_hex(text);
    // The library knows other spellings of a point; a wallet does not.
    let expected = bytes::<33>(text)
        .filter(|bytes| matches!(bytes[0], 2 | 3))
        .and_then(|bytes| secp256k1::PublicKey::from_slice(&bytes).ok());
    match (&parsed, expected) {
        (Ok(key), Some(expected)) => {
            assert_eq!(key.as_str(), hex(&expected.serialize()));
            assert_eq!(key.as_str().parse::<PublicKey>().as_ref(), Ok(key));
            assert_eq!(key.address().as_str(), address_of_key(key.as_str()));
        }
        (Err(_), None) => {}
        (ours, theirs) => panic!("{ours:?}, and libsecp256k1 {theirs:?}"),
    }
}

/// What is an address: the checksummed form, and the one that is all upper-case.
fn address(text: &str) {
    let digits = text
        .strip_prefix("xe_")
        .filter(|digits| digits.len() == 40 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let expected = digits.and_then(|digits| {
        let checksummed = checksummed(&digits.to_lowercase());
        (checksummed == text || *digits == digits.to_uppercase()).then_some(checksummed)
    });
    let parsed = text.parse::<Address>();
    assert_eq!(parsed.as_ref().ok().map(Address::as_str), expected.as_deref(), "{text:?}: {parsed:?}");
    if let Ok(address) = parsed {
        let shown = address.to_string();
        assert_eq!(shown.parse(), Ok(address));
        assert_eq!(address.short().to_string(), format!("{}...{}", &shown[..7], &shown[39..]));
        let json = serde_json::to_string(&address).unwrap();
        assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
    }
}

/// A real address whose letters change their case.
fn address_of(key: [u8; 32], case: u64) {
    let Ok(key) = PrivateKey::from_bytes(key) else { return };
    let right = key.public_key().address().to_string();
    address(&right);
    let wrong = right.char_indices().map(|(place, letter)| match case >> place & 1 {
        0 => letter,
        _ if letter.is_ascii_lowercase() => letter.to_ascii_uppercase(),
        _ => letter.to_ascii_lowercase(),
    });
    address(&wrong.collect::<String>());
    address(&format!("xe_{}", right[3..].to_uppercase()));
}

/// A signature as it is written, over `message`.
fn signature(text: &str, message: &str) {
    let parsed = Signature::from_hex(text);
    let expected = bytes::<65>(text).and_then(|bytes| {
        let (scalars, id) = (&bytes[..64], bytes[64]);
        let (r, s) = scalars.split_at(32);
        let in_range = |scalar: &[u8]| scalar.iter().any(|byte| *byte > 0) && *scalar < ORDER[..];
        let strict = in_range(r) && in_range(s) && *s <= HALF[..] && id < 2;
        let id = RecoveryId::try_from(i32::from(id)).ok()?;
        let signature = RecoverableSignature::from_compact(scalars, id).ok().filter(|_| strict)?;
        // The library agrees about what is low.
        let mut low = signature.to_standard();
        low.normalize_s();
        assert_eq!(low, signature.to_standard());
        Some(signature)
    });
    let (ours, theirs) = match (parsed, expected) {
        (Ok(ours), Some(theirs)) => (ours, theirs),
        (Err(_), None) => return,
        (ours, theirs) => panic!("{text:?} is {ours:?}, and to libsecp256k1 {theirs:?}"),
    };
    assert_eq!(ours.to_hex(), text.to_lowercase());
    assert_eq!(ours.to_hex().parse::<Signature>().as_ref(), Ok(&ours));
    let signer = theirs.recover_ecdsa(digest(message)).ok();
    let signer = signer.map(|key| address_of_key(&hex(&key.serialize())));
    let recovered = ours.recover(message);
    assert_eq!(recovered.as_ref().map(Address::as_str), signer.as_deref(), "who signed");
    let (wallet, _) = &*HONEST;
    assert_eq!(ours.verify(message, &wallet.address()), recovered == Some(wallet.address()));
    if let Some(signer) = recovered {
        assert!(ours.verify(message, &signer));
        assert!(!ours.verify(&format!("{message}0"), &signer), "another text");
    }
}

/// The same key signs the same text with the same bytes.
fn signs(key: [u8; 32], message: &str) {
    let (ours, theirs) = match (PrivateKey::from_bytes(key), secret(key)) {
        (Ok(ours), Some(theirs)) => (Wallet::from_private_key(ours), theirs),
        (Err(_), None) => return,
        (ours, theirs) => panic!("{ours:?}, and libsecp256k1 {theirs:?}"),
    };
    let (id, scalars) =
        RecoverableSignature::sign_ecdsa_recoverable(digest(message), &theirs).serialize_compact();
    let signed = ours.sign(message);
    assert_eq!(signed.to_hex(), hex(&scalars) + &hex(&[id.to_u8()]));
    assert_eq!(signed.recover(message), Some(ours.address()));
    assert!(signed.verify(message, &ours.address()));
    // Its other form is nobody's, whichever id goes with it.
    let mirrored = less(&ORDER, scalars[32..].try_into().unwrap());
    for id in ["00", "01"] {
        let high = hex(&scalars[..32]) + &hex(&mirrored) + id;
        assert_eq!(Signature::from_hex(&high), Err(InvalidSignature::HighS));
        assert!(Signature::from_hex(&(signed.to_hex() + id)).is_err(), "something after its end");
    }
}

impl Number {
    fn bytes(&self) -> [u8; 32] {
        let honest = &HONEST.1;
        let (r, s): ([u8; 32], [u8; 32]) =
            (honest[..32].try_into().unwrap(), honest[32..64].try_into().unwrap());
        match self {
            Self::Any(bytes) => *bytes,
            Self::Edge { edge, off } => {
                let edge = [[0; 32], HALF, ORDER, [0xff; 32]][usize::from(edge % 4)];
                let mut off_bytes = [0; 32];
                off_bytes[31] = off.unsigned_abs();
                if *off < 0 { less(&edge, off_bytes) } else { more(&edge, off_bytes) }
            }
            Self::R => r,
            Self::S => s,
            Self::MirroredS => less(&ORDER, s),
        }
    }
}

fn less(from: &[u8; 32], by: [u8; 32]) -> [u8; 32] {
    more(&more(from, by.map(|byte| !byte)), std::array::from_fn(|place| u8::from(place == 31)))
}

fn more(to: &[u8; 32], by: [u8; 32]) -> [u8; 32] {
    let (mut sum, mut carry) = ([0; 32], 0);
    for place in (0..32).rev() {
        let digit = u16::from(to[place]) + u16::from(by[place]) + carry;
        (sum[place], carry) = (digit.to_le_bytes()[0], digit >> 8);
    }
    sum
}

fn secret(bytes: [u8; 32]) -> Option<SecretKey> {
    SecretKey::from_secret_bytes(bytes).ok()
}

fn digest(message: &str) -> Digest {
    Digest::from_digest(Sha256::digest(message).into())
}

fn keccak(text: &str) -> [u8; 32] {
    let (mut keccak, mut hash) = (Keccak::v256(), [0; 32]);
    keccak.update(text.as_bytes());
    keccak.finalize(&mut hash);
    hash
}

/// The address of a key that is written as 66 digits, by the steps of the specification.
fn address_of_key(digits: &str) -> String {
    checksummed(&hex(&keccak(digits))[24..])
}

fn checksummed(lower: &str) -> String {
    let case = hex(&keccak(lower));
    let digits = lower.chars().zip(case.chars()).map(|(digit, case)| match case {
        '8'..='9' | 'a'..='f' => digit.to_ascii_uppercase(),
        _ => digit,
    });
    "xe_".chars().chain(digits).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}
