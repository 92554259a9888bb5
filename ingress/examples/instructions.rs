//! Runs verify, split and stamp on one fixed webhook as often as told: what callgrind counts for
//! `make bench SCENARIO=instructions`.

use ackline_ingress::fixture;
use ackline_ingress::split::split;
use ackline_ingress::stamping::{Arrival, Stamp, Stamped};
use ackline_shared::signature::{self, SigningKey};
use anyhow::Context;
use bytes::Bytes;
use std::hint::black_box;

/// A text message as Meta sends it, about 1 KB with its text.
fn body() -> Bytes {
    let text = "The parcel left the depot this morning and should be with you before noon. ".repeat(7);
    Bytes::from(format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"W1","changes":[{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"15550783881","phone_number_id":"100"}},"contacts":[{{"profile":{{"name":"Ada"}},"wa_id":"15551234567","user_id":"US.100000000001"}}],"messages":[{{"from":"15551234567","from_user_id":"US.100000000001","id":"wamid.HBgLMTU1NTEyMzQ1NjcVAgASGBQzQTdCNjE0","timestamp":"1795300000","text":{{"body":"{text}"}},"type":"text"}}]}},"field":"messages"}}]}}]}}"#
    ))
}

fn main() -> anyhow::Result<()> {
    let webhooks: u64 = std::env::args().nth(1).context("say how many webhooks")?.parse()?;
    let table = fixture::table();
    let door = table.door("main").context("the fixture has no app")?;
    let lock = door.lock().context("the fixture's app is locked")?;
    let body = body();
    let signature = SigningKey::from_bytes(fixture::SECRET.as_bytes()).sign(&body);
    for webhook in 0..webhooks {
        let body = black_box(&body);
        signature::verify(&lock.keys, Some(signature.as_bytes()), body)?;
        let arrival = Arrival::now(signature.as_bytes(), webhook.into(), webhook);
        let stamp = Stamp { table: &table, door, partitions: 32, arrival: &arrival };
        let split = split(body)?;
        let mut unrouted = Vec::new();
        for update in Stamped::new(stamp, &split, &mut unrouted) {
            black_box((update.head.subject(), update.payload));
        }
        anyhow::ensure!(unrouted.is_empty(), "the webhook is not routed");
    }
    Ok(())
}
