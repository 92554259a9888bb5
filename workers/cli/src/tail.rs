//! `ackline tail`: follows a tenant's updates through every stage, one line each.
//!
//! What is stored is read from the streams; what the pools make of it is told by the processes themselves while
//! somebody follows. Nothing is acknowledged or changed. People are shown as short hashes unless asked for. Lines stand
//! in the order of their time, as far as what belongs before them comes within a moment.

mod merge;

use super::Outcome;
use super::status_client::StatusClientSettings;
use ackline_catalog::stored;
use ackline_runtime::following::{AttemptReport, FOLLOWED_FOR};
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId, short_hash};
use ackline_shared::nats;
use ackline_shared::subjects::{self, Pool, SpillQueue, Subject, config_key, header};
use async_nats::Client;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::{Context, Message};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, select_all};
use jiff::Timestamp;
use merge::Merge;
use serde::Serialize;
use std::fmt::Display;
use std::io::Write;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// Arguments of `ackline tail`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Ends with Ctrl-C, after --count lines or after --for.")]
pub struct TailArguments {
    /// Whose updates
    #[arg(long, value_parser = |text: &str| TenantId::new(text))]
    tenant: TenantId,
    /// Only this conversation: its key, such as `u:US.123`, or the hash that is shown for it
    #[arg(long)]
    conversation: Option<String>,
    /// Only this business number, by its phone_number_id
    #[arg(long, value_parser = |text: &str| PhoneNumberId::new(text))]
    phone: Option<PhoneNumberId>,
    /// Begin this long ago, such as `10m`; what pools say is told from now on only
    #[arg(long, value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// End after this many lines
    #[arg(long)]
    count: Option<u64>,
    /// End after this time, such as `30s`
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    for_time: Option<Duration>,
    /// Show conversation keys, which hold phone numbers
    #[arg(long)]
    show_personal: bool,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

/// One thing that happened to an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Step {
    at: String,
    /// `received`, `recorded`, `queued`, `replayed`, `in line`, `parked`, `given up`, or what a pool said: `done`, `retry`,
    /// `wait`, `dead`, `model failed`, `http failed`.
    stage: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    kind: String,
    conversation: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip)]
    key: ConversationKey,
    #[serde(skip)]
    phone: Option<PhoneNumberId>,
}

/// What a source brings.
#[derive(Debug)]
struct Brought {
    /// Which source.
    source: usize,
    /// Up to this time, in unix nanoseconds, it has told everything.
    at_ns: u64,
    /// Whether more of it is stored already.
    has_more: bool,
    /// Nothing for a message that none of us wrote.
    step: Option<Step>,
}

/// Follows until told to end, writing to `out`.
pub async fn run(
    arguments: &TailArguments,
    settings: &StatusClientSettings,
    out: &mut impl Write,
) -> Result<Outcome, Outcome> {
    let failed = |error: &dyn Display| Outcome::failed(format!("error: {error}\n"));
    let client = nats::connect(&settings.nats, "ackline").await?;
    check(&arguments.tenant, &client).await?;
    let opened = open(arguments, &client).await;
    let mut steps = opened.map_err(|error| failed(&error))?;
    let mut asking = interval(FOLLOWED_FOR / 3);
    asking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = arguments.for_time.map(|time| Instant::now() + time);
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let mut merge = Merge::new();
    while left > 0 {
        let due = merge.due();
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => break,
            _ = asking.tick() => client.publish(subjects::follow(&arguments.tenant), "".into()).await?,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            brought = steps.next() => match brought {
                Some(Ok(brought)) => {
                    merge.reached(brought.source, brought.at_ns, brought.has_more);
                    if let Some(step) = brought.step.filter(|step| arguments.matches(step)) {
                        merge.put(brought.at_ns, step, Instant::now());
                    }
                }
                Some(Err(error)) => return Err(failed(&error)),
                None => return Err(failed(&"NATS ended the subscription")),
            },
        }
        while left > 0
            && let Some(step) = merge.next(Instant::now())
        {
            left -= 1;
            if !arguments.write(step, out) {
                return Ok(Outcome::default());
            }
        }
    }
    let mut rest = merge
        .rest()
        .take(usize::try_from(left).unwrap_or(usize::MAX));
    let _read_or_not = rest.all(|step| arguments.write(step, out));
    Ok(Outcome::default())
}

/// A tenant that nobody declared has no updates: more likely its name is wrong.
async fn check(tenant: &TenantId, client: &Client) -> Result<(), Outcome> {
    let context = nats::jetstream(client.clone());
    let Some(config) = stored::open(&context, subjects::BUCKET_CONFIG).await? else {
        return Err(Outcome::failed(
            "error: nothing is set up on this NATS yet; run `ackline apply`\n",
        ));
    };
    let known = config.get(config_key::tenant(tenant)).await?;
    if known.is_some() || tenant.is_unrouted() {
        return Ok(());
    }
    Err(Outcome::bad_input(format!(
        "error: there is no tenant `{tenant}`; `ackline tenants` shows those with something to do, the file that `ackline apply` \
         was given names all, and what nobody claims is under `{}`\n",
        TenantId::unrouted()
    )))
}

type Steps = BoxStream<'static, Result<Brought, async_nats::Error>>;

/// The source of what processes tell; those behind it are streams.
const REPORTED: usize = 0;
/// In a millisecond.
const NANOSECONDS: u64 = 1_000_000;

async fn open(arguments: &TailArguments, client: &Client) -> Result<Steps, async_nats::Error> {
    let context = nats::jetstream(client.clone());
    let tenant = &arguments.tenant;
    let attempt_report = client.subscribe(subjects::reports(tenant)).await?;
    let attempt_report = attempt_report.filter_map(|message| async move {
        let attempt_report = serde_json::from_slice::<AttemptReport>(&message.payload).ok()?;
        // Of the same millisecond, what was stored goes before what was made of it.
        let at_ns = attempt_report
            .at_ms
            .saturating_add(1)
            .saturating_mul(NANOSECONDS)
            .saturating_sub(1);
        Some(Ok(Brought {
            source: REPORTED,
            at_ns,
            has_more: false,
            step: Some(of_report(attempt_report)),
        }))
    });
    let mut all: Vec<Steps> = vec![attempt_report.boxed()];
    let sources = [
        (
            subjects::UPDATES,
            vec![
                subjects::updates_of(tenant),
                subjects::records_of(tenant),
                subjects::replays_of(tenant),
            ],
        ),
        (subjects::SPILL, subjects::queues_of(tenant).into()),
        (subjects::OUTBOUND, vec![subjects::commands_of(tenant)]),
        (
            subjects::DEAD,
            vec![subjects::dead_filter(None, Some(tenant))],
        ),
    ];
    for ((stream, filters), source) in sources.into_iter().zip(REPORTED + 1..) {
        all.push(
            read(&context, stream, filters, arguments.since, source)
                .await
                .map_err(|error| format!("{stream}: {error}"))?,
        );
    }
    Ok(select_all(all).boxed())
}

async fn read(
    context: &Context,
    stream: &str,
    filter_subjects: Vec<String>,
    since: Option<Duration>,
    source: usize,
) -> Result<Steps, async_nats::Error> {
    let deliver_policy = match since {
        None => DeliverPolicy::New,
        Some(since) => DeliverPolicy::ByStartTime {
            start_time: (std::time::SystemTime::now() - since).into(),
        },
    };
    let config = OrderedConfig {
        filter_subjects,
        deliver_policy,
        ..OrderedConfig::default()
    };
    let messages = context
        .get_stream(stream)
        .await?
        .create_consumer(config)
        .await?
        .messages()
        .await?;
    let steps = messages.map(move |message| {
        let message = message?;
        let info = message.info()?;
        let at_ns = u64::try_from(info.published.unix_timestamp_nanos()).unwrap_or_default();
        let step = of_message(&message, at_ns / NANOSECONDS);
        Ok(Brought {
            source,
            at_ns,
            has_more: info.pending > 0,
            step,
        })
    });
    Ok(steps.boxed())
}

impl TailArguments {
    fn matches(&self, step: &Step) -> bool {
        let wanted = self.conversation.as_deref();
        wanted.is_none_or(|wanted| wanted == step.key.as_str() || wanted == hidden(&step.key))
            && self
                .phone
                .as_ref()
                .is_none_or(|wanted| Some(wanted) == step.phone.as_ref())
    }

    /// Writes a line; false when its reader went away, such as `head`, which ends the command like a signal does.
    fn write(&self, step: Step, out: &mut impl Write) -> bool {
        writeln!(out, "{}", self.show(step))
            .and_then(|()| out.flush())
            .is_ok()
    }

    fn show(&self, mut step: Step) -> String {
        step.conversation = if self.show_personal {
            step.key.as_str().to_owned()
        } else {
            hidden(&step.key)
        };
        if self.json {
            return serde_json::to_string(&step).unwrap_or_default();
        }
        let stage = step
            .pool
            .as_ref()
            .map_or(step.stage.clone(), |pool| format!("{pool} {}", step.stage));
        let detail = step
            .detail
            .map(|detail| format!("  {detail}"))
            .unwrap_or_default();
        let time = step.at.get(11..23).unwrap_or(&step.at);
        format!(
            "{time}  {stage:<15} {:<22} {:<14} {}{detail}",
            step.kind, step.conversation, step.id
        )
    }
}

/// A conversation without the person: its kind and a hash that stays the same.
fn hidden(key: &ConversationKey) -> String {
    match key.as_str().split_once(':') {
        Some((kind, _)) => {
            let hash = short_hash(key.as_str().as_bytes());
            format!("{kind}~{}", hash.get(..10).unwrap_or(&hash))
        }
        None => key.as_str().to_owned(),
    }
}

fn time(ms: u64) -> String {
    let at = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or_default();
    format!("{at:.3}")
}

fn of_report(attempt_report: AttemptReport) -> Step {
    let took = format!("{} ms", attempt_report.took_ms);
    let attempt = if attempt_report.attempt > 1 {
        format!(", attempt {}", attempt_report.attempt)
    } else {
        String::new()
    };
    let reason = attempt_report
        .reason
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    Step {
        at: time(attempt_report.at_ms),
        stage: attempt_report.verdict,
        pool: Some(attempt_report.pool),
        kind: attempt_report.kind,
        conversation: String::new(),
        id: attempt_report.id.as_str().to_owned(),
        detail: Some(format!("{took}{attempt}{reason}")),
        key: attempt_report.conversation,
        phone: attempt_report.phone,
    }
}

/// What a stored message says; `None` for one that nobody of us wrote.
fn of_message(message: &Message, at_ms: u64) -> Option<Step> {
    let headers = message.headers.as_ref()?;
    let get = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
    let at = time(at_ms);
    let beside_its_stream = |stage: &str, pool: Pool, id: &str, detail: Option<String>| Step {
        at: at.clone(),
        stage: stage.to_owned(),
        pool: Some(pool.as_str().to_owned()),
        kind: get(header::KIND).unwrap_or_default(),
        conversation: String::new(),
        id: get(id).unwrap_or_default(),
        detail,
        key: get(header::CONVERSATION)
            .and_then(|text| ConversationKey::parse(&text))
            .unwrap_or_else(ConversationKey::none),
        phone: get(header::PHONE).and_then(|text| PhoneNumberId::new(text).ok()),
    };
    if let Some(Subject::Dead(pool, _)) = Subject::parse(&message.subject) {
        let attempts = get(header::DEAD_ATTEMPTS).unwrap_or_default();
        let reason =
            get(header::DEAD_REASON).map(|reason| format!("{reason} (attempts: {attempts})"));
        return Some(beside_its_stream("given up", pool, header::MSG_ID, reason));
    }
    if let Some((pool, line)) = SpillQueue::parse(&message.subject) {
        let (stage, detail) = match line.conversation {
            None => ("in line", "its tenant holds more than its share"),
            Some(_) => ("parked", "waits with its conversation for a retry"),
        };
        return Some(beside_its_stream(
            stage,
            pool,
            header::SPILL_ID,
            Some(detail.to_owned()),
        ));
    }
    let head = Head::read(&message.subject, headers).ok()?;
    let stage = match (&head.replay, head.family) {
        (Some(_), _) => "replayed",
        (None, Family::Update(_)) => "received",
        (None, Family::Record) => "recorded",
        (None, Family::Command(_)) => "queued",
    };
    let replay = head.replay.as_ref();
    let detail = replay.map_or(String::new(), |replay| {
        format!(", a replay of {}", replay.of)
    });
    Some(Step {
        at,
        stage: stage.to_owned(),
        pool: replay.map(|replay| replay.pool.as_str().to_owned()),
        kind: head.kind,
        conversation: String::new(),
        id: head.id.as_str().to_owned(),
        detail: Some(format!("partition {}{detail}", head.partition)),
        key: head.conversation,
        phone: head.phone,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_hidden_and_still_told_from_others() {
        let (one, two) = (
            ConversationKey::phone("49170"),
            ConversationKey::phone("49171"),
        );
        assert!(!hidden(&one).contains("49170") && hidden(&one).starts_with("p~"));
        assert_ne!(hidden(&one), hidden(&two));
        assert_eq!(hidden(&ConversationKey::none()), "-");
    }
}
