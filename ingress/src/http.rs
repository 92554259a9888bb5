//! What speaks HTTP with Meta: sockets, TLS, the PROXY protocol, HTTP/1.1 and 2, the webhook and its refusals.

pub mod acceptor;
pub mod admission;
pub mod bounds;
pub mod caller;
pub mod eviction;
pub mod forwarded;
mod head_timer;
pub mod http2;
pub mod listeners;
pub mod per_address_limit;
pub mod proxy_protocol;
pub mod refusal;
pub mod server;
pub mod tls;
pub mod webhook;
