//! The situations of the check, played one after the other, and the account over all of them.

mod conversations;
mod deliveries;
mod outage;
mod sends;

use super::api::text;
use super::conversation::person;
use super::ledger::{Balance, Ledger, Place};
use super::report::{Outcome, Row};
use super::screen::Screen;
use super::stage::{ACME, Stage};
use super::witness::{self, WITHIN};
use crate::journal::Numbered;
use crate::meta::{
    self, Accepted, Content, IncomingMessage, Outcome as Attempted, Posting, Sender,
};
use crate::sink::update_ids;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::time::timeout;

const SITUATION_WITHIN: Duration = Duration::from_secs(90);

/// Everything an acknowledged message of the tenant with a flow, an endpoint and a CRM goes to.
const ACME_PLACES: [Place; 4] = [Place::Log, Place::Api, Place::Endpoint, Place::Crm];
const GLOBEX_PLACES: [Place; 2] = [Place::Log, Place::Relay];
const UNROUTED_PLACES: [Place; 1] = [Place::Log];

/// The stage and what was posted so far.
struct Play<'a> {
    stage: &'a mut Stage,
    people: u64,
    posted: Vec<Posted>,
}

/// A message that Meta posts, and where it belongs once it is acknowledged.
struct Posted {
    message_id: String,
    deliveries: Vec<u64>,
    places: &'static [Place],
}

/// Plays all of them, one after the other whatever came of the one before.
pub async fn play(stage: &mut Stage, screen: &Screen) -> Outcome {
    let mut play = Play {
        stage,
        people: 0,
        posted: Vec::new(),
    };
    let mut rows = Vec::new();
    macro_rules! situation {
        ($name:literal, $play:path) => {{
            let started = Instant::now();
            let played = match play.stage.fallen() {
                Some(fallen) => Err(fallen),
                None => match timeout(SITUATION_WITHIN, $play(&mut play)).await {
                    Ok(played) => played.map_err(|error| format!("{error:#}")),
                    Err(_) => Err(format!("not within {SITUATION_WITHIN:?}")),
                },
            };
            let took = started.elapsed();
            match &played {
                Ok(_) => screen.done($name, "", took),
                Err(wrong) => screen.line(&format!("✗ {}: {wrong}", $name)),
            }
            rows.push(Row {
                situation: $name,
                outcome: played,
                took,
            });
        }};
    }
    situation!("text conversation through a flow", conversations::flow);
    situation!("AI agent in a flow", conversations::assistant);
    situation!(
        "person without a phone number",
        conversations::without_phone
    );
    situation!("agent answers in Chatwoot", conversations::agent);
    situation!("8 updates over 2 entries in one POST", deliveries::batch);
    situation!("the same delivery three times", deliveries::duplicate);
    situation!(
        "bad, malformed, missing, cut signature",
        deliveries::unsigned
    );
    situation!("unknown phone number", deliveries::unknown_number);
    situation!("Meta's own bytes at an existing bot", deliveries::relayed);
    situation!("send by the API", sends::by_api);
    situation!("statuses out of order", sends::statuses);
    situation!("Graph 131000 that recovers", sends::recovers);
    situation!("send that is given up", sends::given_up);
    situation!("workers killed at work", outage::workers);
    situation!("nats-server killed under load", outage::broker);
    match play.settle().await {
        Ok(balance) => Outcome {
            rows,
            balance,
            broken: None,
        },
        Err(error) => Outcome {
            rows,
            broken: Some(format!("{error:#}")),
            ..Outcome::default()
        },
    }
}

impl Play<'_> {
    /// A person that has not written yet.
    fn someone(&mut self) -> String {
        self.people += 1;
        person(self.people * 1000)
    }

    fn number(&self, tenant: &str) -> Result<String> {
        self.stage.declared().number_of(tenant)
    }

    /// A message of a person to a tenant's number.
    fn message(&self, from: &str, tenant: &str, content: Content) -> Result<IncomingMessage> {
        let sender = Sender {
            from: Some(from.to_owned()),
            name: Some("Ada".to_owned()),
            phone_number_id: Some(self.number(tenant)?),
            ..Sender::default()
        };
        Ok(IncomingMessage { sender, content })
    }

    /// Posts a message to the first tenant and waits until it is acknowledged.
    async fn say(&mut self, from: &str, content: Content) -> Result<String> {
        let message = self.message(from, ACME, content)?;
        self.post(message, Posting::default(), &ACME_PLACES).await
    }

    async fn post(
        &mut self,
        message: IncomingMessage,
        posting: Posting,
        places: &'static [Place],
    ) -> Result<String> {
        let accepted = self.stage.simulator().receive(message, posting)?;
        self.enter(&accepted, places);
        for delivery in &accepted.deliveries {
            self.acknowledged(*delivery).await?;
        }
        accepted
            .message_ids
            .into_iter()
            .next()
            .context("a message has an id")
    }

    /// Notes where the messages of a delivery belong.
    fn enter(&mut self, accepted: &Accepted, places: &'static [Place]) {
        for message_id in &accepted.message_ids {
            let deliveries = accepted.deliveries.clone();
            self.posted.push(Posted {
                message_id: message_id.clone(),
                deliveries,
                places,
            });
        }
    }

    async fn acknowledged(&self, delivery: u64) -> Result<()> {
        let ended = witness::ended(self.stage.simulator(), delivery).await?;
        let attempt = witness::attempt(&ended.entry).context("a delivery ends with an attempt")?;
        if attempt.status != Some(200) {
            bail!(
                "the webhook was answered {:?} ({:?})",
                attempt.status,
                attempt.error
            );
        }
        Ok(())
    }

    /// Where the simulator's journal is now.
    fn now(&self) -> u64 {
        self.stage.simulator().journal().last()
    }

    /// The replies a person got after an entry.
    async fn replies(
        &self,
        person: &str,
        since: u64,
        count: usize,
    ) -> Result<Vec<Numbered<meta::Entry>>> {
        witness::replies(self.stage.simulator(), person, since, count).await
    }

    /// Waits for the account to balance, and closes it when it does not in time.
    async fn settle(&self) -> Result<Balance> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let balance = self.ledger().await?.balance();
            if balance.lost.is_empty() || Instant::now() >= deadline {
                return Ok(balance);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn ledger(&self) -> Result<Ledger> {
        let (simulator, sink) = (self.stage.simulator(), self.stage.sink());
        let mut ledger = Ledger::default();
        let webhooks = simulator.journal().all().await;
        let mut acknowledged = BTreeSet::new();
        for entry in &webhooks.entries {
            if let Some(attempt) = witness::attempt(&entry.entry)
                && attempt.outcome == Attempted::Delivered
            {
                acknowledged.insert(attempt.delivery);
                // Statuses, too, and whatever else was in it.
                for update in update_ids(attempt.body.as_deref().unwrap_or_default().as_bytes()) {
                    ledger.acknowledge(&update, &[Place::Log]);
                }
            }
            if let Some(seen) = witness::seen(&entry.entry)
                && let Some(id) = &seen.biz_opaque_callback_data
            {
                ledger.sent(id);
            }
        }
        for posted in &self.posted {
            if posted
                .deliveries
                .iter()
                .any(|delivery| acknowledged.contains(delivery))
            {
                ledger.acknowledge(&posted.message_id, posted.places);
            }
        }
        for stored in self.stage.log().await?.updates().await? {
            ledger.find(Place::Log, &stored.id);
        }
        for message in self.stage.api(ACME)?.messages().await? {
            if let Some(wamid) = text(&message, "wamid") {
                ledger.find(Place::Api, &wamid);
            }
        }
        let seen = sink.journal().all().await;
        // An event may come twice with the same id; two events about one message would be a duplicate.
        let mut events: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for entry in &seen.entries {
            if let Some(("message.received", wamid, id)) = witness::received(&entry.entry) {
                events
                    .entry(wamid.to_owned())
                    .or_default()
                    .insert(id.to_owned());
            }
            if let Some(source_id) =
                witness::crm(&entry.entry).and_then(|call| call.source_id.as_deref())
            {
                ledger.find(Place::Crm, source_id);
            }
            for update in witness::relay(&entry.entry)
                .map(|got| got.update_ids.as_slice())
                .unwrap_or_default()
            {
                ledger.find(Place::Relay, update);
            }
        }
        for (wamid, ids) in events {
            ids.iter()
                .for_each(|_| ledger.find(Place::Endpoint, &wamid));
        }
        Ok(ledger)
    }
}

fn words(text: &str) -> Content {
    Content::Text {
        text: text.to_owned(),
    }
}

/// A press of the button with this title, in a message a person got.
fn press(entry: &Numbered<meta::Entry>, title: &str) -> Result<Content> {
    let reply_id = witness::seen(&entry.entry).and_then(|seen| witness::button(seen, title));
    let reply_id = reply_id.with_context(|| format!("no button `{title}` in the answer"))?;
    Ok(Content::ButtonReply {
        reply_id,
        title: title.to_owned(),
    })
}

fn said(entry: &Numbered<meta::Entry>) -> String {
    witness::seen(&entry.entry)
        .map(|seen| seen.text.clone())
        .unwrap_or_default()
}

/// Fails with what was said when the words are not in it.
fn expect_words(entry: Option<&Numbered<meta::Entry>>, words: &str) -> Result<()> {
    let said = entry.map(said).unwrap_or_default();
    if said.to_lowercase().contains(&words.to_lowercase()) {
        Ok(())
    } else {
        bail!("expected words like `{words}`, the person saw `{said}`")
    }
}
