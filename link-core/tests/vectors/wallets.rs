//! Whose wallets the files use.

use std::sync::LazyLock;

use link_core::{Address, Wallet};
use serde::Serialize;

const SERVER_KEY: &str = "497f28f699fbb659d402c800a79e03f8a68a04984c210171c0802fd0e43ad233";
const CLIENT_KEY: &str = "77899554d233356bb0d911a64d75e200dc6387f8568c4f26b9c14a4bfacb2a4f";
/// Its leading zeros are missing, as they may be.
const OTHER_KEY: &str = "abc";

pub(super) static SERVER: LazyLock<Wallet> = LazyLock::new(|| wallet(SERVER_KEY));
pub(super) static CLIENT: LazyLock<Wallet> = LazyLock::new(|| wallet(CLIENT_KEY));
/// Somebody who is neither.
pub(super) static OTHER: LazyLock<Wallet> = LazyLock::new(|| wallet(OTHER_KEY));

fn wallet(private_key: &str) -> Wallet {
    Wallet::from_private_key(private_key.parse().unwrap())
}

/// The wallets as every file gives them.
#[derive(Serialize)]
pub(super) struct Wallets {
    server: Row,
    client: Row,
    other: Row,
}

#[derive(Serialize)]
struct Row {
    private_key: &'static str,
    address: Address,
}

impl Wallets {
    pub(super) fn all() -> Self {
        let row = |private_key, wallet: &Wallet| Row { private_key, address: wallet.address() };
        Self {
            server: row(SERVER_KEY, &SERVER),
            client: row(CLIENT_KEY, &CLIENT),
            other: row(OTHER_KEY, &OTHER),
        }
    }
}
