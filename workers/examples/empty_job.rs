//! Measures what a pool costs by itself: updates a second through the events pool when no endpoint is declared, over
//! a real nats-server, and the memory that the scheduler takes per tenant. Prints one JSON line.
//!
//! `cargo run --release -p ackline-workers --example empty_job -- [UPDATES] [TENANTS]`

use ackline_shared::config::Reader;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::nats::{self, NatsSettings};
use ackline_shared::registry::{Registry, Snapshot};
use ackline_shared::subjects::{Class, Partition, Pool};
use ackline_shared::testing::NatsServer;
use ackline_shared::vault::VaultKey;
use ackline_workers::core::log::{Log, now_ms};
use ackline_workers::core::metrics::Metrics;
use ackline_workers::core::pool::{self, Host};
use ackline_workers::core::scheduler::{Rules, Scheduler};
use ackline_workers::core::settings::PoolSettings;
use ackline_workers::core::standing::Standing;
use ackline_workers::egress::{Egress, EgressSettings};
use ackline_workers::events::EventsJob;
use ackline_workers::platform::Platform;
use futures_util::{StreamExt, TryStreamExt, stream};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry as MetricsRegistry;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const PAYLOAD: &[u8] = &[b'x'; 700];
const DEADLINE: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let updates = numbers.next().transpose()?.unwrap_or(300_000);
    let tenants = numbers.next().transpose()?.unwrap_or(1000);
    let _another_provider_is_as_good = rustls::crypto::ring::default_provider().install_default();
    let bytes_per_tenant = bytes_per_tenant(20_000)?;
    let server = NatsServer::start()?;
    let environment = [
        ("ACKLINE_NATS_URL".to_owned(), server.url()),
        ("ACKLINE_NATS_DURABILITY".to_owned(), "stored".to_owned()),
    ];
    let mut reader = Reader::load(None, environment);
    let nats_settings = NatsSettings::read(&mut reader);
    let settings = PoolSettings::read(&mut reader, Pool::Events);
    let egress = Egress::new(&EgressSettings::read(&mut reader))?;
    let context = nats::jetstream(nats::connect(&nats_settings, "empty-job", false).await?);
    let buckets = nats::prepare(&context, &nats_settings).await?;
    let log = Log::new(context, nats_settings.partitions);
    let filling = Instant::now();
    stream::iter(0..updates)
        .map(|n| {
            let (log, head) = (log.clone(), head(n, tenants, nats_settings.partitions));
            async move { log.write(&head?, PAYLOAD.into()).await.map_err(anyhow::Error::from) }
        })
        .buffer_unordered(1000)
        .try_collect::<()>()
        .await?;
    let filled = filling.elapsed();

    let platform = Platform::new(log, Registry::fixed(Snapshot::default()), buckets, VaultKey::generate());
    let mut metrics = MetricsRegistry::default();
    let (stop, shutdown) = watch::channel(false);
    let host = Host {
        platform: platform.clone(),
        metrics: Metrics::register(&mut metrics),
        standing: Standing::default(),
        instance: "empty-job".to_owned(),
        shutdown,
    };
    let job = EventsJob::new(platform, egress, settings.attempt_timeout);
    let running = tokio::spawn(pool::run(job, settings, host));
    let mut points = Vec::new();
    let started = Instant::now();
    loop {
        let done = idle(&metrics)?;
        points.push((started.elapsed(), done));
        if done >= updates {
            break;
        }
        anyhow::ensure!(started.elapsed() < DEADLINE, "only {done} of {updates} in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.send_replace(true);
    running.await?;
    // The first tenth warms up: consumers open one after the other.
    let (from, first) = points.iter().find(|(_, done)| *done >= updates / 10).copied().unwrap_or_default();
    let (to, last) = points.last().copied().unwrap_or_default();
    let rate = (last - first) as f64 / (to - from).as_secs_f64();
    let report = serde_json::json!({
        "updates": updates, "tenants": tenants, "empty_job_per_s": rate.round(),
        "whole_s": to.as_secs_f64(), "fill_s": filled.as_secs_f64(),
        "scheduler_bytes_per_tenant": bytes_per_tenant, "resident_mb": resident()? >> 20,
    });
    say(&report.to_string());
    Ok(())
}

fn head(n: u64, tenants: u64, partitions: u16) -> anyhow::Result<Head> {
    Ok(Head {
        id: UpdateId::new(&format!("wamid.{n}")),
        tenant: TenantId::new(format!("tenant-{}", n % tenants))?,
        partition: Partition(u16::try_from(n % u64::from(partitions))?),
        family: Family::Update(Class::Message),
        kind: "message.text".to_owned(),
        app: None,
        phone: PhoneNumberId::new("100").ok(),
        conversation: ConversationKey::user(&format!("US.{}", n % (tenants * 10))),
        received_ms: now_ms(),
        signature: None,
        traceparent: None,
    })
}

fn idle(metrics: &MetricsRegistry) -> anyhow::Result<u64> {
    let mut text = String::new();
    encode(&mut text, metrics)?;
    let line = text.lines().find(|line| line.contains("verdicts_total") && line.contains("\"idle\""));
    Ok(line.and_then(|line| line.rsplit(' ').next()).map_or(Ok(0), str::parse)?)
}

/// Resident memory per tenant with one queued conversation of one small item.
fn bytes_per_tenant(count: u64) -> anyhow::Result<u64> {
    let mut scheduler =
        Scheduler::new(Rules { lane_weights: vec![2, 1], tenant_cap: 16, ..Rules::default() });
    let before = resident()?;
    for n in 0..count {
        let place = scheduler.place(0, &TenantId::new(format!("tenant-{n}"))?, n);
        scheduler.push(place, 1, n);
    }
    Ok(resident()?.saturating_sub(before) / count)
}

fn resident() -> anyhow::Result<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = pages.split(' ').nth(1).unwrap_or_default().parse()?;
    Ok(pages * 4096)
}

#[allow(clippy::print_stdout, reason = "the result is what the program is for")]
fn say(line: &str) {
    println!("{line}");
}
