//! `edge-link wallet`, as a script sees it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use support::{ADDRESS, KEY, edge_link, finish, run};

fn with_key(args: &[&str], key: &str) -> support::Finished {
    let mut command = edge_link(args);
    command.env("LINK_PRIVATE_KEY", key);
    finish(command)
}

#[test]
fn a_new_wallet_goes_to_a_file_that_only_its_owner_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("me.json");
    let file = path.to_str().unwrap();

    let made = run(&["wallet", "new", "--out", file]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let wallet: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let text = |field: &str| wallet[field].as_str().unwrap().to_owned();
    assert_eq!(text("privateKey").len(), 64);
    assert!(!made.stdout.contains(&text("privateKey")) && !made.stderr.contains(&text("privateKey")));
    assert!(made.stdout.contains(&text("address")));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    let shown = run(&["wallet", "show", "--json", "--wallet", file]);
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["address"], wallet["address"]);
    assert_eq!(shown["publicKey"], wallet["publicKey"]);
    assert_eq!(shown.get("privateKey"), None);
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("me.json");
    std::fs::write(&path, "precious").unwrap();
    let refused = run(&["wallet", "new", "--out", path.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("not overwritten"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_signature_is_valid_for_its_text_and_address_only() {
    let signed = with_key(&["wallet", "sign", "1795372174071"], KEY);
    assert_eq!(signed.code, Some(0));
    let signature = signed.stdout.trim();
    assert_eq!(signature.len(), 130);
    let other = "xe_61db6997734714592fa3524Ee39a118A412Aaf0E";
    for (address, text, signature, code) in [
        (ADDRESS, "1795372174071", signature, 0),
        (ADDRESS, "1795372174072", signature, 1),
        (other, "1795372174071", signature, 1),
        (ADDRESS, "1795372174071", "abcd", 1),
        ("xe_12", "1795372174071", signature, 1),
    ] {
        let verified = run(&["wallet", "verify", address, text, signature]);
        assert_eq!(verified.code, Some(code), "{address} {text} {signature}: {verified:?}");
    }
}

#[test]
fn an_address_is_checked() {
    assert_eq!(run(&["wallet", "check", ADDRESS]).code, Some(0));
    for wrong in ["", "xe_", &ADDRESS.to_lowercase(), &ADDRESS[3..], &format!("{ADDRESS}0")] {
        let checked = run(&["wallet", "check", wrong]);
        assert_eq!(checked.code, Some(1), "{wrong}");
        assert!(checked.stderr.contains("not valid"), "{checked:?}");
    }
}

#[test]
fn a_key_comes_from_a_wallet_file_a_key_file_or_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key");
    std::fs::write(&key_file, format!("{KEY}\n")).unwrap();
    let wallet_file = folder.path().join("wallet.json");
    std::fs::write(&wallet_file, format!(r#"{{"address":"{ADDRESS}","privateKey":"{KEY}"}}"#)).unwrap();

    let from_key_file = run(&["wallet", "show", "--private-key-file", key_file.to_str().unwrap()]);
    let from_wallet = run(&["wallet", "show", "--wallet", wallet_file.to_str().unwrap()]);
    let from_environment = with_key(&["wallet", "show"], KEY);
    for shown in [from_key_file, from_wallet, from_environment] {
        assert_eq!(shown.code, Some(0));
        assert!(shown.stdout.contains(ADDRESS), "{shown:?}");
    }
}

#[test]
fn a_bad_key_is_an_error_that_says_what_to_do_and_repeats_none_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let secret = "77899554d233356bb0d911a64d75e200dc6387f8568c4f26b9c14a4bfacb2a4";
    let not_hex = file("a", &format!("{secret}g"));
    let not_json = file("b", &format!("privateKey: {secret}"));
    let altered = file("c", &format!(r#"{{"address":"{ADDRESS}","privateKey":"{secret}"}}"#));
    let wrong_kind = file("d", &format!(r#"{{"privateKey":["{secret}"]}}"#));
    let missing = folder.path().join("none").to_str().unwrap().to_owned();
    for (option, path, expected) in [
        ("--private-key-file", &not_hex, "hexadecimal"),
        ("--private-key-file", &missing, "cannot read"),
        ("--wallet", &not_json, "not a wallet file"),
        ("--wallet", &altered, "belongs to"),
        ("--wallet", &wrong_kind, "not a wallet file"),
    ] {
        let refused = run(&["wallet", "show", option, path]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(expected), "{refused:?}");
        assert!(!refused.stderr.contains(&secret[..16]), "{refused:?}");
    }
    let without = run(&["wallet", "show"]);
    assert_eq!(without.code, Some(2));
    assert!(without.stderr.contains("LINK_PRIVATE_KEY"), "{without:?}");
}
