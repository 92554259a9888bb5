//! What the edge counts, in Prometheus' text format. Labels are bounded: classes, reasons and statuses of ours.

use ackline_shared::subjects::Class;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// Upper bounds in seconds, fine where Meta's 250 ms and 1 s lie.
const LATENCY_BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0,
];

const CLASSES: [Class; 3] = [Class::Message, Class::Status, Class::Account];

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    responses: Family<StatusLabel, Counter>,
    ok: Counter,
    refusals: Family<ReasonLabel, Counter>,
    broken: Family<ReasonLabel, Counter>,
    stored: [Counter; 3],
    unrouted: Family<ReasonLabel, Counter>,
    /// Updates that came again after their PubAck.
    pub repeated: Counter,
    pub groups: Counter,
    /// Groups published one by one instead.
    pub groups_split: Counter,
    /// Updates that JetStream had before.
    pub duplicates: Counter,
    /// Updates published again for want of a PubAck.
    pub republished: Counter,
    /// Time from first publish to PubAck.
    pub ack_seconds: Histogram,
    /// Time from a whole head to the answer.
    pub delivery_seconds: Histogram,
    /// Updates acknowledged by the spool.
    pub spooled: Counter,
    /// Updates that went from the spool to JetStream.
    pub spool_drained: Counter,
    /// Updates of the spool that NATS will never take.
    pub spool_set_aside: Counter,
    pub spool_groups: Counter,
    /// Groups the disk did not take.
    pub spool_failures: Counter,
    /// Time to write and sync a group.
    pub spool_sync_seconds: Histogram,
    /// Updates in the spool that JetStream does not have, set when read.
    pub spool_records: Gauge,
    /// Bytes of the spool on disk, set when read.
    pub spool_bytes: Gauge,
    /// Age of the oldest of these updates, set when read.
    pub spool_oldest_seconds: Gauge,
    /// Updates in flight, set when read.
    pub in_flight: Gauge,
    /// Bytes of bodies held, set when read.
    pub body_bytes: Gauge,
    pub connections: Gauge,
    /// 1 while NATS is connected, set when read.
    pub nats_connected: Gauge,
    /// Unix time at which the certificate of the public port ends; 0 without TLS.
    pub certificate_expires: Gauge,
    /// 1 while the certificate's files cannot be used and an older one is in use.
    pub certificate_refused: Gauge,
    /// New certificates that could not be used.
    pub certificate_reload_failures: Counter,
    /// Version of the routing table, set when read.
    pub routing_version: Gauge,
    /// Entries of the configuration that do not parse, set when read.
    pub entries_unreadable: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

impl Metrics {
    pub fn new() -> Arc<Self> {
        let histogram = || Histogram::new(LATENCY_BUCKETS);
        let mut registry = Registry::with_prefix("ackline_ingress");
        // What every delivery counts is looked up once.
        let responses = Family::<StatusLabel, Counter>::default();
        let ok = responses.get_or_create_owned(&StatusLabel { status: 200 });
        let by_class = Family::<ClassLabel, Counter>::default();
        let stored = CLASSES.map(|class| {
            by_class.get_or_create_owned(&ClassLabel {
                class: class.as_str(),
            })
        });
        registry.register(
            "updates_stored",
            "Updates acknowledged by JetStream, by class",
            by_class,
        );
        let mut metrics = Self {
            registry,
            responses,
            ok,
            refusals: Family::default(),
            broken: Family::default(),
            stored,
            unrouted: Family::default(),
            repeated: Counter::default(),
            groups: Counter::default(),
            groups_split: Counter::default(),
            duplicates: Counter::default(),
            republished: Counter::default(),
            ack_seconds: histogram(),
            delivery_seconds: histogram(),
            spooled: Counter::default(),
            spool_drained: Counter::default(),
            spool_set_aside: Counter::default(),
            spool_groups: Counter::default(),
            spool_failures: Counter::default(),
            spool_sync_seconds: histogram(),
            spool_records: Gauge::default(),
            spool_bytes: Gauge::default(),
            spool_oldest_seconds: Gauge::default(),
            in_flight: Gauge::default(),
            body_bytes: Gauge::default(),
            connections: Gauge::default(),
            nats_connected: Gauge::default(),
            certificate_expires: Gauge::default(),
            certificate_refused: Gauge::default(),
            certificate_reload_failures: Counter::default(),
            routing_version: Gauge::default(),
            entries_unreadable: Gauge::default(),
        };
        metrics.register();
        metrics.register_spool();
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "responses",
            "Answers by HTTP status",
            self.responses.clone(),
        );
        r.register(
            "refusals",
            "Requests not accepted, by reason",
            self.refusals.clone(),
        );
        r.register(
            "broken_connections",
            "Connections ended by a fault, by reason",
            self.broken.clone(),
        );
        r.register(
            "updates_unrouted",
            "Updates stored without an owner, by reason",
            self.unrouted.clone(),
        );
        r.register(
            "updates_repeated",
            "Updates that came again after their PubAck, answered without a publish",
            self.repeated.clone(),
        );
        r.register(
            "groups",
            "Groups of updates committed together",
            self.groups.clone(),
        );
        r.register(
            "groups_split",
            "Groups published one by one instead",
            self.groups_split.clone(),
        );
        r.register(
            "updates_duplicate",
            "Updates JetStream had before",
            self.duplicates.clone(),
        );
        r.register(
            "updates_republished",
            "Updates published again",
            self.republished.clone(),
        );
        r.register(
            "ack_seconds",
            "First publish to PubAck",
            self.ack_seconds.clone(),
        );
        r.register(
            "delivery_seconds",
            "Whole head to answer",
            self.delivery_seconds.clone(),
        );
        r.register(
            "updates_in_flight",
            "Updates published and not acknowledged",
            self.in_flight.clone(),
        );
        r.register(
            "body_bytes_held",
            "Bytes of bodies in memory",
            self.body_bytes.clone(),
        );
        r.register("connections", "Open connections", self.connections.clone());
        r.register(
            "nats_connected",
            "1 while NATS is connected",
            self.nats_connected.clone(),
        );
        r.register(
            "certificate_expires_seconds",
            "Unix time the certificate ends, 0 without TLS",
            self.certificate_expires.clone(),
        );
        r.register(
            "certificate_refused",
            "1 while the certificate's files cannot be used",
            self.certificate_refused.clone(),
        );
        r.register(
            "certificate_reload_failures",
            "New certificates that could not be used",
            self.certificate_reload_failures.clone(),
        );
        r.register(
            "routing_version",
            "Version of the routing table",
            self.routing_version.clone(),
        );
        let help = "Entries of the configuration that do not parse; webhooks of apps and numbers among them get 503";
        r.register(
            "configuration_entries_unreadable",
            help,
            self.entries_unreadable.clone(),
        );
    }

    fn register_spool(&mut self) {
        let r = &mut self.registry;
        r.register(
            "spool_updates",
            "Updates acknowledged by the spool",
            self.spooled.clone(),
        );
        r.register(
            "spool_drained",
            "Updates of the spool stored in JetStream",
            self.spool_drained.clone(),
        );
        r.register(
            "spool_set_aside",
            "Updates of the spool too large for NATS",
            self.spool_set_aside.clone(),
        );
        r.register(
            "spool_groups",
            "Groups the spool synced",
            self.spool_groups.clone(),
        );
        r.register(
            "spool_failures",
            "Groups the disk did not take",
            self.spool_failures.clone(),
        );
        r.register(
            "spool_sync_seconds",
            "Writing and syncing a group",
            self.spool_sync_seconds.clone(),
        );
        r.register(
            "spool_records",
            "Updates in the spool, not in JetStream",
            self.spool_records.clone(),
        );
        r.register(
            "spool_bytes",
            "Bytes of the spool on disk",
            self.spool_bytes.clone(),
        );
        r.register(
            "spool_oldest_seconds",
            "Age of the oldest update that is not in JetStream",
            self.spool_oldest_seconds.clone(),
        );
    }

    /// Counts an answer, and the reason when it is a refusal.
    pub fn answered(&self, status: u16, reason: Option<&'static str>) {
        if status == 200 {
            self.ok.inc();
        } else {
            self.responses.get_or_create(&StatusLabel { status }).inc();
        }
        if let Some(reason) = reason {
            self.refusals.get_or_create(&ReasonLabel { reason }).inc();
        }
    }

    /// Counts a connection that ended by a fault.
    pub fn broke(&self, reason: &'static str) {
        self.broken.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts updates that are stored.
    pub fn stored(&self, class: Class, count: u64) {
        let counter = CLASSES
            .iter()
            .position(|known| *known == class)
            .and_then(|at| self.stored.get(at));
        if let Some(counter) = counter {
            counter.inc_by(count);
        }
    }

    /// Counts an update without an owner.
    pub fn unrouted(&self, reason: &'static str) {
        self.unrouted.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _infallible = text::encode(&mut out, &self.registry);
        out
    }
}
