//! TLS under the WebSocket, the same code on every runtime.
//!
//! The cryptography is ring's, unless the program has installed another provider with
//! [`rustls::crypto::CryptoProvider::install_default`], or brings a configuration of its own.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_rustls::rustls::{
    self, CertificateError, ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject},
};

/// Where a server's TLS comes from.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerTls {
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) config: Option<Arc<ServerConfig>>,
}

/// Where a client's TLS comes from.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientTls {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) config: Option<Arc<ClientConfig>>,
}

/// Why TLS cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is a key without a certificate, or a certificate without a key.
    #[error(
        "TLS needs both a certificate (`tls_cert`) and its key (`tls_key`), and only one of them was given"
    )]
    Half,
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A file is not what it was given as.
    #[error("{} holds no {expected} in PEM (a text with a line `-----BEGIN {label}-----`)", .path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
        /// How that begins.
        label: &'static str,
    },
    /// The key is not the certificate's.
    #[error(
        "the key does not belong to the certificate: one of the two files is another server's, or an older one"
    )]
    Mismatch,
    /// What was given is refused for another reason.
    #[error("the certificate or its key cannot be used: {0}")]
    Unusable(String),
    /// The name cannot be in a certificate.
    #[error("{0:?} is not a name that a certificate can be issued for")]
    Name(String),
}

impl ServerTls {
    /// The configuration that was asked for; `None` for plain TCP.
    pub(crate) fn resolve(self) -> Result<Option<Arc<ServerConfig>>, TlsError> {
        let (certificate, key) = match (self.config, self.certificate, self.key) {
            (Some(config), _, _) => return Ok(Some(config)),
            (None, None, None) => return Ok(None),
            (None, Some(certificate), Some(key)) => (certificate, key),
            (None, _, _) => return Err(TlsError::Half),
        };
        let chain = certificates(&certificate)?;
        let key = PrivateKeyDer::from_pem_file(&key)
            .map_err(|error| pem_error(&key, &error, "private key", "PRIVATE KEY"))?;
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map(|config| Some(Arc::new(config)))
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => TlsError::Mismatch,
                other => TlsError::Unusable(other.to_string()),
            })
    }
}

impl ClientTls {
    /// The configuration that was asked for; by default, the roots that browsers trust.
    pub(crate) fn resolve(self) -> Result<Arc<ClientConfig>, TlsError> {
        if let Some(config) = self.config {
            return Ok(config);
        }
        let mut roots = RootCertStore::empty();
        match &self.ca {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| TlsError::Unusable(error.to_string()))?;
                }
            }
        }
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map(|builder| Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
            .map_err(|error| TlsError::Unusable(error.to_string()))
    }
}

/// The name that a server's certificate has to be for.
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.into()))
}

/// What went wrong in a handshake, in words that say what to do.
pub(crate) fn explain(error: &io::Error) -> String {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                "it ended the connection during the TLS handshake; does it speak TLS?".into()
            }
            _ => error.to_string(),
        };
    };
    match error {
        rustls::Error::InvalidMessage(_) => "it does not speak TLS; use `ws://`".into(),
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired".into()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; is this machine's clock right?".into()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("its certificate is for another name: {problem}")
            }
            CertificateError::UnknownIssuer => {
                "certificate issued by an untrusted CA; if you trust it, give its certificate as a CA file"
                    .into()
            }
            // By far the commonest cause: an authority of one's own that was made anew, under its old name.
            CertificateError::BadSignature => {
                "a signature of its certificate or its handshake is wrong; if its \
                                               issuer was made anew, give the new one as a CA file"
                    .into()
            }
            other => format!("its certificate is not valid: {other}"),
        },
        other => format!("the TLS handshake failed: {other}"),
    }
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |error: &pem::Error| pem_error(path, error, "certificate", "CERTIFICATE");
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?.collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(wrong(&pem::Error::NoItemsFound)),
        Ok(chain) => Ok(chain),
        Err(error) => Err(wrong(&error)),
    }
}

fn pem_error(path: &Path, error: &pem::Error, expected: &'static str, label: &'static str) -> TlsError {
    match error {
        pem::Error::Io(error) => TlsError::File { path: path.into(), reason: error.to_string() },
        _ => TlsError::Content { path: path.into(), expected, label },
    }
}
