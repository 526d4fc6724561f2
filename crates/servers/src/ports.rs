use std::net::{Ipv4Addr, TcpListener};

use crate::secret::random_bytes;

/// Below the range from which Linux takes the local ports of outgoing connections (32768 and up): a client that keeps
/// knocking at a stopped server could otherwise be given that very port, connect to itself and keep the server from
/// coming back.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// `N` different ports of the loopback interface on which nobody listens. Another process can take one before it is used,
/// so the caller tries again on a clash.
pub fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until the last is found, so that no two are the same.
    let listeners: [(TcpListener, u16); N] = std::array::from_fn(|_| free_port());
    listeners.map(|(_, port)| port)
}

fn free_port() -> (TcpListener, u16) {
    loop {
        let port = PORTS.start + u16::from_le_bytes(random_bytes()) % (PORTS.end - PORTS.start);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return (listener, port);
        }
    }
}
