//! The sockets the edge serves on, bound before anything else starts: for Meta, one a thread on a shared port.
//!
//! The kernel spreads connections over the sockets of a shared port, so no thread hands work to another.

use std::io;
use std::net::{SocketAddr, TcpListener as Unregistered};
use tokio::net::{TcpListener, TcpSocket};

/// Connections the kernel completes before a thread accepts them.
const BACKLOG: u32 = 1024;

#[derive(Debug)]
pub struct Listeners {
    /// For Meta: each is served by a thread of its own.
    pub public: Vec<Unregistered>,
    pub private: TcpListener,
}

/// Why a socket cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({key}): {source}; is another process there?")]
pub struct ListenError {
    key: &'static str,
    address: SocketAddr,
    source: io::Error,
}

impl Listeners {
    /// Binds `threads` sockets for Meta and one for the operator.
    pub async fn bind(
        listen: SocketAddr,
        threads: usize,
        private_listen: SocketAddr,
    ) -> Result<Self, ListenError> {
        let failed = |key, address| {
            move |source| ListenError {
                key,
                address,
                source,
            }
        };
        let public = shared(listen, threads);
        let private = TcpListener::bind(private_listen).await;
        Ok(Self {
            public: public.map_err(failed("ingress.listen", listen))?,
            private: private.map_err(failed("ingress.private_listen", private_listen))?,
        })
    }
}

fn shared(address: SocketAddr, count: usize) -> io::Result<Vec<Unregistered>> {
    // A shared port is shared with any process of ours; only an exclusive socket finds that one is running.
    let address = Unregistered::bind(address)?.local_addr()?;
    let bind = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    std::iter::repeat_with(bind).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn threads_share_a_port_that_nobody_else_has() {
        let first = shared("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = first[0].local_addr().unwrap();
        assert!(
            first
                .iter()
                .all(|listener| listener.local_addr().unwrap() == address)
        );
        assert_eq!(
            shared(address, 3).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }
}
