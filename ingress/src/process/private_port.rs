//! The private port as a part of the process: served to the very end.

use crate::http::bounds::Bounds;
use crate::http::server::Server;
use crate::metrics::Metrics;
use crate::private::Private;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The private port, being served.
pub struct PrivatePort {
    task: JoinHandle<()>,
    /// Never told to stop; without it the server would take that for the end.
    _never: watch::Sender<bool>,
}

impl PrivatePort {
    /// Serves it; its connections are not counted among those of clients.
    pub fn serve(private: Private, listener: TcpListener, bounds: Bounds) -> Self {
        let (_never, stop) = watch::channel(false);
        let handler = move |request: hyper::Request<hyper::body::Incoming>, _anyone| {
            std::future::ready(private.answer(request.method(), request.uri().path()))
        };
        let server = Server::new(handler, bounds, Metrics::new());
        let task = tokio::spawn(server.run_open(listener, stop));
        Self { task, _never }
    }

    /// Ends it, connections and all.
    pub fn stop(self) {
        self.task.abort();
    }
}
