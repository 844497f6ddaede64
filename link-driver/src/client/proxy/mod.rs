//! Which proxy a client goes through, if any.
//!
//! - this file: proxy URLs, and the choice between them.
//! - `environment`: `ALL_PROXY` and its relatives.
//! - `bypass`: which servers are reached directly, as in `NO_PROXY`.
//! - `connect`: from a connection to the proxy to one to the server.

mod bypass;
mod connect;
mod environment;

use std::{fmt, net::Ipv6Addr, sync::Arc};

use link_websocket::http::uri::Authority;
use percent_encoding::percent_decode_str;

use self::bypass::Bypass;
pub use self::connect::{ProxyError, SocksReply};
use super::dial::Target;

/// What a SOCKS5 proxy takes of a user name, and of a password, in bytes (RFC 1929).
const MAX_SOCKS_CREDENTIAL: usize = 255;

/// The proxy that a client connects through: HTTP `CONNECT`, or SOCKS5.
///
/// ```
/// # fn main() -> Result<(), link_driver::InvalidProxy> {
/// use link_driver::Proxy;
///
/// let proxy = Proxy::parse("socks5://user:password@proxy.example:1080")?.except("localhost, .internal.example, 10.0.0.0/8");
/// // The credentials are not shown.
/// assert_eq!(format!("{proxy:?}"), r#"Proxy { ws: "socks5://proxy.example:1080", wss: "socks5://proxy.example:1080" }"#);
/// # Ok(())
/// # }
/// ```
///
/// TLS (`wss://`) is spoken with the server, through the proxy, which cannot read it. With `ws://` the proxy can read and change
/// everything. What is said to the proxy itself, credentials included, goes over plain TCP.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    ws: Option<Arc<ProxyServer>>,
    wss: Option<Arc<ProxyServer>>,
    bypass: Bypass,
}

/// Something is wrong with a proxy's URL. The URL itself is not shown, since it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProxy {
    /// A URL.
    #[error("invalid proxy URL: {reason}")]
    Url {
        /// What is wrong with it, and what to do.
        reason: &'static str,
    },
    /// An environment variable.
    #[error("invalid proxy URL in the environment variable {name}: {reason}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong with it, and what to do.
        reason: &'static str,
    },
}

/// One proxy.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ProxyServer {
    protocol: Protocol,
    host: String,
    port: u16,
    credentials: Option<Credentials>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// HTTP `CONNECT` (RFC 9110 §9.3.6).
    Http,
    /// SOCKS5 (RFC 1928).
    Socks5 {
        /// Whether the server's name is resolved here, and not by the proxy.
        resolve_here: bool,
    },
}

/// Not `Debug`, so that they are never logged by accident.
#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    user: String,
    password: String,
}

impl Proxy {
    /// Reads the URL of a proxy, which is used for every server:
    ///
    /// | URL | default port | |
    /// |---|---|---|
    /// | `http://proxy.example:3128` | 80 | an HTTP proxy that allows `CONNECT`; the proxy resolves the server's name |
    /// | `socks5h://proxy.example:1080` | 1080 | a SOCKS5 proxy; the proxy resolves the server's name |
    /// | `socks5://proxy.example:1080` | 1080 | a SOCKS5 proxy; this machine resolves the server's name |
    ///
    /// Credentials go in front of the host: `socks5://user:password@proxy.example`. Percent-encode special characters in them, such
    /// as `@` as `%40`. Without a scheme it is an HTTP proxy.
    ///
    /// # Errors
    /// When it is not such a URL.
    pub fn parse(url: &str) -> Result<Self, InvalidProxy> {
        let server = ProxyServer::parse(url).map_err(|reason| InvalidProxy::Url { reason })?;
        let server = Some(Arc::new(server));
        Ok(Self { ws: server.clone(), wss: server, bypass: Bypass::default() })
    }

    /// Servers that are reached without the proxy, separated by commas or spaces, in place of those that were named before.
    /// An entry is one of these:
    ///
    /// - a name, such as `example.org` or `.example.org`: that host, and every host below it;
    /// - an IP address, or a network such as `10.0.0.0/8` or `fd00::/8`: matches servers that are given as an IP address, since
    ///   no name is resolved for this;
    /// - `*`: every server.
    ///
    /// Ports cannot be given. An entry that is none of these matches nothing.
    pub fn except(mut self, servers: &str) -> Self {
        self.bypass = Bypass::parse(servers);
        self
    }

    /// The proxy for this server; `None` when it is to be reached directly.
    pub(super) fn server_for(&self, target: &Target) -> Option<&ProxyServer> {
        let server = if target.tls { &self.wss } else { &self.ws };
        server.as_deref().filter(|_| !self.bypass.matches(&target.host))
    }
}

/// Without credentials.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            |server: &Option<Arc<ProxyServer>>| server.as_ref().map_or("none".into(), ToString::to_string);
        f.debug_struct("Proxy").field("ws", &shown(&self.ws)).field("wss", &shown(&self.wss)).finish()
    }
}

impl ProxyServer {
    fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (protocol, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Protocol::Http, 80),
            "socks5" => (Protocol::Socks5 { resolve_here: true }, 1080),
            "socks5h" => (Protocol::Socks5 { resolve_here: false }, 1080),
            "https" => {
                return Err(
                    "TLS to the proxy is not supported; use `http://` (wss:// servers stay encrypted)",
                );
            }
            "socks4" | "socks4a" => return Err("SOCKS4 is not supported; use `socks5://`"),
            _ => return Err("it must begin with `http://`, `socks5://` or `socks5h://`"),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains('@') {
            return Err("percent-encode `/`, `?` and `#` in the user name and the password");
        }
        if !matches!(path, "" | "/") {
            return Err("nothing may follow the port");
        }
        let (credentials, place) = match authority.rsplit_once('@') {
            Some(("" | ":", place)) => (None, place),
            Some((credentials, place)) => (Some(Credentials::parse(credentials, protocol)?), place),
            None => (None, authority),
        };
        let (host, port) = host_and_port(place)?;
        Ok(Self { protocol, host, port: port.unwrap_or(default_port), credentials })
    }
}

/// `scheme://host:port`, without credentials.
impl fmt::Display for ProxyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, host, port, .. } = self;
        let scheme = match protocol {
            Protocol::Http => "http",
            Protocol::Socks5 { resolve_here: true } => "socks5",
            Protocol::Socks5 { resolve_here: false } => "socks5h",
        };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

impl Credentials {
    fn parse(text: &str, protocol: Protocol) -> Result<Self, &'static str> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let decode = |text| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(String::from).map_err(|_| "the user name and the password must be UTF-8")
        };
        let (user, password) = (decode(user)?, decode(password)?);
        match protocol {
            Protocol::Http if user.contains(':') => Err("HTTP allows no `:` in a user name"),
            Protocol::Http if user.contains(char::is_control) || password.contains(char::is_control) => {
                Err("HTTP allows no control characters in a user name or a password")
            }
            Protocol::Socks5 { .. }
                if [&user, &password]
                    .iter()
                    .any(|part| !(1..=MAX_SOCKS_CREDENTIAL).contains(&part.len())) =>
            {
                Err("SOCKS5 takes a user name and a password of 1 to 255 bytes each")
            }
            _ => Ok(Self { user, password }),
        }
    }
}

fn host_and_port(place: &str) -> Result<(String, Option<u16>), &'static str> {
    const NO_HOST: &str =
        "there is no valid host; a proxy URL looks like `socks5://user:password@proxy.example:1080`";
    let authority = Authority::try_from(place).map_err(|_| NO_HOST)?;
    let host = authority.host();
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
        Some(_) => return Err("in brackets there must be an IPv6 address"),
        None if host.is_empty() || host.contains(['[', ']']) => return Err(NO_HOST),
        None => host,
    };
    let port = match place.get(authority.host().len()..) {
        None | Some("") => None,
        Some(_) => match authority.port_u16() {
            None | Some(0) => return Err("the port must be a number from 1 to 65535"),
            port => port,
        },
    };
    Ok((host.into(), port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(url: &str) -> (String, Option<(String, String)>) {
        let server = ProxyServer::parse(url).unwrap_or_else(|reason| panic!("{url}: {reason}"));
        (server.to_string(), server.credentials.map(|Credentials { user, password }| (user, password)))
    }

    #[test]
    fn a_url_says_which_protocol_where_and_as_whom() {
        for (url, shown, credentials) in [
            ("http://proxy.example", "http://proxy.example:80", None),
            ("proxy.example:3128", "http://proxy.example:3128", None),
            ("HTTP://proxy.example:3128/", "http://proxy.example:3128", None),
            ("socks5://127.0.0.1", "socks5://127.0.0.1:1080", None),
            ("socks5h://[::1]:9050", "socks5h://[::1]:9050", None),
            ("socks5h://[::1]", "socks5h://[::1]:1080", None),
            ("http://@proxy.example:1", "http://proxy.example:1", None),
            ("http://:@proxy.example:1", "http://proxy.example:1", None),
            ("http://user@proxy.example", "http://proxy.example:80", Some(("user", ""))),
            ("http://:key@proxy.example", "http://proxy.example:80", Some(("", "key"))),
            ("user:a:b@proxy.example:1", "http://proxy.example:1", Some(("user", "a:b"))),
            ("socks5://us%40er:p%C3%A4%3Ass@h:1", "socks5://h:1", Some(("us@er", "pä:ss"))),
            ("socks5://user:p@ss@h:1", "socks5://h:1", Some(("user", "p@ss"))),
        ] {
            let credentials =
                credentials.map(|(user, password): (&str, &str)| (user.into(), password.into()));
            assert_eq!(read(url), (shown.into(), credentials), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_the_password() {
        let long = format!("socks5://user:{}@h", "s3cret".repeat(43));
        for (url, said) in [
            ("", "no valid host"),
            ("http://", "no valid host"),
            ("http://:3128", "no valid host"),
            ("http://user:s3cret@", "no valid host"),
            ("http://us er:s3cret@h o", "no valid host"),
            ("http://user:s3cret", "port must be a number"),
            ("http://h:0", "port must be a number"),
            ("http://h:", "port must be a number"),
            ("http://user:s3cret@h:65536", "port must be a number"),
            ("http://[h]:1", "IPv6"),
            ("http://[::1:1", "no valid host"),
            ("http://h:1/path", "nothing may follow"),
            ("http://user:s3cret/@h:1", "percent-encode"),
            ("https://user:s3cret@h:1", "TLS to the proxy is not supported"),
            ("socks4a://h:1", "SOCKS4 is not supported"),
            ("ftp://user:s3cret@h:1", "must begin with"),
            ("http://us%3aer:s3cret@h:1", "no `:`"),
            ("http://user:s3cret%0d%0a@h:1", "control characters"),
            ("http://user:s3cret%ff@h:1", "UTF-8"),
            ("socks5://user@h:1", "1 to 255 bytes"),
            ("socks5://:s3cret@h:1", "1 to 255 bytes"),
            (&long, "1 to 255 bytes"),
        ] {
            let error = Proxy::parse(url).expect_err(url);
            let text = format!("{error} {error:?}");
            assert!(text.contains(said), "{url}: {text}");
            assert!(!text.contains("s3cret"), "{url}: {text}");
        }
    }

    #[test]
    fn credentials_are_not_in_what_is_shown() {
        let proxy = Proxy::parse("http://us3r:s3cret@proxy.example:3128").expect("a URL");
        let builder = format!("{proxy:?} {}", proxy.ws.as_ref().expect("there is one"));
        assert!(builder.contains("proxy.example:3128"), "{builder}");
        assert!(!builder.contains("s3cret") && !builder.contains("us3r"), "{builder}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_proxy_or_an_error(text in "\\PC*", scheme in "(http|socks5|socks5h)://") {
            let _ = Proxy::parse(&text);
            let _ = Proxy::parse(&format!("{scheme}{text}"));
        }

        #[test]
        fn what_is_shown_of_a_proxy_is_a_url_of_it(host in "[a-z0-9][a-z0-9.-]{0,20}", port in 1..=u16::MAX) {
            let shown = read(&format!("socks5://user:password@{host}:{port}")).0;
            prop_assert_eq!(read(&shown), (shown.clone(), None));
        }
    }
}
