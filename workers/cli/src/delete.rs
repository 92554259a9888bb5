//! `ackline delete`: takes one declared part out of the store, when nothing else needs it.

use super::Outcome;
use super::agree::{Person, confirm};
use super::apply::{self, ApplyError};
use super::argument::ArgumentError;
use super::dead_letters::bad;
use super::settings::Settings;
use ackline_catalog::difference;
use ackline_catalog::part::{self, Part};
use ackline_catalog::plan::{self, Change, Plan};
use ackline_catalog::references;
use ackline_catalog::stored::{self, Stored};
use ackline_shared::ids::{EntityId, TenantId};
use ackline_shared::model::{KINDS, Kind};
use ackline_shared::nats;
use ackline_shared::subjects::BUCKET_CONFIG;
use serde_json::json;

/// Arguments of `ackline delete`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It is shown and asked for first. What others refer to is not deleted; they are named. A tenant goes with its data\nkey: nothing that was ever sealed for it can be read again.\n\n  ackline delete bot shop --tenant acme\n  ackline delete tenant acme --yes"
)]
pub struct DeleteArguments {
    #[arg(help = format!("What it is: {}", words()), value_parser = kind)]
    noun: &'static Kind,
    /// Its id
    id: String,
    /// Whose it is; not for brands, tenants, apps and phone numbers, whose ids say it
    #[arg(long)]
    tenant: Option<String>,
    /// Show it and do not ask
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// A kind as it is written on the command line.
fn word(kind: &Kind) -> String {
    kind.noun.replace(' ', "-")
}

fn words() -> String {
    KINDS.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn kind(written: &str) -> Result<&'static Kind, String> {
    let kind = KINDS.iter().find(|kind| word(kind) == written);
    kind.ok_or_else(|| format!("expected one of {}", words()))
}

impl DeleteArguments {
    fn key(&self) -> Result<String, ArgumentError> {
        let kind = self.noun;
        let tenant = match &self.tenant {
            Some(_) if !kind.is_owned => return Err(ArgumentError::NotOfTenant),
            None if kind.is_owned => return Err(ArgumentError::NoTenant),
            tenant => tenant.as_ref().map(TenantId::new).transpose(),
        };
        let tenant = tenant.map_err(ArgumentError::Tenant)?;
        let id = EntityId::new(&self.id).map_err(|error| ArgumentError::Name {
            id: self.id.clone(),
            error,
        })?;
        let key = kind.key(tenant.as_ref(), id.as_str());
        key.ok_or(ArgumentError::NoTenant)
    }
}

/// Deletes it.
pub async fn run(
    arguments: &DeleteArguments,
    settings: &Settings,
    person: &mut impl Person,
) -> Outcome {
    match arguments.key() {
        Ok(key) => delete(arguments, &key, settings, person)
            .await
            .unwrap_or_else(Outcome::from),
        Err(error) => bad(error),
    }
}

async fn delete(
    arguments: &DeleteArguments,
    key: &str,
    settings: &Settings,
    person: &mut impl Person,
) -> Result<Outcome, ApplyError> {
    let context = nats::jetstream(nats::connect(&settings.nats, "ackline-delete").await?);
    let store = stored::open(&context, BUCKET_CONFIG).await?;
    let stored = match &store {
        Some(store) => Stored::load(store).await?,
        None => Stored::default(),
    };
    let (noun, name) = part::describe(key).unwrap_or(("entry", key.to_owned()));
    let (Some(store), Some(entry)) = (store, stored.0.get(key)) else {
        return Ok(Outcome::failed(format!(
            "error: there is no {noun} {name}\n"
        )));
    };
    let referrers = references::referrers(&stored.snapshot().0, key);
    if !referrers.is_empty() {
        let used = references::in_use(key, &referrers);
        return Ok(Outcome::failed(format!("error: {used}\n")));
    }
    let plan = Plan {
        changes: plan::removal(&stored, key),
        ..Plan::default()
    };
    let shown = shown(&plan.changes, key, &entry.value);
    if let Err(outcome) = confirm(arguments.yes, &shown, "Delete it?", person) {
        return Ok(outcome);
    }
    apply::write(&store, &plan, &settings.master, &mut 0).await?;
    let out = match arguments.json {
        true => format!("{}\n", json!({"ok": true, "deleted": plan.changes})),
        false => plan
            .changes
            .iter()
            .map(|change| format!("deleted {} {}\n", change.noun, change.name))
            .collect(),
    };
    Ok(Outcome::printed(out))
}

/// What goes away, without its secrets.
fn shown(changes: &[Change], key: &str, value: &[u8]) -> String {
    let mut text = String::new();
    for change in changes {
        text.push_str(&format!("{change}\n"));
        if change.key == key
            && let Some(Ok(part)) = Part::read(key, value)
        {
            let fields = difference::fields(&part.open_side());
            text.extend(fields.iter().map(|field| format!("    {field}\n")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Asked {
        #[command(flatten)]
        arguments: DeleteArguments,
    }

    fn key(words: &str) -> Result<String, String> {
        let words = ["delete"].into_iter().chain(words.split_whitespace());
        Asked::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .arguments
            .key()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_kind_has_its_key() {
        for (words, expected) in [
            ("brand b", "brand.b"),
            ("tenant acme", "tenant.acme"),
            ("app main", "app.main"),
            ("phone-number 106", "phone.106"),
            ("flow f --tenant acme", "flow.acme.f"),
            ("bot b --tenant acme", "bot.acme.b"),
            ("relay r --tenant acme", "relay.acme.r"),
            ("endpoint e --tenant acme", "endpoint.acme.e"),
            ("crm-link c --tenant acme", "crm.acme.c"),
            ("api-key k --tenant acme", "key.acme.k"),
        ] {
            assert_eq!(key(words).as_deref(), Ok(expected));
        }
        for (words, said) in [
            ("bot b", "say whose it is"),
            ("tenant acme --tenant acme", "its id is enough"),
            ("bot a.b --tenant acme", "a.b"),
            ("pool p", "invalid value"),
        ] {
            assert!(key(words).unwrap_err().contains(said), "{words}");
        }
    }
}
