//! `edge-link wallet`: make and use wallets.

use link_driver::{Address, Signature};
use serde_json::json;

use crate::{Failure, args::Wallet, key, output::print};

pub(crate) fn run(command: Wallet) -> Result<(), Failure> {
    match command {
        Wallet::New { out } => {
            let wallet = key::create(&out)?;
            print(&format!("{}\nin {}: keep it secret, and keep a copy", wallet.address(), out.display()))?;
        }
        Wallet::Show { key, json } => {
            let wallet = key.required()?;
            let (address, public_key) = (wallet.address(), wallet.public_key());
            if json {
                let fields = json!({
                    "address": address.as_str(),
                    "shortAddress": address.short().to_string(),
                    "publicKey": public_key.as_str(),
                });
                print(&fields.to_string())?;
            } else {
                print(&format!("address     {address}\npublic key  {public_key}"))?;
            }
        }
        Wallet::Sign { text, key } => print(&key.required()?.sign(&text).to_string())?,
        Wallet::Verify { address, text, signature } => {
            let address = parse_address(&address)?;
            let signature: Signature = signature
                .parse()
                .map_err(|error| Failure::Failed(format!("not valid: the signature is none: {error}")))?;
            match signature.recover(&text) {
                Some(signer) if signer == address => print("valid")?,
                Some(signer) => {
                    return Err(Failure::Failed(format!(
                        "not valid: for this text, the signature is by {signer}"
                    )));
                }
                None => return Err(Failure::failed("not valid: nobody made this signature for this text")),
            }
        }
        Wallet::Check { address } => {
            parse_address(&address)?;
            print("valid")?;
        }
    }
    Ok(())
}

fn parse_address(text: &str) -> Result<Address, Failure> {
    text.parse().map_err(|error| Failure::Failed(format!("not valid: {text:?}: {error}")))
}
