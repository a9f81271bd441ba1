//! Which `Host` a request may name while the server is bound to loopback.
//!
//! A web page can make its own name resolve to 127.0.0.1 and then read answers from here as its own origin (DNS
//! rebinding, CVE-2024-28224). It can't choose the `Host` its requests carry, so only known names are answered.

/// Whether `host`, the value of a `Host` header with or without port, names this machine or one of `hosts`.
pub fn is_known(host: &str, hosts: &[String]) -> bool {
    let name = without_port(host);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let loopback = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()),
        None => name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback()),
    };
    loopback || name == "localhost" || name.ends_with(".localhost") || hosts.contains(&name)
}

/// The host part of `host:port`; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let hosts = vec!["sconce.lan".to_owned()];
        for host in [
            "localhost",
            "localhost:8080",
            "LOCALHOST",
            "localhost.",
            "a.localhost:1",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.9.9.9",
            "[::1]",
            "[::1]:8080",
            "sconce.lan",
            "Sconce.LAN:99",
        ] {
            assert!(is_known(host, &hosts), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]",
            "::1:x",
            "xlocalhost",
            "sconce.lan.evil.example",
            "localhost:80:80",
        ] {
            assert!(!is_known(host, &hosts), "{host}");
        }
    }
}
