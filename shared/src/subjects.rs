//! The one place that spells streams, subjects, buckets and headers; nothing else does.
//!
//! Everything interpolated here is a token by type, so a subject can neither be split nor widened by input.

use crate::ids::{AppId, EntityId, PhoneNumberId, TenantId, token};
use std::fmt;
use std::str::FromStr;

/// The stream of what Meta sent and what we did about it.
pub const UPDATES: &str = "UPDATES";
/// The stream of send commands.
pub const OUTBOUND: &str = "OUTBOUND";
/// The stream of what was given up, with its reason.
pub const DEAD: &str = "DEAD";
/// The stream of what was moved out of others' way, or waits for long.
pub const SPILL: &str = "SPILL";

/// The stream of which updates were finished long ago, where a conversation's record has no room for them.
pub const FINISHED: &str = "FINISHED";

/// Subjects of updates and records; UPDATES holds them and [`REPLAY_SUBJECTS`].
pub const UPDATES_SUBJECTS: [&str; 2] = ["in.>", "ev.>"];
/// Subjects of what is put before one pool again; UPDATES holds them too, and no other pool reads them.
pub const REPLAY_SUBJECTS: &str = "rp.>";
/// Subjects that OUTBOUND holds.
pub const OUTBOUND_SUBJECTS: [&str; 1] = ["out.>"];
/// Subjects that DEAD holds.
pub const DEAD_SUBJECTS: [&str; 1] = ["dead.>"];
/// Subjects that SPILL holds.
pub const SPILL_SUBJECTS: [&str; 1] = ["spill.>"];

/// Subjects that FINISHED holds.
pub const FINISHED_SUBJECTS: [&str; 1] = ["fin.>"];

/// KV bucket of the declared configuration.
pub const BUCKET_CONFIG: &str = "config";
/// KV bucket of conversation state; entries expire when idle.
pub const BUCKET_SESSIONS: &str = "sessions";
/// KV bucket of the processes that are alive; an entry expires when its process stops renewing it.
pub const BUCKET_LEASES: &str = "leases";
/// KV bucket of who owns which partition of a pool.
pub const BUCKET_OWNERS: &str = "owners";
/// KV bucket of floors: up to where each pool has acknowledged everything, as last noted.
pub const BUCKET_FLOORS: &str = "floors";
/// KV bucket of locks: what only one process may do at a time; entries expire when not renewed.
pub const BUCKET_LOCKS: &str = "errands";
/// KV bucket of live settings of the pools.
pub const BUCKET_TUNING: &str = "tuning";
/// KV bucket of replays and of which dead letters are settled; entries expire with the dead letters.
pub const BUCKET_REPLAYS: &str = "replays";

/// Object store of payloads that did not fit their dead letters; objects expire with them.
pub const OBJECTS_DEAD: &str = "dead-payloads";

/// Keys of the journal in the `replays` bucket.
pub mod journal_key {
    /// The last order to build the read model again.
    pub const REBUILD: &str = "journal.rebuild";
}

pub mod header;
mod pool;
pub mod record_kind;

pub use pool::{LaneSource, Pool, WHOLE_LANE};

/// A partition number, below the installation's count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u16);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The class of an update; each class is a lane of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Messages, echoes and calls: what conversations are made of.
    Message,
    /// Statuses of what we sent; three to four a message.
    Status,
    /// Account, template and quality changes, and whatever has no conversation.
    Account,
}

impl Class {
    /// The subject token.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "msg",
            Self::Status => "sts",
            Self::Account => "acct",
        }
    }
}

impl FromStr for Class {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "msg" => Ok(Self::Message),
            "sts" => Ok(Self::Status),
            "acct" => Ok(Self::Account),
            _ => Err(()),
        }
    }
}

/// The lane of a send command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Answers in a conversation somebody waits for.
    Live,
    /// Campaigns and other sends nobody waits for.
    Bulk,
}

impl Lane {
    /// The subject token.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Bulk => "bulk",
        }
    }
}

/// `in.<p>.<class>.<tenant>`: an update as Meta sent it.
pub fn update(partition: Partition, class: Class, tenant: &TenantId) -> String {
    format!("in.{partition}.{}.{tenant}", class.as_str())
}

/// Appends the subject of an update, as [`update`] gives it.
pub fn write_update(out: &mut Vec<u8>, partition: Partition, class: Class, tenant: &TenantId) {
    out.extend_from_slice(b"in.");
    write_decimal(out, partition.0.into());
    out.push(b'.');
    out.extend_from_slice(class.as_str().as_bytes());
    out.push(b'.');
    out.extend_from_slice(tenant.as_str().as_bytes());
}

/// Appends a number in decimal, without the machinery of formatting.
pub fn write_decimal(out: &mut Vec<u8>, number: u64) {
    let (mut digits, mut at, mut rest) = ([0_u8; 20], 20_usize, number);
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        }
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

/// `ev.<p>.<tenant>.<type>`: a record of what we did.
pub fn record(partition: Partition, tenant: &TenantId, kind: &str) -> String {
    format!("ev.{partition}.{tenant}.{}", token(kind))
}

/// `out.<p>.<lane>.<tenant>`: a send command.
pub fn outbound(partition: Partition, lane: Lane, tenant: &TenantId) -> String {
    format!("out.{partition}.{}.{tenant}", lane.as_str())
}

/// `rp.<pool>.<p>.<class or type>.<tenant>`: an update or a record once more, for one pool.
pub fn replay(pool: Pool, partition: Partition, what: &str, tenant: &TenantId) -> String {
    format!("rp.{pool}.{partition}.{}.{tenant}", token(what))
}

/// The filter of a pool's replays of what another filter of it reads; `None` for a filter on anything but
/// updates and records.
pub fn replay_filter(pool: Pool, filter: &str) -> Option<String> {
    let parts: Vec<&str> = filter.split('.').collect();
    match parts.as_slice() {
        ["in", partition, class, ">" | "*"] => Some(format!("rp.{pool}.{partition}.{class}.*")),
        ["ev", partition, "*", kind] => Some(format!("rp.{pool}.{partition}.{kind}.*")),
        _ => None,
    }
}

/// Whether a filter is on replays.
pub fn is_replay_filter(filter: &str) -> bool {
    filter.starts_with("rp.")
}

/// A filter on updates or records of one partition, narrowed to a tenant and widened to every partition.
pub fn of_tenant(filter: &str, tenant: &TenantId) -> Option<String> {
    let parts: Vec<&str> = filter.split('.').collect();
    match parts.as_slice() {
        ["in", _, class, ">" | "*"] => Some(format!("in.*.{class}.{tenant}")),
        ["ev", _, "*", kind] => Some(format!("ev.*.{tenant}.{kind}")),
        _ => None,
    }
}

/// A filter of a pool on updates, records or their replays, narrowed to a tenant; `None` for a filter on anything else.
pub fn narrowed(filter: &str, tenant: &TenantId) -> Option<String> {
    narrowed_to(filter, tenant.as_str())
}

/// The same for a tenant that there cannot be.
pub fn to_nobody(filter: &str) -> Option<String> {
    narrowed_to(filter, "_nobody")
}

fn narrowed_to(filter: &str, tenant: &str) -> Option<String> {
    let parts: Vec<&str> = filter.split('.').collect();
    match parts.as_slice() {
        ["in", partition, class, ">" | "*"] => Some(format!("in.{partition}.{class}.{tenant}")),
        ["ev", partition, "*", kind] => Some(format!("ev.{partition}.{tenant}.{kind}")),
        ["rp", pool, partition, class, "*"] => {
            Some(format!("rp.{pool}.{partition}.{class}.{tenant}"))
        }
        _ => None,
    }
}

/// Whether the journal writes down what comes under a subject of UPDATES: everything but other pools' replays and what is
/// kept for spill queues.
pub fn is_journaled(subject: &str) -> bool {
    !subject.starts_with("rp.") || subject.starts_with("rp.journal.")
}

/// `dead.<pool>.<tenant>`: something given up.
pub fn dead(pool: Pool, tenant: &TenantId) -> String {
    format!("dead.{pool}.{tenant}")
}

/// `fin.<key>`: what was finished long ago of the conversation whose record has this key.
pub fn finished(key: &str) -> String {
    format!("fin.{key}")
}

/// `status.<instance>`: how a workers process is, once a second, kept by no stream.
pub fn status(instance: &str) -> String {
    format!("status.{}", token(instance))
}

/// The filter over the status of every process.
pub const STATUS_FILTER: &str = "status.*";

/// `follow.<tenant>`: somebody asks to be told what pools make of a tenant's updates; kept by no stream.
pub fn follow(tenant: &TenantId) -> String {
    format!("follow.{tenant}")
}

/// The filter over whoever asks to be told.
pub const FOLLOW_FILTER: &str = "follow.*";

/// The tenant that somebody asks to be told about.
pub fn followed(subject: &str) -> Option<TenantId> {
    tenant_id(subject.strip_prefix("follow.")?)
}

/// `told.<tenant>`: what a pool made of one of a tenant's updates; kept by no stream.
pub fn reports(tenant: &TenantId) -> String {
    format!("told.{tenant}")
}

/// The filter over dead letters; `None` leaves that token open.
pub fn dead_filter(pool: Option<Pool>, tenant: Option<&TenantId>) -> String {
    format!(
        "dead.{}.{}",
        pool.map_or("*", Pool::as_str),
        tenant.map_or("*", TenantId::as_str)
    )
}

/// The filter of one class of updates in one partition.
pub fn update_filter(partition: Partition, class: Class) -> String {
    format!("in.{partition}.{}.>", class.as_str())
}

/// `rp.kept.<seq>` in UPDATES and `out.kept.<seq>` in OUTBOUND: what a spill queue refers to at this sequence, whose room
/// was needed; no pool reads it.
pub fn kept(stream: &str, sequence: u64) -> String {
    format!("{}{sequence}", kept_prefix(stream))
}

/// The filter of all that a stream has of these.
pub fn kept_filter(stream: &str) -> String {
    format!("{}*", kept_prefix(stream))
}

/// The sequence at which something was that is kept under a subject.
pub fn kept_sequence(stream: &str, subject: &str) -> Option<u64> {
    subject.strip_prefix(kept_prefix(stream))?.parse().ok()
}

fn kept_prefix(stream: &str) -> &'static str {
    if stream == OUTBOUND {
        "out.kept."
    } else {
        "rp.kept."
    }
}

/// The filter of a tenant's updates, of every class and in every partition.
pub fn updates_of(tenant: &TenantId) -> String {
    format!("in.*.*.{tenant}")
}

/// The filter of a tenant's records, of every type and in every partition.
pub fn records_of(tenant: &TenantId) -> String {
    format!("ev.*.{tenant}.*")
}

/// The filter of what is put before a pool again of a tenant, in every partition.
pub fn replays_of(tenant: &TenantId) -> String {
    format!("rp.*.*.*.{tenant}")
}

/// The filters of a tenant's spill queues and of its conversations' in SPILL, of every pool, partition and lane.
pub fn queues_of(tenant: &TenantId) -> [String; 2] {
    [
        format!("spill.*.*.*.{tenant}"),
        format!("spill.*.*.*.{tenant}.*"),
    ]
}

/// The filter of a tenant's send commands, in every lane and partition.
pub fn commands_of(tenant: &TenantId) -> String {
    format!("out.*.*.{tenant}")
}

/// The filter of one type of record in one partition.
pub fn record_filter(partition: Partition, kind: &str) -> String {
    format!("ev.{partition}.*.{}", token(kind))
}

/// The filter of one lane of send commands in one partition.
pub fn outbound_filter(partition: Partition, lane: Lane) -> String {
    format!("out.{partition}.{}.>", lane.as_str())
}

/// A spill queue: updates of one tenant, or of one of its conversations, that a pool works off later.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpillQueue {
    /// The partition they came from.
    pub partition: Partition,
    /// The pool's lane.
    pub lane: String,
    /// Whose they are.
    pub tenant: TenantId,
    /// The hash of the conversation, when they are all of one that waits.
    pub conversation: Option<String>,
}

impl SpillQueue {
    /// `spill.<pool>.<p>.<lane>.<tenant>` or, of one conversation, `spill.<pool>.<p>.<lane>.<tenant>.<hash>`.
    pub fn subject(&self, pool: Pool) -> String {
        let Self {
            partition,
            lane,
            tenant,
            conversation,
        } = self;
        let tail = conversation
            .as_ref()
            .map(|hash| format!(".{hash}"))
            .unwrap_or_default();
        format!("spill.{pool}.{partition}.{lane}.{tenant}{tail}")
    }

    /// Reads a subject of SPILL.
    pub fn parse(subject: &str) -> Option<(Pool, Self)> {
        let mut parts = subject.split('.');
        let (head, pool, partition) = (parts.next()?, parts.next()?, parts.next()?);
        let (lane, tenant, conversation) = (parts.next()?, parts.next()?, parts.next());
        if head != "spill" || parts.next().is_some() {
            return None;
        }
        let line = Self {
            partition: Partition(partition.parse().ok()?),
            lane: lane.to_owned(),
            tenant: tenant_id(tenant)?,
            conversation: conversation.map(str::to_owned),
        };
        Some((pool.parse().ok()?, line))
    }
}

/// The filter of everything a pool has in SPILL, of one partition or of all.
pub fn spill_filter(pool: Pool, partition: Option<Partition>) -> String {
    match partition {
        Some(partition) => format!("spill.{pool}.{partition}.>"),
        None => format!("spill.{pool}.>"),
    }
}

/// The durable name of a pool's consumer.
pub fn consumer(pool: Pool, partition: Partition, lane: &str) -> String {
    format!("{pool}-{partition}-{lane}")
}

/// The key of a partition's owner.
pub fn owner_key(pool: Pool, partition: Partition) -> String {
    format!("{pool}.{partition}")
}

/// Reads an owner's key.
pub fn parse_owner_key(key: &str) -> Option<(Pool, Partition)> {
    let (pool, partition) = key.split_once('.')?;
    Some((pool.parse().ok()?, Partition(partition.parse().ok()?)))
}

/// The pool that a durable consumer belongs to, by its name.
pub fn pool_of_consumer(name: &str) -> Option<Pool> {
    name.split('-').next()?.parse().ok()
}

/// What a subject of ours says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// An update.
    Update(Partition, Class, TenantId),
    /// A record; the last part is its type.
    Record(Partition, TenantId, String),
    /// A send command.
    Outbound(Partition, Lane, TenantId),
    /// A dead letter.
    Dead(Pool, TenantId),
    /// An update or a record once more, for one pool; the text is its class or type.
    Replay(Pool, Partition, String, TenantId),
}

impl Subject {
    /// Reads a subject; `None` for one this module did not write.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (head, one, two, three, four) = (
            parts.next()?,
            parts.next()?,
            parts.next()?,
            parts.next(),
            parts.next(),
        );
        if let ("rp", Some(what), Some(tenant), None) = (head, three, four, parts.next()) {
            let partition = Partition(two.parse().ok()?);
            return Some(Self::Replay(
                one.parse().ok()?,
                partition,
                what.to_owned(),
                tenant_id(tenant)?,
            ));
        }
        let partition = || one.parse().ok().map(Partition);
        match (head, three, four) {
            ("in", Some(tenant), None) => Some(Self::Update(
                partition()?,
                two.parse().ok()?,
                tenant_id(tenant)?,
            )),
            ("ev", Some(kind), None) => {
                Some(Self::Record(partition()?, tenant_id(two)?, kind.to_owned()))
            }
            ("out", Some(tenant), None) => {
                let lane = if two == "live" {
                    Lane::Live
                } else {
                    Lane::Bulk
                };
                Some(Self::Outbound(partition()?, lane, tenant_id(tenant)?))
            }
            ("dead", None, None) => Some(Self::Dead(one.parse().ok()?, tenant_id(two)?)),
            _ => None,
        }
    }

    /// The tenant the message belongs to.
    pub fn tenant(&self) -> &TenantId {
        match self {
            Self::Update(_, _, tenant)
            | Self::Record(_, tenant, _)
            | Self::Outbound(_, _, tenant) => tenant,
            Self::Dead(_, tenant) | Self::Replay(_, _, _, tenant) => tenant,
        }
    }
}

fn tenant_id(text: &str) -> Option<TenantId> {
    TenantId::new(text).ok()
}

/// Keys of the `config` bucket.
pub mod config_key {
    use super::{AppId, EntityId, PhoneNumberId, TenantId};

    /// Facts fixed when the installation was created.
    pub const INSTALLATION: &str = "installation";
    /// What the edge watches: everything it needs to verify and route.
    pub const EDGE_FILTERS: [&str; 5] =
        ["tenant.>", "app.>", "phone.>", "datakey.>", "overdraft.>"];

    /// A brand.
    pub fn brand(id: &EntityId) -> String {
        format!("brand.{id}")
    }
    /// A tenant.
    pub fn tenant(id: &TenantId) -> String {
        format!("tenant.{id}")
    }
    /// A Meta app.
    pub fn app(id: &AppId) -> String {
        format!("app.{id}")
    }
    /// A business number.
    pub fn phone(id: &PhoneNumberId) -> String {
        format!("phone.{id}")
    }
    /// Something a tenant owns; `family` is one of `bot`, `flow`, `relay`, `endpoint`, `crm`, `key`.
    pub fn owned(family: &str, tenant: &TenantId, id: &EntityId) -> String {
        format!("{family}.{tenant}.{id}")
    }
    /// What a tenant holds beyond its share; not declared, but found.
    pub fn overdraft(tenant: &TenantId) -> String {
        format!("overdraft.{tenant}")
    }
    /// The sealed data key of a scope.
    pub fn data_key(scope: &str) -> String {
        format!("datakey.{scope}")
    }
}

/// Keys of the `tuning` bucket.
pub mod tuning_key {
    use super::{Pool, TenantId, tenant_id};

    /// What is turned of a pool.
    pub fn pool(pool: Pool) -> String {
        format!("pool.{pool}")
    }

    /// What is turned of one tenant in a pool.
    pub fn tenant(pool: Pool, tenant: &TenantId) -> String {
        format!("tenant.{pool}.{tenant}")
    }

    /// Reads a key back: the pool, and the tenant if it is about one.
    pub fn parse(key: &str) -> Option<(Pool, Option<TenantId>)> {
        match key.split_once('.')? {
            ("pool", pool) => Some((pool.parse().ok()?, None)),
            ("tenant", rest) => {
                let (pool, tenant) = rest.split_once('.')?;
                Some((pool.parse().ok()?, Some(tenant_id(tenant)?)))
            }
            _ => None,
        }
    }
}

/// Keys of the `sessions` bucket.
pub mod session_key {
    use super::{Pool, TenantId};
    use crate::ids::{ConversationKey, EntityId, short_hash};
    use crate::spelling;

    /// Where a person is found again in a CRM; `source` is their user id or their phone number, however it is spelled.
    pub fn crm_contact(tenant: &TenantId, link: &EntityId, source: &str) -> String {
        crm_contact_as_spelled(tenant, link, &spelling::of_key(source))
    }

    /// Where an earlier version kept the same: once for each spelling of the number.
    pub fn crm_contacts_before(tenant: &TenantId, link: &EntityId, source: &str) -> Vec<String> {
        let spelled = spelling::others(&spelling::of_key(source));
        let of = |number: &String| crm_contact_as_spelled(tenant, link, number);
        spelled.iter().map(of).collect()
    }

    fn crm_contact_as_spelled(tenant: &TenantId, link: &EntityId, source: &str) -> String {
        format!(
            "crm-contact.{tenant}.{}",
            short_hash(format!("{link}/{source}").as_bytes())
        )
    }

    /// Which message of a CRM is which of Meta's; `id` is one of either.
    pub fn crm_message(tenant: &TenantId, link: &EntityId, id: &str) -> String {
        format!(
            "crm-message.{tenant}.{}",
            short_hash(format!("{link}/{id}").as_bytes())
        )
    }

    /// A pool's state of one conversation with one business number.
    pub fn of(
        pool: Pool,
        tenant: &TenantId,
        phone: &str,
        conversation: &ConversationKey,
    ) -> String {
        format!(
            "{pool}.{tenant}.{}",
            short_hash(format!("{phone}/{}", conversation.as_str()).as_bytes())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_a_spill_queue_lies_in_its_stream_and_no_pool_reads_it() {
        for (stream, subject) in [(UPDATES, "rp.kept.7"), (OUTBOUND, "out.kept.7")] {
            assert_eq!(kept(stream, 7), subject);
            assert_eq!(kept_sequence(stream, subject), Some(7));
            assert_eq!(Subject::parse(subject), None);
        }
        assert!(Pool::ALL.iter().all(|pool| pool.as_str() != "kept"));
        assert_eq!(kept_sequence(UPDATES, "in.1.msg.acme"), None);
    }

    #[test]
    fn every_subject_reads_back() {
        let tenant = TenantId::new("acme").unwrap();
        let p = Partition(7);
        let pairs = [
            (
                update(p, Class::Status, &tenant),
                Subject::Update(p, Class::Status, tenant.clone()),
            ),
            (
                record(p, &tenant, "reply_sent"),
                Subject::Record(p, tenant.clone(), "reply_sent".into()),
            ),
            (
                outbound(p, Lane::Live, &tenant),
                Subject::Outbound(p, Lane::Live, tenant.clone()),
            ),
            (
                dead(Pool::Relay, &tenant),
                Subject::Dead(Pool::Relay, tenant.clone()),
            ),
            (
                replay(Pool::Crm, p, "reply_sent", &tenant),
                Subject::Replay(Pool::Crm, p, "reply_sent".into(), tenant.clone()),
            ),
        ];
        for (text, parsed) in pairs {
            assert_eq!(Subject::parse(&text), Some(parsed), "{text}");
        }
        assert_eq!(
            tuning_key::parse(&tuning_key::pool(Pool::Crm)),
            Some((Pool::Crm, None))
        );
        let of_tenant = tuning_key::tenant(Pool::Crm, &tenant);
        assert_eq!(
            tuning_key::parse(&of_tenant),
            Some((Pool::Crm, Some(tenant.clone())))
        );
        assert_eq!(tuning_key::parse("pool.nope"), None);
        let spilled = SpillQueue {
            partition: p,
            lane: "msg".into(),
            tenant: tenant.clone(),
            conversation: None,
        };
        let parked = SpillQueue {
            conversation: Some("00ff".into()),
            ..spilled.clone()
        };
        for line in [spilled, parked] {
            assert_eq!(
                SpillQueue::parse(&line.subject(Pool::Relay)),
                Some((Pool::Relay, line))
            );
        }
        assert_eq!(Subject::parse("in.7.msg"), None);
        assert_eq!(Subject::parse("x.7.msg.acme"), None);
        assert_eq!(Subject::parse("rp.relay.7.msg.acme.x"), None);
    }

    #[test]
    fn a_pool_reads_its_own_replays_of_what_it_reads() {
        let (p, tenant) = (Partition(7), TenantId::new("acme").unwrap());
        let of = |filter: String| replay_filter(Pool::Events, &filter);
        assert_eq!(
            of(update_filter(p, Class::Message)).as_deref(),
            Some("rp.events.7.msg.*")
        );
        assert_eq!(
            of(record_filter(p, "reply_sent")).as_deref(),
            Some("rp.events.7.reply_sent.*")
        );
        assert_eq!(of(outbound_filter(p, Lane::Live)), None);
        let of_acme = |filter: &str| narrowed(filter, &tenant);
        assert_eq!(
            of_acme(&update_filter(p, Class::Message)).as_deref(),
            Some("in.7.msg.acme")
        );
        assert_eq!(
            of_acme(&record_filter(p, "reply_sent")).as_deref(),
            Some("ev.7.acme.reply_sent")
        );
        assert_eq!(
            of_acme("rp.events.7.reply_sent.*").as_deref(),
            Some("rp.events.7.reply_sent.acme")
        );
        assert_eq!(of_acme(&outbound_filter(p, Lane::Live)), None);
        let passed_over = ["rp.relay.7.msg.acme", "rp.kept.12"].map(is_journaled);
        assert_eq!(passed_over, [false, false]);
        let written = ["in.7.msg.acme", "ev.7.acme.x", "rp.journal.7.msg.acme"].map(is_journaled);
        assert_eq!(written, [true, true, true]);
        assert_eq!(
            of_tenant(&update_filter(p, Class::Status), &tenant).as_deref(),
            Some("in.*.sts.acme")
        );
        assert_eq!(
            of_tenant(&record_filter(p, "reply_sent"), &tenant).as_deref(),
            Some("ev.*.acme.reply_sent")
        );
    }
}
