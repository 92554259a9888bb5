//! Every place that signs, publishes, writes to a bucket or asks an address, with whose authority it does so.
//!
//! A new place fails here until somebody has said whose authority it uses, and which test shows that.
#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a place does, and how its code looks.
const DEEDS: [(&str, &[&str]); 4] = [
    (
        "signs",
        &["key.sign(", "SigningKey::new", "standard_webhooks::sign("],
    ),
    (
        "publishes",
        &[
            ".publish(",
            ".publish_with_headers(",
            ".publish_with_reply(",
            ".send_request(",
            ".write_raw(",
            "log.command(",
            "log.write(",
            "platform.record(",
        ],
    ),
    (
        "writes",
        &[
            "config.put(",
            "config.update(",
            "config.delete",
            "store.put(",
            "store.update(",
            "store.create(",
            "store.purge",
            "sessions.update(",
            ".put_session(",
            "sessions.create(",
            "locks.create(",
            "self.0.update(",
            "self.0.put(",
        ],
    ),
    (
        "asks",
        &["egress.request(", ".of_tenant(", "reqwest::Client"],
    ),
];

const TENANT_OF_ROUTE: &str =
    "the tenant that the number's entry names, if the app may speak for it";
const TENANT_OF_HEAD: &str =
    "the tenant in the head of what is worked on; its partition's owner alone";
const OPERATOR: &str = "the operator, with the credentials for NATS";
const PROCESS: &str = "the process itself; nobody's data";

/// The deed, the place, by whose authority, and the test that shows it.
const PLACES: &[(&str, &str, &str, &str)] = &[
    (
        "signs",
        "ingress/src/routing.rs",
        "verifies alone: the app whose path was posted to",
        "an_app_of_one_tenant_does_not_speak_for_another",
    ),
    (
        "signs",
        "ingress/src/store/wire/login.rs",
        OPERATOR,
        "credentials_sign_the_servers_nonce",
    ),
    (
        "signs",
        "workers/connectors/src/hook.rs",
        "verifies alone: the secret of the link that was posted to",
        "a_webhook_at_a_wrong_address_or_without_its_signature_stores_nothing",
    ),
    (
        "signs",
        "workers/pools/src/events/request.rs",
        "the endpoint's own secrets",
        "the_reference_library_verifies_an_event_under_every_live_secret",
    ),
    (
        "signs",
        "workers/pools/src/relay/request.rs",
        "Meta's signature as it came; else the relay's own secret, or for bytes that the edge stored the app's",
        "edited_contents_are_signed_with_the_relays_secret_or_an_app_of_the_tenant_alone",
    ),
    (
        "publishes",
        "ingress/src/store/durability.rs",
        PROCESS,
        "a_server_that_does_not_sync_stops_the_start_when_synced_is_promised",
    ),
    (
        "publishes",
        "ingress/src/store/wire/group.rs",
        TENANT_OF_ROUTE,
        "a_number_is_routed_to_its_tenant_and_an_account_change_by_its_account",
    ),
    (
        "publishes",
        "ingress/src/store/publisher.rs",
        TENANT_OF_ROUTE,
        "an_app_of_one_tenant_does_not_speak_for_another",
    ),
    (
        "publishes",
        "ingress/src/store/spool/drain.rs",
        TENANT_OF_ROUTE,
        "everything_is_read_once_in_order_and_removed_only_when_finished",
    ),
    (
        "publishes",
        "ingress/src/store/wire.rs",
        TENANT_OF_ROUTE,
        "two_tenants_never_publish_under_one_message_id",
    ),
    (
        "publishes",
        "ingress/src/store/wire/client.rs",
        PROCESS,
        "a_server_that_refuses_the_login_is_tried_again",
    ),
    (
        "publishes",
        "shared/src/nats/client.rs",
        PROCESS,
        "streams_and_buckets_have_the_settings_that_other_clients_would_give_them",
    ),
    (
        "publishes",
        "shared/src/registry.rs",
        "to readers in memory alone",
        "a_table_read_anew_takes_the_place_of_the_last_one_when_it_is_whole",
    ),
    (
        "publishes",
        "workers/api/src/queue.rs",
        "the tenant of the API key, or of the CRM link that proved itself",
        "a_tenant_sees_nothing_of_another",
    ),
    (
        "publishes",
        "workers/cli/src/tail.rs",
        OPERATOR,
        "a_tail_follows_updates_through_the_stages_without_naming_people",
    ),
    (
        "publishes",
        "workers/runtime/src/dead.rs",
        TENANT_OF_HEAD,
        "dead_letters_are_found_counted_and_looked_at_by_their_tenant_alone",
    ),
    (
        "publishes",
        "workers/runtime/src/direct.rs",
        PROCESS,
        "a_spill_queue_is_appended_in_order_once_and_taken_out_from_its_front",
    ),
    (
        "publishes",
        "workers/runtime/src/following.rs",
        TENANT_OF_HEAD,
        "calls_that_fail_are_counted_by_kind_and_told_to_whoever_follows",
    ),
    (
        "publishes",
        "workers/fleet/src/janitor/referred.rs",
        "a message to the end of its own stream, where no pool reads it",
        "room_is_made_around_what_spill_queues_refer_to",
    ),
    (
        "publishes",
        "workers/fleet/src/janitor/unrouted.rs",
        "nobody's updates stay nobody's",
        "what_names_no_origin_or_another_tenants_is_not_replayed",
    ),
    (
        "publishes",
        "workers/runtime/src/group_commit.rs",
        "whoever calls it; the head's tenant stands in subject and id",
        "two_tenants_never_publish_under_one_message_id",
    ),
    (
        "publishes",
        "workers/runtime/src/older.rs",
        TENANT_OF_HEAD,
        "what_was_appended_is_found_by_whoever_reads_it",
    ),
    (
        "publishes",
        "workers/runtime/src/pool/report.rs",
        PROCESS,
        "any_process_sees_what_another_holds_and_how_far_it_is_behind",
    ),
    (
        "publishes",
        "workers/runtime/src/spill/store.rs",
        TENANT_OF_HEAD,
        "a_spill_queue_is_appended_in_order_once_and_taken_out_from_its_front",
    ),
    (
        "publishes",
        "workers/fleet/src/publish.rs",
        PROCESS,
        "any_process_sees_what_another_holds_and_how_far_it_is_behind",
    ),
    (
        "publishes",
        "workers/runtime/src/tuning/watch.rs",
        "to readers in memory alone",
        "a_paused_tenants_work_is_kept_in_order_while_others_go_on",
    ),
    (
        "publishes",
        "workers/replay/src/carry.rs",
        "the tenant of the order, which must be the letter's",
        "what_names_no_origin_or_another_tenants_is_not_replayed",
    ),
    (
        "publishes",
        "workers/pools/src/flows.rs",
        TENANT_OF_HEAD,
        "a_conversation_asks_calls_and_answers_and_repeats_nothing",
    ),
    (
        "publishes",
        "workers/runtime/src/platform.rs",
        TENANT_OF_HEAD,
        "two_tenants_never_publish_under_one_message_id",
    ),
    (
        "publishes",
        "workers/pools/src/replies/mod.rs",
        TENANT_OF_HEAD,
        "two_tenants_never_publish_under_one_message_id",
    ),
    (
        "writes",
        "workers/catalog/src/write.rs",
        "the operator; or an API key that may manage, of the tenants that it reaches",
        "a_key_sees_and_deletes_what_its_reach_covers",
    ),
    (
        "writes",
        "workers/runtime/src/conversation/record.rs",
        TENANT_OF_HEAD,
        "a_flow_is_silent_while_another_responder_has_the_conversation",
    ),
    (
        "writes",
        "workers/fleet/src/janitor.rs",
        PROCESS,
        "leases_owners_and_live_settings_are_read_whichever_version_wrote_them",
    ),
    (
        "writes",
        "workers/runtime/src/floors.rs",
        PROCESS,
        "what_nats_server_forgot_is_made_again_where_it_was_without_any_pool",
    ),
    (
        "writes",
        "workers/ownership/src/lock.rs",
        PROCESS,
        "a_stale_owners_writes_are_refused",
    ),
    (
        "writes",
        "workers/runtime/src/dedupe.rs",
        TENANT_OF_HEAD,
        "a_stale_owners_writes_are_refused",
    ),
    (
        "writes",
        "workers/fleet/src/stream_share/mod.rs",
        "the process that counts; holds up and never lets through",
        "a_tenant_whose_dead_letters_fill_the_stream_rests_until_there_is_room",
    ),
    (
        "writes",
        "workers/runtime/src/tuning/store.rs",
        "the operator, or an API key as far as it reaches",
        "an_operator_turns_what_its_key_reaches_and_nothing_else",
    ),
    (
        "writes",
        "workers/runtime/src/whole.rs",
        TENANT_OF_HEAD,
        "a_dead_letter_that_does_not_fit_is_cut_and_holds_nobody_up",
    ),
    (
        "writes",
        "workers/connectors/src/known.rs",
        "the tenant in the head of what is worked on, or of the CRM link that proved itself",
        "quotes_find_their_message_both_ways",
    ),
    (
        "writes",
        "workers/connectors/src/link.rs",
        "the tenant in the head of what is worked on, or of the CRM link that proved itself",
        "a_place_is_written_again_only_when_it_says_more_or_gets_old",
    ),
    (
        "writes",
        "workers/replay/src/letters.rs",
        "the tenant of the order",
        "a_replay_is_ordered_by_who_may_and_stopped_by_its_tenant_alone",
    ),
    (
        "writes",
        "workers/replay/src/settled.rs",
        "the tenant of the order",
        "what_one_job_has_another_does_not_get",
    ),
    (
        "writes",
        "workers/pools/src/flows/sessions.rs",
        TENANT_OF_HEAD,
        "a_stale_owners_writes_are_refused",
    ),
    (
        "writes",
        "workers/store/src/rebuild.rs",
        OPERATOR,
        "a_damaged_file_stops_nothing_and_a_rebuild_writes_what_the_log_holds_once",
    ),
    (
        "writes",
        "workers/pools/src/events/mod.rs",
        "the tenant whose endpoint said that it is gone",
        "a_tenant_sees_nothing_of_another",
    ),
    (
        "asks",
        "workers/cli/src/doctor/http.rs",
        OPERATOR,
        "the_doctor_tells_what_works_and_what_does_not",
    ),
    (
        "asks",
        "workers/connectors/src/chatwoot.rs",
        "the link's tenant, with the link's token",
        "a_name_that_resolves_to_a_private_address_is_refused_unless_listed",
    ),
    (
        "asks",
        "workers/connectors/src/lib.rs",
        "the link's tenant and what is allowed to it",
        "a_name_that_resolves_to_a_private_address_is_refused_unless_listed",
    ),
    (
        "asks",
        "workers/pools/src/events/mod.rs",
        "the endpoint's tenant and what is allowed to it",
        "a_name_that_resolves_to_a_private_address_is_refused_unless_listed",
    ),
    (
        "asks",
        "workers/pools/src/flows/calls.rs",
        "the flow's tenant and what is allowed to it",
        "a_name_that_resolves_to_a_private_address_is_refused_unless_listed",
    ),
    (
        "asks",
        "workers/pools/src/flows/model.rs",
        TENANT_OF_HEAD,
        "a_busy_model_is_asked_again_and_its_answer_goes_out_in_whatsapps_marks",
    ),
    (
        "asks",
        "workers/pools/src/replies/files.rs",
        "the address that the CRM of the head's tenant named, and what is allowed to the tenant",
        "an_agents_file_is_fetched_uploaded_and_sent_by_its_id",
    ),
    (
        "asks",
        "workers/pools/src/relay/mod.rs",
        "the relay's tenant and what is allowed to it",
        "a_name_that_resolves_to_a_private_address_is_refused_unless_listed",
    ),
    (
        "asks",
        "workers/whatsapp/src/graph.rs",
        "the number's own token, of the tenant in the head",
        "what_an_agent_writes_in_the_crm_is_stored_to_be_sent_once",
    ),
    (
        "asks",
        "workers/traces/src/export.rs",
        OPERATOR,
        "an_attempt_and_what_it_asks_are_joined_to_the_edges_trace",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Every Rust file below some directories, by its path from the root.
fn rust_files(directories: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = directories
        .iter()
        .map(|directory| root().join(directory))
        .collect();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// The deeds of each file that runs in production.
fn deeds() -> BTreeSet<(&'static str, String)> {
    let mut found = BTreeSet::new();
    for (path, text) in rust_files(&["shared/src", "ingress/src", "workers"]) {
        let is_for_tests = ["tests.rs", "fixture.rs"];
        if is_for_tests.iter().any(|name| path.ends_with(name))
            || path.contains("/testing")
            || path.contains("/tests/")
            || path.contains("/model/")
        {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        // A chain of calls may be spread over lines.
        let code: String = code
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with("//"))
            .flat_map(|line| [if line.starts_with('.') { "" } else { "\n" }, line])
            .collect();
        for (deed, signs) in DEEDS {
            if signs.iter().any(|sign| code.contains(sign)) {
                found.insert((deed, path.clone()));
            }
        }
    }
    found
}

#[test]
fn every_place_that_acts_for_somebody_says_for_whom() {
    let reported: BTreeSet<_> = PLACES
        .iter()
        .map(|(deed, place, ..)| (*deed, (*place).to_owned()))
        .collect();
    assert_eq!(reported.len(), PLACES.len(), "a place is told once");
    let found = deeds();
    let unreported: Vec<_> = found.difference(&reported).collect();
    assert!(
        unreported.is_empty(),
        "say in PLACES whose authority these use, and which test shows it: {unreported:#?}"
    );
    let gone: Vec<_> = reported.difference(&found).collect();
    assert!(gone.is_empty(), "these do it no more: {gone:#?}");
}

#[test]
fn what_is_said_of_a_place_is_shown_by_a_test() {
    let tests: String = rust_files(&["shared", "ingress/src", "ingress/tests", "workers"])
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    let unshown: Vec<_> = PLACES
        .iter()
        .filter(|(.., test)| !tests.contains(&format!("fn {test}(")))
        .map(|place| (place.1, place.3))
        .collect();
    assert!(unshown.is_empty(), "there are no such tests: {unshown:#?}");
    assert!(
        PLACES
            .iter()
            .all(|(_, _, authority, _)| !authority.is_empty())
    );
}
