//! The tokens by which records of ours are told apart in subjects.

/// The subject token of a queued command.
pub const REPLY_QUEUED: &str = "reply_queued";
/// The subject token of an accepted message.
pub const REPLY_SENT: &str = "reply_sent";
/// The subject token of a message given up.
pub const REPLY_FAILED: &str = "reply_failed";
/// The subject token of an entered flow.
pub const FLOW_STARTED: &str = "flow_started";
/// The subject token of a left flow.
pub const FLOW_COMPLETED: &str = "flow_completed";
/// The subject token of a step of flows that entered and left none.
pub const FLOW_STEP: &str = "flow_step";
/// The subject token of a call's result.
pub const FLOW_RESULT: &str = "flow_result";
