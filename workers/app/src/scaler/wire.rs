//! The messages of KEDA's external scaler protocol, `externalscaler.proto`, field for field.
//!
//! They are few and fixed by KEDA, so they are written here rather than generated, which would double the time that
//! tonic takes to build.

use std::collections::HashMap;

/// Path prefix of every call.
pub const SERVICE: &str = "externalscaler.ExternalScaler";

/// Who is scaled.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScaledObjectRef {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// What its declaration says to the scaler.
    #[prost(map = "string, string", tag = "3")]
    pub scaler_metadata: HashMap<String, String>,
}

/// Whether there is anything to do.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct IsActiveResponse {
    /// True calls for at least one replica.
    #[prost(bool, tag = "1")]
    pub result: bool,
}

/// The metrics and what one replica is good for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetMetricSpecResponse {
    /// One each.
    #[prost(message, repeated, tag = "1")]
    pub metric_specs: Vec<MetricSpec>,
}

/// A metric and what one replica is good for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetricSpec {
    /// Its name.
    #[prost(string, tag = "1")]
    pub metric_name: String,
    /// What one replica is good for, for older versions of KEDA.
    #[prost(int64, tag = "2")]
    pub target_size: i64,
    /// What one replica is good for.
    #[prost(double, tag = "3")]
    pub target_size_float: f64,
}

/// Asks for a metric.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetMetricsRequest {
    /// Who is scaled.
    #[prost(message, optional, tag = "1")]
    pub scaled_object_ref: Option<ScaledObjectRef>,
    /// Which metric.
    #[prost(string, tag = "2")]
    pub metric_name: String,
}

/// The metrics' values.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetMetricsResponse {
    /// One each.
    #[prost(message, repeated, tag = "1")]
    pub metric_values: Vec<MetricValue>,
}

/// A metric's value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetricValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub metric_name: String,
    /// Its value, for older versions of KEDA.
    #[prost(int64, tag = "2")]
    pub metric_value: i64,
    /// Its value.
    #[prost(double, tag = "3")]
    pub metric_value_float: f64,
}
