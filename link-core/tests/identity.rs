//! Identity: what the reference implementation makes and accepts, where we are stricter, and what always holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use link_core::{
    Address, InvalidAddress, InvalidPrivateKey, InvalidPublicKey, InvalidSignature, PrivateKey, PublicKey,
    Signature, Wallet,
};
use proptest::prelude::*;
use serde::Deserialize;

/// What the reference made and said; see the file itself for how the rows are named.
#[derive(Deserialize)]
struct Vectors {
    wallets: Vec<WalletRow>,
    verify: Vec<VerifyRow>,
    addresses: Vec<AddressRow>,
}

#[derive(Deserialize)]
struct WalletRow {
    private_key: String,
    private_key_padded: String,
    public_key: String,
    address: String,
    short_address: String,
    signatures: Vec<SignatureRow>,
}

#[derive(Deserialize)]
struct SignatureRow {
    message: String,
    signature: String,
}

#[derive(Deserialize)]
struct VerifyRow {
    name: String,
    message: String,
    signature: String,
    address: String,
    reference: String,
}

#[derive(Deserialize)]
struct AddressRow {
    text: String,
    valid: bool,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/wallet-v1.json")).unwrap()
}

fn verify_row(name: &str) -> VerifyRow {
    vectors().verify.into_iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name:?}"))
}

/// Our verdict on texts from the wire: both must be read before one is held against the other.
fn verifies(row: &VerifyRow) -> bool {
    match (row.signature.parse::<Signature>(), row.address.parse()) {
        (Ok(signature), Ok(address)) => signature.verify(&row.message, &address),
        _ => false,
    }
}

/// The order of secp256k1, from SEC 2 §2.4.1.
const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
const ADDRESS: &str = "xe_61db6997734714592fa3524Ee39a118A412Aaf0E";

// --- The reference's vectors ---------------------------------------------------------------------------------

#[test]
fn wallets_of_the_reference_have_the_same_keys_and_addresses_here() {
    let rows = vectors().wallets;
    assert_eq!(rows.len(), 20);
    for row in rows {
        let wallet = Wallet::from_private_key(row.private_key.parse().unwrap());
        assert_eq!(*wallet.private_key().to_hex(), row.private_key_padded);
        assert_eq!(wallet.public_key().as_str(), row.public_key);
        assert_eq!(wallet.address().as_str(), row.address);
        assert_eq!(wallet.address().short().to_string(), row.short_address);

        let public_key = PublicKey::from_hex(&row.public_key).unwrap();
        assert_eq!(public_key, *wallet.public_key());
        assert_eq!(public_key.address(), wallet.address());
    }
}

#[test]
fn signatures_are_the_same_bytes_as_the_reference_makes() {
    let mut compared = 0;
    for row in vectors().wallets {
        let wallet = Wallet::from_private_key(row.private_key.parse().unwrap());
        for SignatureRow { message, signature } in row.signatures {
            let made = wallet.sign(&message);
            assert_eq!(made.to_hex(), signature);
            assert_eq!(made.to_string(), signature);
            assert_eq!(signature.parse(), Ok(made.clone()));
            assert_eq!(made.recover(&message), Some(wallet.address()));
            compared += 1;
        }
    }
    assert_eq!(compared, 80);
}

#[test]
fn verdicts_on_signatures_are_the_reference_s_but_for_two_rows() {
    let stricter = ["high-s form", "trailing bytes"];
    for row in vectors().verify {
        let expected = row.reference == "valid" && !stricter.contains(&row.name.as_str());
        assert_eq!(verifies(&row), expected, "{}", row.name);
    }
}

#[test]
fn high_s_signatures_and_trailing_characters_are_refused() {
    let high = verify_row("high-s form");
    assert_eq!(high.reference, "valid", "the reference takes it, which is why this test exists");
    assert_eq!(high.signature.parse::<Signature>(), Err(InvalidSignature::HighS));

    let trailing = verify_row("trailing bytes");
    assert_eq!(trailing.reference, "valid", "the reference takes it, which is why this test exists");
    assert_eq!(trailing.signature.parse::<Signature>(), Err(InvalidSignature::Length { length: 136 }));
}

#[test]
fn verdicts_on_addresses_are_the_reference_s() {
    for AddressRow { text, valid } in vectors().addresses {
        assert_eq!(text.parse::<Address>().is_ok(), valid, "{text:?}");
    }
}

// --- Private keys --------------------------------------------------------------------------------------------

#[test]
fn missing_leading_zeros_and_upper_case_make_the_same_key() {
    let key = PrivateKey::from_hex("abc").unwrap();
    for same in ["ABC", "0abc", "00aBc", &format!("{:0>64}", "abc")] {
        assert_eq!(PrivateKey::from_hex(same).unwrap().to_hex(), key.to_hex());
        assert_eq!(same.parse::<PrivateKey>().unwrap().public_key(), key.public_key());
    }
    let mut bytes = [0; 32];
    bytes[30..].copy_from_slice(&[0x0a, 0xbc]);
    assert_eq!(PrivateKey::from_bytes(bytes).unwrap().to_hex(), key.to_hex());
}

#[test]
fn each_flaw_of_a_private_key_has_its_own_error() {
    let zeros = "0".repeat(64);
    let with_line_break = format!("{}\n", "1".repeat(64));
    let cases = [
        ("", InvalidPrivateKey::Empty),
        (&"1".repeat(65), InvalidPrivateKey::TooLong { length: 65 }),
        ("0x1", InvalidPrivateKey::NotHexDigit { position: 2 }),
        ("12é4", InvalidPrivateKey::NotHexDigit { position: 3 }),
        (&with_line_break, InvalidPrivateKey::NotHexDigit { position: 65 }),
        ("+1", InvalidPrivateKey::NotHexDigit { position: 1 }),
        ("0", InvalidPrivateKey::OutOfRange),
        (&zeros, InvalidPrivateKey::OutOfRange),
        (ORDER, InvalidPrivateKey::OutOfRange),
        (&"f".repeat(64), InvalidPrivateKey::OutOfRange),
    ];
    for (text, flaw) in cases {
        assert_eq!(PrivateKey::from_hex(text).unwrap_err(), flaw, "{text:?}");
        assert_eq!(text.parse::<PrivateKey>().unwrap_err(), flaw, "{text:?}");
    }
}

#[test]
fn the_range_of_a_private_key_ends_just_below_the_group_order() {
    let last = ORDER.replace("4141", "4140");
    assert!(PrivateKey::from_hex(&last).is_ok());
    assert_eq!(PrivateKey::from_bytes([0; 32]).unwrap_err(), InvalidPrivateKey::OutOfRange);
    assert_eq!(PrivateKey::from_bytes([0xff; 32]).unwrap_err(), InvalidPrivateKey::OutOfRange);
}

#[test]
fn errors_about_a_private_key_say_what_to_do_and_repeat_none_of_it() {
    let secret = "77899554d233356bb0d911a64d75e200dc6387f8568c4f26b9c14a4bfacb2a4Q";
    let error = PrivateKey::from_hex(secret).unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("character 64"), "{shown}");
    assert!(shown.contains("give only 0-9 and a-f"), "{shown}");
    assert!(!shown.contains('Q') && !shown.contains("7789"), "{shown}");
}

#[test]
fn a_private_key_is_wiped_when_it_is_dropped() {
    // Reading freed memory takes `unsafe`; that the types say so is what can be held on to here.
    fn wiped_on_drop<T: zeroize::ZeroizeOnDrop>(_: &T) {}
    let key = PrivateKey::from_hex("abc").unwrap();
    wiped_on_drop(&key);
    let _: zeroize::Zeroizing<String> = key.to_hex();
}

// --- Public keys ---------------------------------------------------------------------------------------------

#[test]
fn each_flaw_of_a_public_key_has_its_own_error() {
    let good = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    assert_eq!(good.to_uppercase().parse::<PublicKey>().unwrap().as_str(), good, "upper case is read");

    let (_, x) = good.split_at(2);
    let cases = [
        (String::new(), InvalidPublicKey::Length { length: 0 }),
        (x.into(), InvalidPublicKey::Length { length: 64 }),
        (format!("{good}0"), InvalidPublicKey::Length { length: 67 }),
        (good.replace("be", "bé"), InvalidPublicKey::NotHexDigit { position: 6 }),
        (format!("04{x}"), InvalidPublicKey::NotCompressed),
        (format!("05{x}"), InvalidPublicKey::NotCompressed),
        (format!("00{x}"), InvalidPublicKey::NotCompressed),
        // x³ + 7 is no square for x = 5, and the field ends below 2²⁵⁶ − 1.
        (format!("02{:0>64}", 5), InvalidPublicKey::NotOnCurve),
        (format!("02{}", "f".repeat(64)), InvalidPublicKey::NotOnCurve),
    ];
    for (text, flaw) in cases {
        assert_eq!(PublicKey::from_hex(&text), Err(flaw), "{text:?}");
    }
}

// --- Addresses -----------------------------------------------------------------------------------------------

#[test]
fn the_all_upper_case_form_is_read_and_becomes_the_checksummed_one() {
    let upper = format!("xe_{}", ADDRESS[3..].to_uppercase());
    let address: Address = upper.parse().unwrap();
    assert_eq!(address.as_str(), ADDRESS);
    assert_eq!(address, ADDRESS.parse().unwrap());
}

#[test]
fn addresses_without_a_letter_are_valid() {
    for digit in 0..10 {
        let text = format!("xe_{}", digit.to_string().repeat(40));
        assert_eq!(text.parse::<Address>().unwrap().as_str(), text);
    }
}

#[test]
fn each_flaw_of_an_address_has_its_own_error() {
    let cases = [
        (String::new(), InvalidAddress::Length { length: 0 }),
        ("xe_".into(), InvalidAddress::Length { length: 3 }),
        (format!("{ADDRESS}0"), InvalidAddress::Length { length: 44 }),
        (format!("{ADDRESS}\n"), InvalidAddress::Length { length: 44 }),
        (format!(" {ADDRESS}"), InvalidAddress::Length { length: 44 }),
        (format!("xe_{}", "é".repeat(20)), InvalidAddress::Length { length: 23 }),
        (ADDRESS.replace("xe_", "XE_"), InvalidAddress::Prefix),
        (ADDRESS.replace("xe_", "0x_"), InvalidAddress::Prefix),
        (ADDRESS.replace("61", "6g"), InvalidAddress::NotHexDigit { position: 5 }),
        (format!("xe_{}", "é".repeat(40)), InvalidAddress::NotHexDigit { position: 4 }),
        (ADDRESS.to_lowercase(), InvalidAddress::Checksum),
        (ADDRESS.replace("61", "62"), InvalidAddress::Checksum),
    ];
    for (text, flaw) in cases {
        assert_eq!(text.parse::<Address>(), Err(flaw), "{text:?}");
    }
}

#[test]
fn an_address_is_a_string_in_json_and_may_be_the_key_of_a_map() {
    let address: Address = ADDRESS.parse().unwrap();
    let json = format!("\"{ADDRESS}\"");
    assert_eq!(serde_json::to_string(&address).unwrap(), json);
    assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
    assert_eq!(serde_json::from_reader::<_, Address>(json.as_bytes()).unwrap(), address, "not borrowed");
    assert_eq!(serde_json::from_str::<Address>(&json.replace('x', "\\u0078")).unwrap(), address, "escaped");

    let map = BTreeMap::from([(address, 1)]);
    let text = serde_json::to_string(&map).unwrap();
    assert_eq!(serde_json::from_str::<BTreeMap<Address, i32>>(&text).unwrap(), map);

    let refused = serde_json::from_str::<Address>(&json.to_lowercase()).unwrap_err();
    assert!(refused.to_string().contains("does not match its checksum"), "{refused}");
    assert!(serde_json::from_str::<Address>("43").unwrap_err().to_string().contains("an address"));
}

#[test]
fn addresses_fill_the_columns_of_a_table() {
    let address: Address = ADDRESS.parse().unwrap();
    assert_eq!(format!("{address:<45}|"), format!("{ADDRESS}  |"));
    assert_eq!(format!("{:>16}|", address.short()), "  xe_61db...af0E|");
}

#[test]
fn the_debug_form_names_the_kind_and_shows_what_peers_see() {
    let wallet = Wallet::from_private_key(PrivateKey::from_hex("abc").unwrap());
    let (address, key, signature) = (wallet.address(), wallet.public_key(), wallet.sign("hello"));
    for (shown, expected) in [
        (format!("{wallet:?}"), format!("Wallet({address})")),
        (format!("{address:?}"), format!("Address({address})")),
        (format!("{:?}", address.short()), format!("ShortAddress({})", address.short())),
        (format!("{key:?}"), format!("PublicKey({key})")),
        (format!("{signature:?}"), format!("Signature({signature})")),
    ] {
        assert_eq!(shown, expected);
    }
}

// --- Signatures ----------------------------------------------------------------------------------------------

#[test]
fn each_flaw_of_a_signature_has_its_own_error() {
    let good = verify_row("good").signature;
    let (r, rest) = good.split_at(64);
    let (s, id) = rest.split_at(64);
    let zero = "0".repeat(64);
    // Half the order, rounded down, is the last s that is low (BIP 62).
    let last_low = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0";
    let first_high = last_low.replace("20a0", "20a1");
    let last_high = ORDER.replace("4141", "4140");

    let cases = [
        (String::new(), InvalidSignature::Length { length: 0 }),
        (format!("{r}{s}"), InvalidSignature::Length { length: 128 }),
        (format!("{good}0"), InvalidSignature::Length { length: 131 }),
        (format!("0x{good}"), InvalidSignature::Length { length: 132 }),
        (format!(" {}", &good[1..]), InvalidSignature::NotHexDigit { position: 1 }),
        (format!("{r}{s}0é"), InvalidSignature::NotHexDigit { position: 130 }),
        (format!("{zero}{s}{id}"), InvalidSignature::ROutOfRange),
        (format!("{ORDER}{s}{id}"), InvalidSignature::ROutOfRange),
        (format!("{zero}{zero}{id}"), InvalidSignature::ROutOfRange),
        (format!("{r}{zero}{id}"), InvalidSignature::SOutOfRange),
        (format!("{r}{ORDER}{id}"), InvalidSignature::SOutOfRange),
        (format!("{r}{first_high}{id}"), InvalidSignature::HighS),
        (format!("{r}{last_high}{id}"), InvalidSignature::HighS),
        (format!("{r}{s}02"), InvalidSignature::RecoveryId { id: 2 }),
        (format!("{r}{s}1b"), InvalidSignature::RecoveryId { id: 27 }),
    ];
    for (text, flaw) in cases {
        assert_eq!(Signature::from_hex(&text), Err(flaw), "{text}");
    }
    assert!(Signature::from_hex(&format!("{r}{last_low}{id}")).is_ok());
}

#[test]
fn a_signature_no_key_can_have_made_recovers_to_nobody() {
    // No point of the curve has the x coordinate 5, so there is no nonce that gives this r.
    let signature = Signature::from_hex(&format!("{:0>64}{:0>64}00", 5, 1)).unwrap();
    assert_eq!(signature.recover("0"), None);
    assert!(!signature.verify("0", &ADDRESS.parse().unwrap()));
}

#[test]
fn upper_case_signatures_are_read_and_written_back_in_lower_case() {
    let row = verify_row("upper-case signature hex");
    let signature: Signature = row.signature.parse().unwrap();
    assert_eq!(signature.to_hex(), row.signature.to_lowercase());
}

// --- What always holds ---------------------------------------------------------------------------------------

/// A wallet of any key; those out of range are as rare as never.
fn any_wallet() -> impl Strategy<Value = Wallet> {
    any::<[u8; 32]>().prop_filter_map("out of range", |bytes| {
        PrivateKey::from_bytes(bytes).ok().map(Wallet::from_private_key)
    })
}

/// Texts that come close: a good one with one character put in, left out or replaced.
fn nearly(good: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (good, any::<prop::sample::Index>(), any::<char>(), 0..3).prop_map(|(good, place, character, change)| {
        let mut characters: Vec<char> = good.chars().collect();
        let place = place.index(characters.len());
        match change {
            0 => characters.insert(place, character),
            1 => drop(characters.remove(place)),
            _ => characters[place] = character,
        }
        characters.into_iter().collect()
    })
}

fn read_as_everything(text: &str) {
    let _ = PrivateKey::from_hex(text).map_err(|error| error.to_string());
    let _ = PublicKey::from_hex(text).map_err(|error| error.to_string());
    let _ = text.parse::<Address>().map_err(|error| error.to_string());
    if let Ok(signature) = text.parse::<Signature>() {
        let _ = signature.recover(text);
    }
    let _ = serde_json::from_str::<Address>(text);
}

proptest! {
    #[test]
    fn what_a_wallet_signs_recovers_to_its_address(wallet in any_wallet(), message: String, other: String) {
        let signature = wallet.sign(&message);
        prop_assert_eq!(signature.recover(&message), Some(wallet.address()));
        prop_assert!(signature.verify(&message, &wallet.address()));
        prop_assert_eq!(signature.verify(&other, &wallet.address()), other == message);
        prop_assert_eq!(&wallet.sign(&message), &signature, "the same text, the same signature");
        prop_assert_eq!(signature.to_hex().parse::<Signature>(), Ok(signature), "low, in range, id 00 or 01");
    }

    #[test]
    fn a_signature_is_no_other_wallet_s(one in any_wallet(), other in any_wallet(), message: String) {
        prop_assume!(one.address() != other.address());
        prop_assert!(!one.sign(&message).verify(&message, &other.address()));
    }

    #[test]
    fn texts_of_keys_and_addresses_read_back_as_themselves(wallet in any_wallet()) {
        let (key, address) = (wallet.private_key().to_hex(), wallet.address());
        prop_assert_eq!(PrivateKey::from_hex(&key).unwrap().to_hex(), key);
        prop_assert_eq!(wallet.public_key().to_string().parse(), Ok(*wallet.public_key()));
        prop_assert_eq!(address.to_string().parse(), Ok(address));
    }

    #[test]
    fn a_changed_letter_case_is_refused_unless_all_letters_are_upper_case_then(
        wallet in any_wallet(),
        place in 3..43_usize,
    ) {
        let mut text = wallet.address().to_string();
        let letter = text.remove(place);
        prop_assume!(letter.is_ascii_alphabetic());
        let flipped =
            if letter.is_ascii_lowercase() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
        text.insert(place, flipped);

        let all_upper = !text[3..].contains(|character: char| character.is_ascii_lowercase());
        let expected = if all_upper { Ok(wallet.address()) } else { Err(InvalidAddress::Checksum) };
        prop_assert_eq!(text.parse::<Address>(), expected);
    }

    #[test]
    fn addresses_sort_as_their_texts_do(one in any_wallet(), other in any_wallet()) {
        let (one, other) = (one.address(), other.address());
        prop_assert_eq!(one.cmp(&other), one.as_str().cmp(other.as_str()));
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in any::<String>()) {
        read_as_everything(&text);
    }

    #[test]
    fn no_text_close_to_a_good_one_makes_a_reader_panic(
        address in nearly(any_wallet().prop_map(|wallet| wallet.address().to_string())),
        public_key in nearly(any_wallet().prop_map(|wallet| wallet.public_key().to_string())),
        private_key in nearly("[0-9a-fA-F]{1,64}"),
        signature in nearly("[0-9a-fA-F]{128}0[01]"),
        digits in "[0-9a-fA-F]{128}0[01]",
    ) {
        for text in [address, public_key, private_key, signature, digits] {
            read_as_everything(&text);
        }
    }

    #[test]
    fn debug_output_never_shows_the_key(wallet in any_wallet()) {
        let key = wallet.private_key().to_hex();
        prop_assert_eq!(format!("{:?}", wallet.private_key()), "PrivateKey(..)");
        for shown in [format!("{wallet:?}"), format!("{wallet:#?}"), format!("{:#?}", wallet.private_key())] {
            // A run of 12 digits would be no accident, whatever its case.
            let shown = shown.to_lowercase();
            prop_assert!(key.as_bytes().windows(12).all(|run| {
                !shown.contains(std::str::from_utf8(run).unwrap())
            }), "{}", shown);
            prop_assert!(shown.contains(&wallet.address().to_string().to_lowercase()) || shown == "privatekey(..)");
        }
    }
}
