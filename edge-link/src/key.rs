//! Where a key comes from, and how a wallet file looks. A key is never printed or logged, and wiped from memory.

use std::{
    env,
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::Path,
};

use link_driver::{PrivateKey, Wallet, new_wallet};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{Failure, args::Key};

/// The environment variable that may hold a private key in hex.
const VARIABLE: &str = "LINK_PRIVATE_KEY";
/// No file that holds a key is longer than this.
const MAX_FILE: u64 = 64 << 10;

/// A wallet file. Other fields are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WalletFile<'a> {
    address: Option<String>,
    private_key: &'a str,
}

impl Key {
    /// The wallet that was asked for, or a fresh one.
    pub(crate) fn wallet(&self) -> Result<Wallet, Failure> {
        match self.given()? {
            Some(wallet) => Ok(wallet),
            None => new_wallet().map_err(Failure::failed),
        }
    }

    /// The wallet that was asked for.
    pub(crate) fn required(&self) -> Result<Wallet, Failure> {
        self.given()?.ok_or_else(|| {
            Failure::Usage(format!(
                "no key: give --wallet FILE or --private-key-file FILE, or set {VARIABLE}; \
                 `edge-link wallet new` makes a wallet"
            ))
        })
    }

    fn given(&self) -> Result<Option<Wallet>, Failure> {
        if let Some(path) = &self.wallet {
            return from_wallet_file(path).map(Some);
        }
        if let Some(path) = &self.private_key_file {
            let text = read(path)?;
            return from_hex(text.trim(), &path.display()).map(Some);
        }
        match env::var(VARIABLE).map(Zeroizing::new) {
            Ok(text) => from_hex(text.trim(), &VARIABLE).map(Some),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => {
                Err(Failure::Failed(format!("{VARIABLE}: a private key is 1 to 64 hex digits")))
            }
        }
    }
}

/// Makes a wallet file with a fresh wallet, which nobody else can read.
pub(crate) fn create(path: &Path) -> Result<Wallet, Failure> {
    let wallet = new_wallet().map_err(Failure::failed)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::Failed(format!("{} is there already, and is not overwritten", path.display()))
        }
        _ => Failure::Failed(format!("cannot make {}: {error}", path.display())),
    })?;
    let text = Zeroizing::new(format!(
        "{{\n  \"address\": \"{}\",\n  \"publicKey\": \"{}\",\n  \"privateKey\": \"{}\"\n}}\n",
        wallet.address(),
        wallet.public_key(),
        *wallet.private_key().to_hex(),
    ));
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a wallet is of no use to anybody.
        let _ = std::fs::remove_file(path);
        return Err(Failure::Failed(format!("cannot write {}: {error}", path.display())));
    }
    Ok(wallet)
}

fn from_wallet_file(path: &Path) -> Result<Wallet, Failure> {
    let text = read(path)?;
    // The parser's own message could quote the key.
    let file: WalletFile<'_> = serde_json::from_str(&text).map_err(|error| {
        Failure::Failed(format!(
            "{}: not a wallet file (a JSON object with `address`, `publicKey` and `privateKey`): line {}, column {}",
            path.display(),
            error.line(),
            error.column(),
        ))
    })?;
    let wallet = from_hex(file.private_key, &path.display())?;
    match file.address {
        Some(address) if address != wallet.address().as_str() => Err(Failure::Failed(format!(
            "{}: the private key belongs to {}, not to the address in the file; one of the two was changed",
            path.display(),
            wallet.address(),
        ))),
        _ => Ok(wallet),
    }
}

fn from_hex(text: &str, source: &impl std::fmt::Display) -> Result<Wallet, Failure> {
    match PrivateKey::from_hex(text) {
        Ok(key) => Ok(Wallet::from_private_key(key)),
        Err(error) => Err(Failure::Failed(format!("{source}: {error}"))),
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    // Somebody may have given the key itself.
    let looks_like_a_key =
        path.to_str().is_some_and(|text| text.len() >= 32 && text.chars().all(|c| c.is_ascii_hexdigit()));
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Failed(if looks_like_a_key {
            "cannot read the key file: what was given looks like a key; give the name of a file that holds it"
                .into()
        } else {
            format!("cannot read {}: {error}", path.display())
        })
    };
    let file = File::open(path).map_err(|error| failed(&error))?;
    warn_if_others_can_read(&file, path);
    // Room for all of it at once, so that no copy is left behind by a growing buffer.
    let room =
        usize::try_from(file.metadata().map_or(0, |metadata| metadata.len()).min(MAX_FILE)).unwrap_or(0);
    let mut text = Zeroizing::new(String::with_capacity(room.saturating_add(1)));
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| failed(&error))?;
    Ok(text)
}

fn warn_if_others_can_read(file: &File, path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0) {
            let path = path.display();
            let _ = writeln!(
                std::io::stderr(),
                "edge-link: warning: others can read {path}; `chmod 600 {path}` ends that"
            );
        }
    }
}
