//! What a miner states as its address.

use crate::fragment_store::Reach;
use reqwest::Url;

/// The URL base behind a miner's endpoint text (facts 3.1): cut at the first NUL, `http://` added where no scheme is. The
/// network's own clients add it to `https://` too, which leads nowhere; we do not.
///
/// Scheme, host and port, and nothing else: paths, queries and users would make it a request of the miner's choice. `None` for
/// everything that is more or less than that, and for a host out of reach.
pub(super) fn endpoint_url(text: &[u8], reach: Reach) -> Option<String> {
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = std::str::from_utf8(text).ok()?.trim();
    // The parser of URLs drops or mends these without a word.
    if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
        return None;
    }
    let text = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let url = Url::parse(&text).ok()?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none() && !text.contains('@');
    if !matches!(url.scheme(), "http" | "https") || !bare || !anonymous || !reach.allows_host(url.host_str()?) {
        return None;
    }
    Some(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_texts_become_urls() {
        for (text, want) in [
            ("1.2.3.4:15001", Some("http://1.2.3.4:15001")),
            ("http://miner.example:8080/", Some("http://miner.example:8080")),
            ("http://miner.example:80/", Some("http://miner.example")),
            ("https://miner.example", Some("https://miner.example")),
            ("http://a.example\0\0\0rest", Some("http://a.example")),
            (" a.example:1 ", Some("http://a.example:1")),
            ("[2606:4700::1]:80", Some("http://[2606:4700::1]")),
            ("", None),
            ("\0", None),
            ("a b", None),
            ("a\nb", None),
        ] {
            assert_eq!(
                endpoint_url(text.as_bytes(), Reach::Public).as_deref(),
                want,
                "{text:?}"
            );
        }
        assert_eq!(endpoint_url(&[0xff, 0xfe], Reach::Public), None);
    }

    #[test]
    fn an_endpoint_is_a_host_and_a_port_and_nothing_else() {
        for text in [
            "http://1.2.3.4/admin?x=",
            "http://1.2.3.4/x/..%2f",
            "http://1.2.3.4?x",
            "http://1.2.3.4/#",
            "http://user@1.2.3.4",
            "http://:@1.2.3.4",
            "http://1.2.3.4\\x",
            "ftp://1.2.3.4",
            "file:///etc/passwd",
            "http://",
            "1.2.3.4:99999",
            "http://http://1.2.3.4",
        ] {
            assert_eq!(endpoint_url(text.as_bytes(), Reach::Anywhere), None, "{text:?}");
        }
    }

    #[test]
    fn a_miner_of_a_public_network_is_on_no_private_address() {
        for text in [
            "127.0.0.1:9944",
            "2130706433",
            "0x7f.1",
            "http://[::1]:80",
            "localhost",
            "10.1.2.3",
            "router",
        ] {
            assert_eq!(endpoint_url(text.as_bytes(), Reach::Public), None, "{text:?}");
            assert!(endpoint_url(text.as_bytes(), Reach::Anywhere).is_some(), "{text:?}");
        }
    }
}
