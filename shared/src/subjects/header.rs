//! Headers of messages in the streams.

/// JetStream's dedupe id.
pub const MSG_ID: &str = "Nats-Msg-Id";
/// Bytes of the payload that a consumer of headers alone is not given.
pub const MSG_SIZE: &str = "Nats-Msg-Size";
/// How many messages a read left over.
pub const NUM_PENDING: &str = "Nats-Num-Pending";
/// The app whose webhook brought the update.
pub const APP: &str = "Ackline-App";
/// The business number's `phone_number_id`.
pub const PHONE: &str = "Ackline-Phone";
/// The conversation key.
pub const CONVERSATION: &str = "Ackline-Conversation";
/// What the payload is, such as `message.text`, `status.delivered` or `account.security`.
pub const KIND: &str = "Ackline-Kind";
/// The webhook field the update came under; present only when that is not `messages`.
pub const FIELD: &str = "Ackline-Field";
/// When the edge had the delivery whole, in unix milliseconds.
pub const RECEIVED: &str = "Ackline-Received";
/// Meta's signature; present only when the payload is Meta's own bytes.
pub const SIGNATURE: &str = "X-Hub-Signature-256";
/// W3C trace context, under a name of our own: for each message with a sampled `traceparent` nats-server makes
/// a map of all headers, which is a quarter of what storing it costs.
pub const TRACEPARENT: &str = "Ackline-Traceparent";
/// On what was moved to SPILL: the dedupe id it had.
pub const SPILL_ID: &str = "Ackline-Spill-Id";
/// On what was moved to SPILL: stream, sequence and subject it came from, as `STREAM:seq:subject`, with a `@` before the
/// subject where the payload stayed there.
pub const SPILL_ORIGIN: &str = "Ackline-Spill-Origin";
/// On what was moved to SPILL without its payload, which stayed where it came from: how long that is.
pub const SPILL_LENGTH: &str = "Ackline-Spill-Length";
/// On what was moved to SPILL for one target: its name.
pub const SPILL_TARGET: &str = "Ackline-Spill-Target";
/// On what was moved to SPILL: when it first failed or had to wait, in unix milliseconds.
pub const SPILL_FIRST: &str = "Ackline-Spill-First";
/// On what was moved to SPILL: how many attempts it used up.
pub const SPILL_ATTEMPTS: &str = "Ackline-Spill-Attempts";
/// On what was moved to SPILL: the epoch of the owner that moved it.
pub const SPILL_EPOCH: &str = "Ackline-Spill-Epoch";
/// How the names of all headers begin that only what was moved to SPILL has.
pub const SPILL_PREFIX: &str = "Ackline-Spill-";
/// On a dead letter: why, in words.
pub const DEAD_REASON: &str = "Ackline-Dead-Reason";
/// On a dead letter: how often it was tried.
pub const DEAD_ATTEMPTS: &str = "Ackline-Dead-Attempts";
/// On a dead letter: when it was given up, in unix milliseconds.
pub const DEAD_AT: &str = "Ackline-Dead-At";
/// On a dead letter, and on its replay: the parts that took effect already, separated by commas.
pub const DEAD_DONE: &str = "Ackline-Dead-Done";
/// On a dead letter: stream, sequence and subject it came from, as `STREAM:seq:subject`.
pub const DEAD_ORIGIN: &str = "Ackline-Dead-Origin";
/// On a dead letter that did not fit: how long its payload was, of which it holds the beginning.
pub const DEAD_CUT: &str = "Ackline-Dead-Cut";
/// On a dead letter: the id of what was given up.
pub const DEAD_ID: &str = "Ackline-Dead-Id";
/// On a replay: what it repeats, as `DEAD:seq` or `UPDATES:seq`.
pub const REPLAY_OF: &str = "Ackline-Replay-Of";
/// On a replay: the id of what it repeats.
pub const REPLAY_ID: &str = "Ackline-Replay-Id";
/// On a dead letter of one target, and on a replay for one target: which.
pub const REPLAY_TARGET: &str = "Ackline-Replay-Target";
/// On a replay whose payload is exactly what the edge stored: `true`. Without it the payload may be anybody's.
pub const REPLAY_VERBATIM: &str = "Ackline-Replay-Verbatim";
