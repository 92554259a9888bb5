//! The threads that serve deliveries, each with a runtime, a connection to NATS and a share of the bounds of its own.
//!
//! Threads share the routing table, the metrics and the budget of bytes, all of which are only read or
//! counted; a delivery is accepted, stored and answered on one thread, without a wakeup elsewhere. Only where
//! updates are committed in groups do all threads share one connection.

use super::ProcessError;
use crate::budget::Budget;
use crate::http::acceptor::Acceptor;
use crate::http::admission::Admission;
use crate::http::caller::Caller;
use crate::http::server::Server;
use crate::http::webhook::Edge;
use crate::metrics::Metrics;
use crate::routing::Routing;
use crate::settings::IngressSettings;
use crate::store::acknowledged::Acknowledged;
use crate::store::durability::DurabilityCheck;
use crate::store::publisher::Publisher;
use crate::store::spool::Spool;
use crate::store::spool::log::{SpoolAccess, SpooledLog};
use crate::store::wire::Wire;
use futures_util::future::{join_all, select_all};
use std::net::TcpListener as Unregistered;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

#[derive(Debug, Clone)]
pub struct Shared {
    /// As configured, for the whole process.
    pub settings: Arc<IngressSettings>,
    pub routing: Arc<Routing>,
    /// What a connection passes first.
    pub acceptor: Arc<Acceptor>,
    pub metrics: Arc<Metrics>,
    pub body_bytes: Arc<Budget>,
    /// What a 200 promises, as far as it is known.
    pub durability_check: Arc<DurabilityCheck>,
    /// Updates whose PubAck was seen.
    pub acknowledged: Arc<Acknowledged>,
    /// The local log, if there is one.
    pub spool: Option<Spool>,
    /// The one connection of all threads, when groups are committed: there is one disk for all of them.
    pub wire: Option<Arc<Wire>>,
}

/// All threads that serve; dropping it ends them, too.
#[derive(Debug)]
pub struct EdgeThreads {
    halt: watch::Sender<bool>,
    ended: Vec<oneshot::Receiver<()>>,
}

#[derive(Debug)]
struct EdgeThread {
    /// The connection it stores on.
    wire: Arc<Wire>,
    /// Resolves when the thread has ended.
    ended: oneshot::Receiver<()>,
}

impl EdgeThreads {
    /// Starts a thread for each socket; gives the connections that they store on, too.
    pub async fn start(
        shared: &Shared,
        listeners: Vec<Unregistered>,
    ) -> Result<(Self, Vec<Arc<Wire>>), ProcessError> {
        let (halt, halted) = watch::channel(false);
        let threads = listeners.len();
        let (mut wires, mut ended) = (Vec::new(), Vec::new());
        for listener in listeners {
            let thread =
                EdgeThread::start(shared.clone(), listener, threads, halted.clone()).await?;
            wires.push(thread.wire);
            ended.push(thread.ended);
        }
        Ok((Self { halt, ended }, wires))
    }

    /// Resolves when one of them has ended.
    pub async fn one_ended(&mut self) {
        let _which = select_all(&mut self.ended).await;
    }

    /// Tells all of them to accept nothing more and to end once their last connection is closed.
    pub fn halt(&self) {
        self.halt.send_replace(true);
    }

    /// Waits until all have ended, at most until the deadline.
    pub async fn finish(self, deadline: Instant) {
        if timeout_at(deadline, join_all(self.ended)).await.is_err() {
            tracing::warn!("not everything in flight was finished within ingress.drain_timeout");
        }
    }
}

impl EdgeThread {
    /// Starts the thread; it serves until `stop` says so and its last connection is closed.
    async fn start(
        shared: Shared,
        listener: Unregistered,
        threads: usize,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, ProcessError> {
        let (ready, started) = oneshot::channel();
        let (ends, ended) = oneshot::channel();
        let work = move || {
            let served = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(ProcessError::Thread)
                .and_then(|runtime| {
                    runtime.block_on(serve(shared, listener, threads, stop, ready))
                });
            if let Err(error) = served {
                tracing::error!(%error, "a thread of the edge cannot serve");
            }
            drop(ends);
        };
        std::thread::Builder::new()
            .name("edge".to_owned())
            .spawn(work)
            .map_err(ProcessError::Thread)?;
        let wire = started.await.map_err(|_| ProcessError::ThreadEnded)??;
        Ok(Self { wire, ended })
    }
}

type Started = oneshot::Sender<Result<Arc<Wire>, ProcessError>>;

async fn serve(
    shared: Shared,
    listener: Unregistered,
    threads: usize,
    stop: watch::Receiver<bool>,
    ready: Started,
) -> Result<(), ProcessError> {
    let Shared {
        settings,
        routing,
        acceptor,
        metrics,
        body_bytes,
        durability_check,
        acknowledged,
        spool,
        wire,
    } = shared;
    let limits = settings.publishing.share_of(threads);
    let wire = match wire {
        Some(wire) => Ok(wire),
        None => {
            Wire::start(
                &settings.nats,
                limits.in_flight_max,
                limits.attempt_timeout,
                None,
            )
            .await
        }
    };
    let wire = match wire {
        Ok(wire) => wire,
        Err(error) => {
            // Whoever started the thread tells why.
            let _starter_gone = ready.send(Err(error.into()));
            return Ok(());
        }
    };
    let publisher = Publisher::new(
        wire.clone(),
        limits,
        metrics.clone(),
        acknowledged.clone(),
        durability_check,
    );
    let access = spool.map(|spool| {
        let handle = spool.handle();
        tokio::spawn(handle.clone().serve());
        SpoolAccess {
            handle,
            acknowledged: acknowledged.clone(),
            metrics: metrics.clone(),
        }
    });
    let edge = Edge {
        routing,
        log: Arc::new(SpooledLog::new(Arc::new(publisher), access)),
        admission: Admission::new(settings.shedding(threads), Instant::now()),
        bounds: settings.bounds,
        partitions: settings.nats.partitions,
        tenant_in_flight: settings.tenant_in_flight(),
        retry_after: settings.retry_after_header(),
        body_bytes,
        acknowledged,
        metrics: metrics.clone(),
    };
    let edge = Arc::new(edge);
    let handler = move |request, caller: Arc<Caller>| {
        let edge = edge.clone();
        async move { edge.answer(request, &caller).await }
    };
    listener
        .set_nonblocking(true)
        .map_err(ProcessError::Thread)?;
    let listener = TcpListener::from_std(listener).map_err(ProcessError::Thread)?;
    let _starter_gone = ready.send(Ok(wire));
    let server = Server::accepting(
        acceptor,
        handler,
        settings.bounds.share_of(threads),
        metrics,
    );
    server.run(listener, stop).await;
    Ok(())
}
