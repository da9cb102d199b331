//! Addresses of the web: where a redirect leads, and to whom.

/// Scheme, host and port of an address: `https://huggingface.co:443`.
pub(crate) fn site(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    let (scheme, port) = match scheme.to_ascii_lowercase().as_str() {
        "https" => ("https", "443"),
        "http" => ("http", "80"),
        _ => return None,
    };
    let has_port =
        host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    Some((scheme.to_owned(), if has_port { host } else { format!("{host}:{port}") }))
}

/// Whether an address is of this machine, which no proxy is asked for.
pub(crate) fn is_loopback(endpoint: &str) -> bool {
    site(endpoint).is_some_and(|(_, host)| {
        let host = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host);
        host == "localhost"
            || host == "[::1]"
            || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
    })
}

/// Where a `Location` leads from an address.
pub(crate) fn joined(url: &str, location: &str) -> String {
    if location.contains("://") {
        return location.to_owned();
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some(other) = location.strip_prefix("//") {
        return format!("{scheme}://{other}");
    }
    if location.starts_with('/') {
        return format!("{scheme}://{host}{location}");
    }
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let folder = path.rsplit_once('/').map_or(path, |(folder, _)| folder);
    format!("{scheme}://{folder}/{location}")
}

/// Percent-encoded, but for what never needs it and for `kept`.
pub(crate) fn encoded(text: &str, kept: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || kept.as_bytes().contains(&byte);
    let byte = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined_as_browsers_do() {
        let from = "https://hub/a/resolve/main/f?x=/1";
        for (location, expected) in [
            ("https://cdn/x?y", "https://cdn/x?y"),
            ("//cdn/x", "https://cdn/x"),
            ("/api/x", "https://hub/api/x"),
            ("g", "https://hub/a/resolve/main/g"),
        ] {
            assert_eq!(joined(from, location), expected);
        }
        assert_eq!(encoded("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(encoded("a b/é.txt", "/"), "a%20b/%C3%A9.txt");
    }

    #[test]
    fn a_site_is_scheme_host_and_port() {
        assert_eq!(site("https://huggingface.co/x"), site("HTTPS://HuggingFace.co:443"));
        for other in [
            "https://huggingface.co.evil.org/x",
            "http://huggingface.co/x",
            "https://huggingface.co:444/x",
            "https://huggingface.co@evil.org/x",
            "https://cdn.huggingface.co/x",
            "ftp://huggingface.co",
        ] {
            assert_ne!(site("https://huggingface.co"), site(other), "{other}");
        }
        for (address, expected) in [
            ("http://127.0.0.1:80", true),
            ("http://localhost", true),
            ("http://[::1]:8080", true),
            ("https://huggingface.co", false),
        ] {
            assert_eq!(is_loopback(address), expected, "{address}");
        }
    }
}
