use std::net::IpAddr;

/// Whether what goes to that host stays on this machine: a name or an address of the loopback interface, or a socket's path.
pub fn is_loopback(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

/// Whether what goes to that URL leaves this machine, and in the clear.
pub fn is_plain_http(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_and_port = authority.rsplit('@').next().unwrap_or_default();
    let host = match host_and_port.find(']') {
        Some(end) => &host_and_port[..=end],
        None => host_and_port.split(':').next().unwrap_or_default(),
    };
    scheme.eq_ignore_ascii_case("http") && !is_loopback(host)
}

/// Says, once at a program's start, that everything that goes to a server can be read on the way.
pub fn warn_of_plain(server: &str, address: &str, advice: &str) {
    tracing::warn!(server, address, "the connection is not protected: whoever is on the way can read and change it; {advice}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_stays_on_this_machine() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "[::ffff:127.0.0.1]", "/run/postgresql"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "db", "localhost.example", "10.0.0.1", "[fe80::1]", "128.0.0.1", "0.0.0.0"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn knows_which_urls_are_in_the_clear() {
        for url in ["http://store", "HTTP://store:9000/x", "http://a@store", "http://127.0.0.1@store/", "http://[fe80::1]:80/"] {
            assert!(is_plain_http(url), "{url}");
        }
        for url in ["https://store", "http://localhost:9000", "http://127.0.0.1", "http://[::1]:9000/x", "http://u:p@[::1]"] {
            assert!(!is_plain_http(url), "{url}");
        }
    }
}
