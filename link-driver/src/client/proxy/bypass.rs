//! Which servers are reached without a proxy.

use std::net::IpAddr;

/// A list as in `NO_PROXY`: see [`Proxy::except`](super::Proxy::except).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bypass(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Everything,
    /// An IP address has the length of its kind, 32 or 128.
    Network {
        address: IpAddr,
        length: u32,
    },
    /// In lower case, without a dot at either end.
    Domain(String),
}

impl Bypass {
    pub(super) fn parse(list: &str) -> Self {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty());
        Self(entries.filter_map(Entry::parse).collect())
    }

    pub(super) fn matches(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        self.0.iter().any(|entry| match (entry, address) {
            (Entry::Everything, _) => true,
            (Entry::Network { address: network, length }, Some(address)) => {
                shares(*network, address, *length)
            }
            (Entry::Domain(domain), None) => {
                host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            _ => false,
        })
    }
}

impl Entry {
    /// `None` for what matches nothing.
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Everything);
        }
        let (place, length) = match text.split_once('/') {
            Some((place, length)) => (place, Some(length.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let bare = place.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(place);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let length = length.unwrap_or(bits);
            return (length <= bits).then(|| match (address, address.to_canonical()) {
                // An IPv4 network that is written as one of IPv6.
                (IpAddr::V6(_), short @ IpAddr::V4(_)) if length >= 96 => {
                    Self::Network { address: short, length: length.saturating_sub(96) }
                }
                _ => Self::Network { address, length },
            });
        }
        let domain = place.trim_matches('.').to_ascii_lowercase();
        (length.is_none() && !domain.is_empty()).then_some(Self::Domain(domain))
    }
}

/// Whether two addresses begin with the same so many bits.
fn shares(a: IpAddr, b: IpAddr, length: u32) -> bool {
    let (differing, bits) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits() ^ b.to_bits()), 32_u32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits(), 128),
        _ => return false,
    };
    // Shifting by all 128 bits leaves nothing, which is what a length of 0 means.
    differing.checked_shr(bits.saturating_sub(length)).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_server_is_reached_directly_when_an_entry_names_it() {
        for (list, host, matches) in [
            ("", "example.org", false),
            (" , ,", "example.org", false),
            ("*", "example.org", true),
            ("*", "10.0.0.1", true),
            ("example.org", "example.org", true),
            ("example.org", "EXAMPLE.org.", true),
            ("Example.ORG.", "example.org", true),
            ("example.org", "link.example.org", true),
            ("example.org", "notexample.org", false),
            ("example.org", "example.org.evil", false),
            ("example.org", "org", false),
            (".example.org", "example.org", true),
            (".example.org", "link.example.org", true),
            (".example.org", "notexample.org", false),
            (".", "example.org", false),
            ("*.example.org", "link.example.org", false),
            ("a, example.org\tb", "example.org", true),
            ("a b", "b", true),
            ("localhost", "localhost", true),
            ("localhost", "127.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.1", "127.0.0.1", false),
            ("10.0.0.0/8", "10.200.3.4", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.9.9.9/8", "10.0.0.1", true),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.168.1.128/25", "192.168.1.127", false),
            ("192.168.1.128/25", "192.168.1.128", true),
            ("192.168.1.1/32", "192.168.1.1", true),
            ("192.168.1.1/33", "192.168.1.1", false),
            ("192.168.1.1/-1", "192.168.1.1", false),
            ("192.168.1.1/", "192.168.1.1", false),
            ("10.0.0.0/8", "example.org", false),
            ("example.org/8", "example.org", false),
            ("example.org:443", "example.org", false),
            ("::1", "::1", true),
            ("[::1]", "::1", true),
            ("::1", "0:0:0:0:0:0:0:1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::/0", "2001:db8::1", true),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
        ] {
            assert_eq!(Bypass::parse(list).matches(host), matches, "{host} by {list:?}");
        }
    }

    proptest! {
        #[test]
        fn any_list_is_one_and_any_host_can_be_looked_up(list in "\\PC*", host in "\\PC*") {
            Bypass::parse(&list).matches(&host);
        }

        #[test]
        fn a_network_holds_exactly_the_addresses_that_begin_with_its_bits(a: u32, b: u32, length in 0..=32_u32) {
            let [a, b] = [a, b].map(std::net::Ipv4Addr::from_bits);
            let same = (a.to_bits() ^ b.to_bits()).leading_zeros() >= length;
            let list = format!("{a}/{length}");
            prop_assert_eq!(Bypass::parse(&list).matches(&b.to_string()), same);
        }
    }
}
