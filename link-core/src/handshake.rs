//! The v1 handshake: each side proves its address by signing its clock. (`WIRE.md`, 'Handshake'.)

use alloc::{borrow::Cow, string::ToString};
use core::time::Duration;

use bytestring::ByteString;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny},
};

use crate::{
    error::Violation,
    identity::{Address, Signature, Wallet},
    message::{self, Message},
    time::UnixMillis,
};

/// What a peer has proved: that the wallet of `address` signed `timestamp`, lately.
///
/// It proves nothing about *for whom*: a server can pass a client's proof on to another server within the
/// window. (That is v1; see the README on what it does not protect against.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// The address whose wallet signed.
    pub address: Address,
    /// The Unix time that it signed.
    pub timestamp: UnixMillis,
}

/// The `authenticate` message of `wallet` at `now`.
pub(crate) fn prove(wallet: &Wallet, now: UnixMillis) -> ByteString {
    let signature = wallet.sign(&now.to_string());
    message::authenticate(wallet.address().as_str(), now, &signature.to_string())
}

/// Checks an `authenticate` message: shape, then timestamp, then signature.
pub(crate) fn verify(message: &Message, now: UnixMillis, window: Duration) -> Result<Proof, Violation> {
    let Ok(Authenticate { address, timestamp: Timestamp(timestamp), signature, .. }) =
        serde_json::from_str(message.as_str())
    else {
        return Err(Violation::MalformedProof);
    };
    if timestamp.distance(now) > window {
        return Err(Violation::StaleProof);
    }
    let signature: Signature = signature.parse().map_err(|_| Violation::BadSignature)?;
    match signature.recover(&timestamp.to_string()) {
        // As texts: an address has one spelling on the wire.
        Some(signer) if signer.as_str() == address => Ok(Proof { address: signer, timestamp }),
        _ => Err(Violation::BadSignature),
    }
}

/// The four fields. Others are passed over; one that comes twice is refused, since two readers might
/// disagree on which of them counts.
#[derive(Deserialize)]
struct Authenticate<'a> {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    #[serde(borrow)]
    address: Cow<'a, str>,
    timestamp: Timestamp,
    #[serde(borrow)]
    signature: Cow<'a, str>,
}

/// A JSON integer from 0 to 2^53 − 1. Not `1.7e12`, not `1700000000000.0`, not a text.
struct Timestamp(UnixMillis);

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let millis = u64::deserialize(deserializer)?;
        UnixMillis::new(millis).map(Self).ok_or_else(|| D::Error::custom("beyond 2^53 - 1"))
    }
}
