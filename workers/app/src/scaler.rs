//! An external scaler for KEDA: how many processes a pool wants, over gRPC on a port of its own.
//!
//! Every process answers alike, because all hear the same; whoever is asked need own nothing. A metric of one a
//! replica makes the number of replicas the number of wanted processes. The declaration names the pools:
//! `metadata: {pools: "flows,replies"}`, and the neediest of them decides.

pub mod wire;

use ackline_fleet::board::Board;
use ackline_fleet::fleet::PoolSum;
use ackline_fleet::publish::INTERVAL;
use ackline_fleet::scaling::Targets;
use ackline_shared::shutdown::{Shutdown, ended};
use ackline_shared::subjects::Pool;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response as HttpResponse;
use axum::routing::post;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::collections::HashMap;
use std::future::ready;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tonic::server::Grpc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;
use wire::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec,
    MetricValue, SERVICE, ScaledObjectRef,
};

const METRIC: &str = "ackline_workers_wanted";
/// Calls one connection may make at once; KEDA makes one at a time and holds one stream a scaled object.
const CALLS_MAX: usize = 64;

/// What the scaler answers from.
#[derive(Debug, Clone)]
pub struct Scaler {
    board: Board,
    targets: Targets,
}

impl Scaler {
    /// Makes the scaler of a process.
    pub fn new(board: Board, targets: Targets) -> Self {
        Self { board, targets }
    }

    pub async fn serve(self, listener: TcpListener, mut shutdown: Shutdown) {
        let server = Server::builder().concurrency_limit_per_connection(CALLS_MAX);
        let signal = async move { ended(&mut shutdown).await };
        let served = server
            .serve_with_incoming_shutdown(self.routes(), TcpIncoming::from(listener), signal)
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the scaler's listener ended");
        }
    }

    fn routes(self) -> Router {
        let path = |call: &str| format!("/{SERVICE}/{call}");
        Router::new()
            .route(&path("IsActive"), post(is_active))
            .route(&path("StreamIsActive"), post(stream_is_active))
            .route(&path("GetMetricSpec"), post(metric_spec))
            .route(&path("GetMetrics"), post(metrics))
            .fallback(|| async { Status::unimplemented("no such call").into_http::<Body>() })
            .with_state(self)
    }

    /// What the pools that a declaration names want together: the most that one of them wants.
    fn wanted(&self, asked: &ScaledObjectRef) -> Result<u32, Status> {
        let pools = pools(&asked.scaler_metadata)?;
        let seen = pools.iter().map(|pool| self.board.pool(*pool));
        let wanted =
            seen.map(|pool| pool.map_or(self.targets.min, |pool| pool.wanted(&self.targets)));
        Ok(wanted.max().unwrap_or(self.targets.min))
    }

    fn is_active(&self, asked: &ScaledObjectRef) -> Result<bool, Status> {
        let pools = pools(&asked.scaler_metadata)?;
        let is_busy =
            |pool: PoolSum| pool.unfinished() > 0 || pool.load.held() > 0 || pool.rates.read > 0.0;
        let is_needed = self.wanted(asked)? > 0;
        Ok(is_needed
            || pools
                .into_iter()
                .filter_map(|pool| self.board.pool(pool))
                .any(is_busy))
    }
}

/// Reads `pools` (or `pool`) of a declaration.
fn pools(metadata: &HashMap<String, String>) -> Result<Vec<Pool>, Status> {
    let named = metadata.get("pools").or_else(|| metadata.get("pool"));
    let named =
        named.ok_or_else(|| Status::invalid_argument("the trigger's metadata lacks `pools`"))?;
    if named.trim() == "all" {
        return Ok(Pool::ALL.to_vec());
    }
    let parsed: Result<Vec<Pool>, String> =
        named.split(',').map(|name| name.trim().parse()).collect();
    parsed.map_err(|error| {
        Status::invalid_argument(format!("the trigger's metadata `pools`: {error}"))
    })
}

async fn is_active(State(scaler): State<Scaler>, request: HttpRequest) -> HttpResponse {
    let answer = service_fn(move |request: Request<ScaledObjectRef>| {
        ready(
            scaler
                .is_active(request.get_ref())
                .map(|result| Response::new(IsActiveResponse { result })),
        )
    });
    passed(
        Grpc::new(ProstCodec::<IsActiveResponse, ScaledObjectRef>::new())
            .unary(answer, request)
            .await,
    )
}

async fn metric_spec(State(_): State<Scaler>, request: HttpRequest) -> HttpResponse {
    let answer = service_fn(move |request: Request<ScaledObjectRef>| {
        let spec = MetricSpec {
            metric_name: METRIC.to_owned(),
            target_size: 1,
            target_size_float: 1.0,
        };
        let named = pools(&request.get_ref().scaler_metadata);
        ready(named.map(|_| {
            Response::new(GetMetricSpecResponse {
                metric_specs: vec![spec],
            })
        }))
    });
    passed(
        Grpc::new(ProstCodec::<GetMetricSpecResponse, ScaledObjectRef>::new())
            .unary(answer, request)
            .await,
    )
}

async fn metrics(State(scaler): State<Scaler>, request: HttpRequest) -> HttpResponse {
    let answer = service_fn(move |request: Request<GetMetricsRequest>| {
        let asked = request.into_inner().scaled_object_ref.unwrap_or_default();
        ready(scaler.wanted(&asked).map(|wanted| {
            let value = MetricValue {
                metric_name: METRIC.to_owned(),
                metric_value: i64::from(wanted),
                metric_value_float: f64::from(wanted),
            };
            Response::new(GetMetricsResponse {
                metric_values: vec![value],
            })
        }))
    });
    passed(
        Grpc::new(ProstCodec::<GetMetricsResponse, GetMetricsRequest>::new())
            .unary(answer, request)
            .await,
    )
}

type Activity = BoxStream<'static, Result<IsActiveResponse, Status>>;

/// Says at once whether there is something to do, and again whenever that changes.
async fn stream_is_active(State(scaler): State<Scaler>, request: HttpRequest) -> HttpResponse {
    let answer = service_fn(move |request: Request<ScaledObjectRef>| {
        let (scaler, asked) = (scaler.clone(), request.into_inner());
        let opened = scaler.is_active(&asked).map(|_| {
            let changes = stream::unfold(None, move |before: Option<bool>| {
                let (scaler, asked) = (scaler.clone(), asked.clone());
                async move {
                    loop {
                        match scaler.is_active(&asked) {
                            Ok(result) if Some(result) != before => {
                                return Some((Ok(IsActiveResponse { result }), Some(result)));
                            }
                            Ok(_) => sleep(INTERVAL).await,
                            Err(status) => return Some((Err(status), before)),
                        }
                    }
                }
            });
            let changes: Activity = changes.boxed();
            Response::new(changes)
        });
        ready(opened)
    });
    let mut grpc = Grpc::new(ProstCodec::<IsActiveResponse, ScaledObjectRef>::new());
    passed(grpc.server_streaming(answer, request).await)
}

/// The answer with the kind of body that the router passes on.
fn passed(response: axum::http::Response<tonic::body::Body>) -> HttpResponse {
    response.map(Body::new)
}
