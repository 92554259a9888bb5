//! Writes turns of conversations into a new read model as its pool does, batch by batch, and says what a turn costs: what
//! `make bench SCENARIO=journal` shows.
//!
//! A turn is a text, the step of its flow, the reply sent, and three statuses of it, each a while after the
//! other. Costs are CPU time of this process, by thread: the database has its own.

use ackline_message::{Content, FlowFact, Origin, Recipient, Record, SendCommand};
use ackline_runtime::dedupe::ConversationRecord;
use ackline_runtime::job::{Answered, Marks, Work};
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::stored;
use ackline_shared::subjects::{Class, Partition};
use ackline_store::Journal;
use ackline_store::fold::fold;
use bytes::Bytes;
use serde_json::json;
use std::collections::VecDeque;
use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

type Failure = Box<dyn Error>;

const TENANTS: usize = 20;
const BEGUN_MS: u64 = 1_795_000_000_000;
/// How many turns later the parts of a turn come: what follows at once, the reply's way out, and its statuses.
const LATER: [usize; 6] = [0, 0, 2, 5, 10, 40];
/// Threads of the database begin with this.
const DATABASE_THREADS: &str = "sqlx-sqlite";

/// What a run is told: turns, people, and updates in a batch.
struct Asked {
    turns: usize,
    people: usize,
    batch: usize,
    /// Where the file is; in a directory of its own, which goes with the run, when absent.
    file: Option<String>,
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |words: &str| -> Result<usize, Failure> { Ok(arguments.next().ok_or(words)?.parse()?) };
    let asked = Asked {
        turns: number("say how many turns")?,
        people: number("say how many people")?.max(1),
        batch: number("say how many updates a batch has")?.max(1),
        file: arguments.next(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let figures = runtime.block_on(measure(&asked))?;
    Ok(writeln!(std::io::stdout(), "{figures}")?)
}

async fn measure(asked: &Asked) -> Result<serde_json::Value, Failure> {
    let log = log(asked)?;
    let each = |ns: u64| {
        let tenths = ns / 100 / u64::try_from(asked.turns.max(1)).unwrap_or(1);
        f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
    };
    let begun = cpu()?;
    for work in &log {
        drop(black_box(fold(work)));
    }
    let folded = cpu()?.since(begun);

    let directory = tempfile::tempdir()?;
    let path = asked.file.clone();
    let path = path.unwrap_or_else(|| directory.path().join("journal.db").display().to_string());
    let journal = Journal::open(&format!("sqlite://{path}")).await?;
    let (begun, started) = (cpu()?, Instant::now());
    for batch in log.chunks(asked.batch) {
        let rejected = journal.write_batch(batch).await?;
        if !rejected.is_empty() {
            return Err(format!("{rejected:?}").into());
        }
    }
    let (written, lasted) = (cpu()?.since(begun), started.elapsed());
    journal.close().await;
    let bytes = std::fs::metadata(&path)?.len();
    Ok(json!({
        "turns": asked.turns,
        "updates": log.len(),
        "people": asked.people,
        "batch": asked.batch,
        "us_a_turn": {
            "whole": each(written.all),
            "fold": each(folded.all),
            "database": each(written.database),
            "beside": each(written.all - written.database),
        },
        "lasted_ms": u64::try_from(lasted.as_millis())?,
        "bytes_a_turn": bytes / u64::try_from(asked.turns.max(1))?,
    }))
}

/// CPU time in nanoseconds.
#[derive(Clone, Copy, Default)]
struct Cpu {
    all: u64,
    database: u64,
}

impl Cpu {
    fn since(self, begun: Self) -> Self {
        Self {
            all: self.all.saturating_sub(begun.all),
            database: self.database.saturating_sub(begun.database),
        }
    }
}

/// What this process took until now, by the scheduler's own count.
fn cpu() -> Result<Cpu, Failure> {
    let mut cpu = Cpu::default();
    for thread in std::fs::read_dir("/proc/self/task")? {
        let thread = thread?.path();
        let spent = std::fs::read_to_string(thread.join("schedstat"))?;
        let ns: u64 = spent.split(' ').next().unwrap_or_default().parse()?;
        cpu.all += ns;
        if std::fs::read_to_string(thread.join("comm"))?.starts_with(DATABASE_THREADS) {
            cpu.database += ns;
        }
    }
    Ok(cpu)
}

/// The log of so many turns; parts of many turns lie between each other.
fn log(asked: &Asked) -> Result<Vec<Work>, Failure> {
    let last = LATER.iter().copied().max().unwrap_or_default();
    let mut waiting = VecDeque::from(vec![Vec::new(); last + 1]);
    let (mut log, mut sequence) = (Vec::new(), 0);
    for turn in 0..asked.turns + last {
        if turn < asked.turns {
            for (part, later) in parts(turn, asked.people)?.into_iter().zip(LATER) {
                if let Some(slot) = waiting.get_mut(later) {
                    slot.push(part);
                }
            }
        }
        for (head, payload) in waiting.pop_front().unwrap_or_default() {
            sequence += 1;
            log.push(work(head, payload, sequence));
        }
        waiting.push_back(Vec::new());
    }
    Ok(log)
}

type Part = (Head, Vec<u8>);

/// The parts of a turn of some person.
fn parts(turn: usize, people: usize) -> Result<[Part; 6], Failure> {
    // A step without a common divisor mixes them.
    let person = turn.wrapping_mul(7919) % people;
    let tenant = TenantId::new(format!("tenant-{}", person % TENANTS))?;
    let phone_number_id = PhoneNumberId::new(format!("10000000{}", person % TENANTS))?;
    let (phone, user) = (format!("4917{person:08}"), format!("US.{person:012}"));
    let at_ms = BEGUN_MS + u64::try_from(turn)? * 10;
    let seconds = (at_ms / 1000).to_string();
    let id = |tag: &str| format!("wamid.HBgLMTU1NTEyMzQ1NjcVAgASGBQz{tag}{turn:012X}");
    let (theirs, ours) = (id("IN"), id("OUT"));
    let head = |id: &str, family, kind: &str| Head {
        id: UpdateId::new(id),
        tenant: tenant.clone(),
        partition: Partition(0),
        family,
        kind: kind.to_owned(),
        app: None,
        phone: Some(phone_number_id.clone()),
        conversation: ConversationKey::user(&user),
        received_ms: at_ms,
        signature: None,
        traceparent: None,
        field: None,
        replay: None,
    };
    let envelope = |value| {
        let change = json!({"value": value, "field": "messages"});
        let entry = json!({"id": "102290129340398", "changes": [change]});
        json!({"object": "whatsapp_business_account", "entry": [entry]})
            .to_string()
            .into_bytes()
    };
    let metadata =
        json!({"display_phone_number": "15550783881", "phone_number_id": phone_number_id});
    let text = "The parcel left the depot this morning and should be with you before noon.";
    let message = envelope(json!({
        "messaging_product": "whatsapp", "metadata": metadata,
        "contacts": [{"profile": {"name": "Ada Lovelace"}, "wa_id": phone, "user_id": user}],
        "messages": [{"from": phone, "from_user_id": user, "id": theirs, "timestamp": seconds, "text": {"body": text}, "type": "text"}],
    }));
    let update = |class| Family::Update(class);
    let status = |status: &str| {
        let value = json!({
            "messaging_product": "whatsapp", "metadata": metadata,
            "statuses": [{
                "id": ours, "status": status, "timestamp": seconds, "recipient_id": phone, "recipient_user_id": user,
                "biz_opaque_callback_data": format!("msg_{turn:024x}"),
                "conversation": {"id": "b5dcd3a5c5a24ac8a12e0a1b40f1a8d1", "origin": {"type": "service"}},
                "pricing": {"billable": true, "pricing_model": "PMP", "category": "service"},
            }],
        });
        let head = head(
            &format!("{ours}:{status}"),
            update(Class::Status),
            &format!("status.{status}"),
        );
        (head, envelope(value))
    };
    let record = |record: &Record| {
        let head = head(
            &format!("{theirs}:{}", record.kind()),
            Family::Record,
            record.kind(),
        );
        (head, stored::encode(record))
    };
    let command = Box::new(SendCommand {
        id: format!("msg_{turn:024x}"),
        tenant: tenant.clone(),
        phone_number_id: phone_number_id.clone(),
        to: Recipient {
            user_id: Some(user.clone()),
            phone: Some(phone.clone()),
        },
        content: Content::Text {
            body: format!("Thank you. {text}"),
            preview_url: false,
        },
        reply_to: Some(theirs.clone()),
        origin: Origin::Flow {
            flow: "parcel".into(),
            update: theirs.clone(),
        },
        created_ms: at_ms,
    });
    let (flow, bot, run) = (
        "parcel".to_owned(),
        "main".to_owned(),
        format!("run-{turn}"),
    );
    let outcome = "completed".to_owned();
    let variables = json!({"parcel": "P-1", "when": "noon"});
    Ok([
        (
            head(&theirs, update(Class::Message), "message.text"),
            message,
        ),
        record(&Record::FlowStep {
            facts: vec![
                FlowFact::Started {
                    id: format!("{run}:started"),
                    flow: flow.clone(),
                    bot: bot.clone(),
                    run: run.clone(),
                },
                FlowFact::Queued {
                    command: command.clone(),
                },
                FlowFact::Completed {
                    id: format!("{run}:completed"),
                    flow,
                    bot,
                    run,
                    outcome,
                    variables,
                },
            ],
        }),
        record(&Record::ReplySent {
            command,
            wamid: ours.clone(),
            attempts: 1,
            known_as: None,
        }),
        status("sent"),
        status("delivered"),
        status("read"),
    ])
}

fn work(head: Head, payload: Vec<u8>, sequence: u64) -> Work {
    Work {
        head: Arc::new(head),
        payload: Bytes::from(payload),
        sequence,
        attempt: 1,
        last_attempt: false,
        target: Arc::default(),
        answered: Answered::default(),
        overdue: false,
        marks: Marks::default(),
        record: ConversationRecord::default(),
    }
}
