//! Who may ask, and what every answer says of itself.
//!
//! A page of the web can make a browser send requests to this machine. `Origin` names the page that sends one, so another than ours
//! is refused. A page whose name is made to mean `127.0.0.1` (DNS rebinding) counts as ours for the browser, but its name stands in
//! `Host`: only addresses and `localhost` are taken there, which no one can rebind.

use crate::CONTENT_SECURITY_POLICY;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use std::net::{IpAddr, SocketAddr};

/// Which `Host` is ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    /// Where the server listens.
    pub address: SocketAddr,
}

impl Guard {
    /// Refuses a request that is not of our page, in one line.
    pub fn check(self, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        let host = only(headers, &header::HOST)?.ok_or_else(|| self.refusal("a request without Host"))?;
        let named = uri.authority().map(Authority::as_str);
        if !self.is_ours(host) || named.is_some_and(|name| !self.is_ours(name)) {
            return Err(self.refusal(&format!("Host {}", shown(named.unwrap_or(host)))));
        }
        if let Some(origin) = only(headers, &header::ORIGIN)?
            && origin.strip_prefix("http://").is_none_or(|origin| !origin.eq_ignore_ascii_case(host))
        {
            return Err(self.refusal(&format!("a page of {}", shown(origin))));
        }
        Ok(())
    }

    fn refusal(self, what: &str) -> String {
        let address = match self.address.ip() {
            ip if ip.is_unspecified() => SocketAddr::new(IpAddr::from([127, 0, 0, 1]), self.address.port()),
            _ => self.address,
        };
        format!("This server does not answer {what}. Open http://{address}/ itself.")
    }

    /// Whether a `Host` names an address where this server listens: one of the machine itself, or any where others may connect.
    fn is_ours(self, host: &str) -> bool {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port),
            _ => (host, "80"),
        };
        let is_port = port.bytes().all(|b| b.is_ascii_digit()) && port.parse() == Ok(self.address.port());
        let address = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            Some(v6) => v6.parse().ok().map(IpAddr::V6),
            None => name.parse().ok().map(IpAddr::V4),
        };
        let is_name = match address {
            Some(address) => address.is_loopback() || !self.address.ip().is_loopback(),
            None => name.eq_ignore_ascii_case("localhost"),
        };
        is_port && is_name
    }
}

/// The value of a header that may stand there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(HeaderValue::to_str).transpose();
    match (value, values.next()) {
        (Ok(value), None) => Ok(value),
        _ => Err(format!("The header {name} stands there twice, or is no text.")),
    }
}

/// A name of somebody else, short.
fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}

/// What every answer says.
pub(super) fn seal(headers: &mut HeaderMap) {
    let lines = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        // Another version of the program has another page at the same address.
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in lines {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listens: &str, host: Option<&str>, origin: Option<&str>) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            value.map(|value| headers.insert(name, HeaderValue::from_str(value).unwrap()));
        }
        Guard { address: listens.parse().unwrap() }.check(&Uri::from_static("/api/run"), &headers)
    }

    #[test]
    fn the_machine_itself_is_ours_and_names_are_not() {
        for host in ["127.0.0.1:70", "localhost:70", "LOCALHOST:70", "[::1]:70", "127.9.9.9:70"] {
            assert_eq!(check("127.0.0.1:70", Some(host), None), Ok(()), "{host}");
            assert_eq!(check("0.0.0.0:70", Some(host), Some(&format!("http://{host}"))), Ok(()));
        }
        let others = [
            "evil.example:70",
            "127.0.0.1",
            "127.0.0.1:71",
            "localhost.evil.example:70",
            "",
            ":70",
            "[::1]",
            "127.0.0.1:70:70",
            "192.168.0.3:70",
            "127.0.0.1:+70",
            "[127.0.0.1]:70",
            "::1:70",
            "localhost:",
        ];
        for host in others {
            let refused = check("127.0.0.1:70", Some(host), None).unwrap_err();
            assert!(refused.contains("http://127.0.0.1:70/"), "{refused}");
        }
        assert!(check("127.0.0.1:70", None, None).is_err());
        assert_eq!(check("127.0.0.1:80", Some("127.0.0.1"), None), Ok(()));
        assert_eq!(check("0.0.0.0:70", Some("192.168.0.3:70"), None), Ok(()));
        assert!(check("0.0.0.0:70", Some("evil.example:70"), None).unwrap_err().contains("evil.example"));
    }

    #[test]
    fn another_origin_is_refused() {
        let of = |origin| check("127.0.0.1:70", Some("localhost:70"), Some(origin));
        assert_eq!(of("http://localhost:70"), Ok(()));
        for origin in
            ["null", "http://127.0.0.1:70", "https://localhost:70", "http://evil.example", "file://", ""]
        {
            assert!(of(origin).is_err(), "{origin}");
        }
    }

    #[test]
    fn headers_stand_there_once_and_an_absolute_address_is_looked_at() {
        let guard = Guard { address: "127.0.0.1:70".parse().unwrap() };
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, HeaderValue::from_static("localhost:70"));
        assert!(guard.check(&Uri::from_static("http://evil.example/"), &headers).is_err());
        assert_eq!(guard.check(&Uri::from_static("http://127.0.0.1:70/"), &headers), Ok(()));
        headers.append(header::HOST, HeaderValue::from_static("localhost:70"));
        assert!(guard.check(&Uri::from_static("/"), &headers).is_err());
    }
}
