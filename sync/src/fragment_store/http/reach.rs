//! Which addresses may be a miner's.
//!
//! A miner states its own address, and a request goes wherever that leads. Miners of a public network are on public
//! addresses: one that names this machine, its network or its neighbours would have us knock on doors that are not open to
//! strangers. Where the node itself is on this machine or on a private network, so are its miners, and nothing is refused.

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where miners may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On public addresses only.
    Public,
    /// Anywhere.
    Anywhere,
}

/// Ends of names that the public DNS does not have.
const PRIVATE_ENDS: [&str; 5] = [".localhost", ".local", ".internal", ".lan", ".home.arpa"];

impl Reach {
    /// Where the miners of the node at `rpc` may be. A node that is given by name counts as private only if the public DNS
    /// cannot have that name: its owner could make it lead anywhere.
    pub fn beside(rpc: &str) -> Reach {
        let url = Url::parse(rpc).ok();
        match url.as_ref().and_then(Url::host_str).is_some_and(is_private) {
            true => Reach::Anywhere,
            false => Reach::Public,
        }
    }

    /// Whether a miner may be at a host as a URL has it. What a name leads to is seen when it is asked for.
    pub(crate) fn allows_host(self, host: &str) -> bool {
        self == Reach::Anywhere || !is_private(host)
    }

    fn allows(self, address: IpAddr) -> bool {
        self == Reach::Anywhere || is_public(address)
    }
}

fn is_private(host: &str) -> bool {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Ok(address) = literal.unwrap_or(host).parse() {
        return !is_public(address);
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    !name.contains('.') || PRIVATE_ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether an address can be that of a stranger on the internet (the IANA's registries of special-purpose addresses).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => is_public_v4(inner),
            // Global unicast, without the addresses of documentation: the rest is loopback, link, site, group or nobody.
            None => address.segments()[0] >> 13 == 1 && address.segments()[..2] != [0x2001, 0xdb8],
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        [0, ..] | [240..=255, ..] => true,
        // Between a provider and its customers, and tests of networks.
        [100, second, ..] => second >> 6 == 1,
        [198, second, ..] => second >> 1 == 9,
        [192, 0, 0, _] => true,
        _ => false,
    };
    !(special
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

/// The older address that a newer one stands for: mapped, translated (64:ff9b::/96), 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

/// The system's resolver, without the addresses that a miner may not have.
pub(crate) struct Within(pub(crate) Reach);

impl Resolve for Within {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            // The port is the URL's; this one is replaced.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(within(reach, name.as_str(), &found)?)
        })
    }
}

/// Those of a name's addresses that may be a miner's.
fn within(reach: Reach, name: &str, found: &[SocketAddr]) -> std::io::Result<Addrs> {
    let allowed: Vec<SocketAddr> = found.iter().copied().filter(|at| reach.allows(at.ip())).collect();
    match allowed.is_empty() {
        true => Err(std::io::Error::other(format!(
            "{name} has no address that may be a miner's"
        ))),
        false => Ok(Box::new(allowed.into_iter())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_strangers_are_public() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "192.0.0.8",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "fec0::1",
            "::7f00:1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.2.3.4",
            "100.128.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "2606:4700::1",
            "::ffff:1.2.3.4",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_private_node_has_private_miners() {
        for rpc in [
            "ws://127.0.0.1:9944",
            "ws://localhost:9944",
            "ws://[::1]:1",
            "wss://192.168.0.9",
            "ws://node:9944",
            "ws://node.lan",
            "ws://NODE.local.",
        ] {
            assert_eq!(Reach::beside(rpc), Reach::Anywhere, "{rpc}");
        }
        for rpc in [
            "wss://t2-rpc.cess.network",
            "ws://1.2.3.4:9944",
            "ws://local.example",
            "nonsense",
            "",
        ] {
            assert_eq!(Reach::beside(rpc), Reach::Public, "{rpc}");
        }
    }

    #[test]
    fn of_a_name_only_public_addresses_are_asked() {
        let found: Vec<SocketAddr> = ["10.0.0.1:0", "1.2.3.4:0", "[::1]:0"]
            .map(|at| at.parse().unwrap())
            .into();
        let kept = |reach| within(reach, "miner.example", &found).map(Iterator::collect::<Vec<_>>);
        assert_eq!(kept(Reach::Public).unwrap(), found[1..2]);
        assert_eq!(kept(Reach::Anywhere).unwrap(), found);
        assert!(within(Reach::Public, "miner.example", &found[..1]).is_err());
    }
}
