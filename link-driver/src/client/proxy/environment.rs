//! The proxy that the environment names, in the manner of curl.

use std::{ffi::OsString, sync::Arc};

use super::{Bypass, InvalidProxy, Proxy, ProxyServer};

/// For a `wss://` server, in order. What comes first wins.
const FOR_WSS: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// For a `ws://` server. `HTTP_PROXY` is not among them: where a web server runs a program (CGI), whoever sends the request
/// sets that variable, by a header `Proxy`.
const FOR_WS: [&str; 3] = ["http_proxy", "all_proxy", "ALL_PROXY"];
const BYPASS: [&str; 2] = ["no_proxy", "NO_PROXY"];

impl Proxy {
    /// The proxies that the environment names, in the manner of curl. Nothing is read from the environment unless this is called.
    ///
    /// | for | is read, in this order; the first that is set and not empty counts |
    /// |---|---|
    /// | a `wss://` server | `https_proxy`, `HTTPS_PROXY`, `all_proxy`, `ALL_PROXY` |
    /// | a `ws://` server | `http_proxy` (in lower case only), `all_proxy`, `ALL_PROXY` |
    /// | servers that are reached directly | `no_proxy`, `NO_PROXY`: a list as [`except`](Self::except) takes it |
    ///
    /// The values are URLs as [`parse`](Self::parse) takes them. Where no variable is set, no proxy is used. The environment is
    /// read once, here, and not for each connection.
    ///
    /// # Errors
    /// When a variable that counts is not such a URL.
    pub fn from_env() -> Result<Self, InvalidProxy> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(read: impl Fn(&str) -> Option<OsString>) -> Result<Self, InvalidProxy> {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                read(name).filter(|value| !value.is_empty()).map(|value| (*name, value.into_string()))
            })
        };
        let server = |names: &[&'static str]| {
            let Some((name, value)) = first(names) else { return Ok(None) };
            let bad = |reason| InvalidProxy::Variable { name, reason };
            let url = value.map_err(|_| bad("it must be UTF-8"))?;
            ProxyServer::parse(url.trim()).map(|server| Some(Arc::new(server))).map_err(bad)
        };
        let bypass = match first(&BYPASS) {
            None => Bypass::default(),
            Some((_, Ok(list))) => Bypass::parse(&list),
            Some((name, Err(_))) => {
                return Err(InvalidProxy::Variable { name, reason: "it must be UTF-8" });
            }
        };
        Ok(Self { ws: server(&FOR_WS)?, wss: server(&FOR_WSS)?, bypass })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Target, *};

    /// The proxies for `ws://host` and `wss://host`.
    fn chosen(variables: &[(&str, &str)], host: &str) -> [String; 2] {
        let read =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let proxy = Proxy::from_variables(read).expect("a valid environment");
        [false, true].map(|tls| {
            let target = Target { host: host.into(), tls, ..Target::default() };
            proxy.server_for(&target).map_or("direct".into(), |server| server.host.clone())
        })
    }

    #[test]
    fn the_environment_is_read_in_the_order_of_curl() {
        for (variables, ws, wss) in [
            (&[][..], "direct", "direct"),
            (&[("HTTP_PROXY", "http://a")], "direct", "direct"),
            (&[("http_proxy", "http://a")], "a", "direct"),
            (&[("HTTPS_PROXY", "http://a")], "direct", "a"),
            (&[("HTTPS_PROXY", "http://a"), ("https_proxy", "http://b")], "direct", "b"),
            (&[("HTTPS_PROXY", "http://a"), ("https_proxy", "")], "direct", "a"),
            (&[("ALL_PROXY", "http://a")], "a", "a"),
            (&[("ALL_PROXY", "http://a"), ("all_proxy", "b")], "b", "b"),
            (&[("ALL_PROXY", "http://a"), ("https_proxy", "b")], "a", "b"),
            (&[("ALL_PROXY", "http://a"), ("http_proxy", "b")], "b", "a"),
            (&[("ALL_PROXY", "http://a"), ("NO_PROXY", "example.org")], "direct", "direct"),
            (&[("ALL_PROXY", "http://a"), ("NO_PROXY", "example.org"), ("no_proxy", "b")], "a", "a"),
            (&[("ALL_PROXY", "http://a"), ("NO_PROXY", "*")], "direct", "direct"),
        ] {
            assert_eq!(chosen(variables, "link.example.org"), [ws, wss], "{variables:?}");
        }
    }

    #[test]
    fn a_variable_that_is_no_proxy_is_named_and_its_value_is_not_shown() {
        let read = |name: &str| (name == "ALL_PROXY").then(|| "ftp://user:s3cret@proxy.example".into());
        let error = Proxy::from_variables(read).expect_err("ftp");
        assert!(matches!(error, InvalidProxy::Variable { name: "ALL_PROXY", .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }

    #[test]
    #[cfg(unix)]
    fn a_variable_that_is_not_utf_8_is_named() {
        use std::os::unix::ffi::OsStringExt as _;
        for bad in ["ALL_PROXY", "no_proxy"] {
            let read = |name: &str| (name == bad).then(|| OsString::from_vec(vec![b'h', 0xff]));
            let error = Proxy::from_variables(read).expect_err("not UTF-8");
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
