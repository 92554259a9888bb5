//! Every kind of stored record of the workers is read whichever version wrote it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use ackline_connectors::known::KnownMessage;
use ackline_connectors::link::LinkedPerson;
use ackline_flow::session::{Session, SessionError};
use ackline_message::{Record, SendCommand};
use ackline_ownership::members::Member;
use ackline_ownership::owners::Owner;
use ackline_replay::{Chunk, ReplayJob};
use ackline_runtime::dedupe::Record as Conversation;
use ackline_runtime::floors::Floors;
use ackline_runtime::tuning::{PoolTuning, Stamped, TenantTuning};
use ackline_shared::stored::Stored;
use ackline_shared::testing::{Ages, check_ages};
use ackline_store::rebuild::Rebuild;
use serde_json::Value;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn check<T: Stored + PartialEq + Debug>(kind: &str) {
    check_ages::<T>(&golden(), kind);
}

#[test]
fn leases_owners_and_live_settings_are_read_whichever_version_wrote_them() {
    check::<Member>("member");
    check::<Owner>("owner");
    check::<Floors>("floors");
    check::<Stamped<PoolTuning>>("pool_tuning");
    check::<Stamped<TenantTuning>>("tenant_tuning");
}

#[test]
fn replay_jobs_and_what_they_settled_are_read_whichever_version_wrote_them() {
    check::<ReplayJob>("order");
    check::<Chunk>("settled");
    check::<Rebuild>("rebuild");
}

#[test]
fn commands_and_records_are_read_whichever_version_wrote_them() {
    check::<SendCommand>("command");
    check::<Record>("record");
}

#[test]
fn what_is_remembered_of_a_conversation_is_read_whichever_version_wrote_it() {
    check::<Conversation>("conversation");
    check::<LinkedPerson>("crm_place");
    check::<KnownMessage>("crm_message");
}

#[test]
fn a_session_is_read_whichever_version_wrote_it_and_a_newer_one_is_left_alone() {
    let (_, ages) = Ages::read(&golden(), "session");
    let read = |value: &Value| Session::from_json(value.to_string().as_bytes()).unwrap();
    let written: Value = serde_json::from_slice(&read(&ages.today).to_json()).unwrap();
    assert_eq!(written, ages.today);
    ages.older.iter().for_each(|older| drop(read(older)));
    let newer = Session::from_json(&ages.tomorrow("schema"));
    assert!(matches!(newer, Err(SessionError::Schema(1000))));
    let mut unknown = ages.today.clone();
    unknown["of_tomorrow"] = Value::from(7);
    assert_eq!(read(&unknown), read(&ages.today));
}
