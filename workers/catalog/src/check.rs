//! Checking what is declared: what an entity says by itself, and what entities say about each other.
//!
//! The kinds have their own checks beside their types; here is what is the same for all, and what asks an engine.

use super::document::{Declared, DocumentPlace, Placed};
use super::part::Part;
use super::references;
use super::stored::Stored;
use ackline_egress::AllowList;
use ackline_flow::Compiled;
use ackline_shared::ids::TenantId;
use ackline_shared::model::{Entity, Fault, Faults, Flow, Kind, Tenant};
use ackline_shared::registry::{Held, Snapshot};
use ackline_shared::vault::VaultKey;
use serde_json::Value;
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Display;

/// Things that are missing and told of; somebody may name any number.
const MISSING_MAX: usize = 100;

/// What was found, one sentence each.
#[derive(Debug, Default)]
pub struct Findings {
    pub mistakes: Vec<String>,
    /// What should be looked at.
    pub warnings: Vec<String>,
}

impl Findings {
    fn mistake(&mut self, place: &DocumentPlace, what: impl Display) {
        self.mistakes.push(format!("{place}: {what}"));
    }
}

/// What is wrong with an entity by itself.
pub fn by_itself<T: Entity>(entity: &T) -> Faults {
    let mut faults = Faults::default();
    if entity.id().starts_with('_') {
        faults.add(
            "/id",
            "ids that start with `_` are reserved; choose another",
        );
    }
    entity.check(&mut faults);
    let entity = entity as &dyn Any;
    if let Some(tenant) = entity.downcast_ref::<Tenant>() {
        destinations(tenant, &mut faults);
    }
    if let Some(flow) = entity.downcast_ref::<Flow>() {
        faults.0.extend(definition(&flow.definition));
    }
    faults
}

fn destinations(tenant: &Tenant, faults: &mut Faults) {
    let entries = tenant.egress_allow.iter().map(String::as_str);
    if let Err(error) = AllowList::parse(entries) {
        faults.add("/egress_allow", error.to_string());
    }
}

/// What the engine says of a flow's definition: warnings when it takes it, problems when it does not.
pub fn definition(definition: &Value) -> Vec<Fault> {
    let (compiled, refused) = match Compiled::from_json(definition) {
        Ok(compiled) => (Some(compiled), Vec::new()),
        Err(report) => (None, report.problems),
    };
    let warnings = compiled.iter().flat_map(|flow| flow.warnings());
    let fault = |problem: &ackline_flow::report::Problem| {
        let node = |node: &String| node.replace('~', "~0").replace('/', "~1");
        let place = problem.node.as_ref().map(node);
        Fault {
            at: place.map_or_else(
                || "/definition".to_owned(),
                |node| format!("/definition/nodes/{node}"),
            ),
            code: Some(problem.code),
            detail: problem.message.clone(),
            is_warning: !problem.is_error(),
        }
    };
    warnings.chain(&refused).map(fault).collect()
}

/// What an entity of a tenant refers to and the tenant does not have; nothing is said of other tenants.
pub fn missing(entity: &dyn Held, among: &Snapshot) -> Faults {
    let mut faults = Faults::default();
    for reference in references::needs(entity) {
        if faults.0.len() >= MISSING_MAX {
            break;
        }
        let found = among.get(&reference.key);
        let is_its =
            |found: &dyn Held| found.tenant().is_none() || found.tenant() == entity.tenant();
        if !found.is_some_and(is_its) {
            faults.add(
                reference.at,
                format!("there is no {}", named(&reference.key)),
            );
        }
    }
    faults
}

/// What a key holds, by the name that its own tenant uses.
fn named(key: &str) -> String {
    match Kind::of_key(key) {
        Some((kind, name)) => {
            let id = name.rsplit('/').next().unwrap_or_default();
            format!("{} {id}", kind.noun)
        }
        None => "such thing".to_owned(),
    }
}

/// Checks everything at once; parts may refer to each other and to what is stored `beside` and stays.
pub fn check(declared: &Declared, beside: &Stored, findings: &mut Findings) {
    let (stored, _) = beside.snapshot();
    let parts = declared.parts.iter();
    let owners: BTreeMap<String, Option<&TenantId>> = parts
        .map(|part| (part.value.key(), part.value.owner()))
        .collect();
    for Placed { place, value } in &declared.parts {
        for fault in value.faults().0 {
            let line = format!("{place}: {}", said(&fault));
            match fault.is_warning {
                true => findings.warnings.push(line),
                false => findings.mistakes.push(line),
            }
        }
        for reference in references::needs(value.held()) {
            let (at, key) = (path(&reference.at), &reference.key);
            if !declared.keys.contains(key) && !beside.0.contains_key(key) {
                let what = format_args!("{at}: there is no {}", named(key));
                let places = "in this file or among what is stored and stays";
                findings.mistake(
                    place,
                    format_args!("{what} {places}; declare it or correct the name"),
                );
                continue;
            }
            let stored = || stored.get(key).and_then(Held::tenant);
            let owner = owners.get(key).copied().unwrap_or_else(stored);
            if let (Some(owner), Some(own)) = (owner, value.owner())
                && owner != own
            {
                let what = named(key);
                findings.mistake(
                    place,
                    format_args!("{at}: {what} belongs to tenant {owner}, not {own}"),
                );
            }
        }
    }
    distinct(declared, findings);
    accounts(declared, findings);
}

/// A fault as a line: its place with dots, its code where it has one.
fn said(fault: &Fault) -> String {
    let code = fault
        .code
        .map_or_else(String::new, |code| format!("{code} "));
    match path(&fault.at) {
        path if path.is_empty() => format!("{code}{}", fault.detail),
        path => format!("{path}: {code}{}", fault.detail),
    }
}

/// A JSON pointer as people write it in a document.
fn path(pointer: &str) -> String {
    let mut path = String::new();
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        match token.parse::<usize>() {
            Ok(index) => path.push_str(&format!("[{index}]")),
            Err(_) if path.is_empty() => path = token,
            Err(_) => path.push_str(&format!(".{token}")),
        }
    }
    path
}

/// Secrets by which somebody is recognised must differ.
fn distinct(declared: &Declared, findings: &mut Findings) {
    // Plain secrets are read the same way as sealed ones, which asks for some key.
    let any = VaultKey::generate();
    let mut seen: BTreeMap<(&str, String), &DocumentPlace> = BTreeMap::new();
    for Placed { place, value } in &declared.parts {
        let kind = value.kind();
        let Some(name) = kind.distinct else {
            continue;
        };
        let secrets = value.open_secrets(&any).unwrap_or_default();
        let Some(secret) = secrets.get(name).filter(|secret| is_plain(secret.expose())) else {
            continue;
        };
        if let Some(first) = seen.insert((kind.family, secret.expose().clone()), place) {
            findings.mistake(
                place,
                format_args!("{name}: has the same value as that of {first}; make it differ"),
            );
        }
    }
}

/// Whether a secret was read without a mistake.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.starts_with("env:")
}

/// Warns of an account that several tenants have numbers of.
fn accounts(declared: &Declared, findings: &mut Findings) {
    let mut owners: BTreeMap<&str, &TenantId> = BTreeMap::new();
    for Placed { place, value } in &declared.parts {
        let Part::PhoneNumber(number) = value else {
            continue;
        };
        let owner = *owners.entry(&number.waba_id).or_insert(&number.tenant);
        if *owner != number.tenant {
            findings.warnings.push(format!(
                "{place}: waba_id: tenant {owner} has numbers of this account too; updates about the account go to one of the two"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::{self, Format, Surroundings};
    use super::super::stored::StoredEntry;
    use super::*;
    use crate::samples;

    fn findings(text: &str) -> Findings {
        findings_beside(text, &Stored::default())
    }

    fn findings_beside(text: &str, beside: &Stored) -> Findings {
        let mut findings = Findings::default();
        let surroundings = Surroundings {
            file: &|_| Err("no files".to_owned()),
            variable: &|_| None,
        };
        let declared = document::read(text, Format::Toml, &surroundings, &mut findings.mistakes);
        check(&declared, beside, &mut findings);
        findings
    }

    #[test]
    fn the_sample_has_no_mistakes() {
        let findings = findings(samples::TEXT);
        assert_eq!(findings.mistakes, Vec::<String>::new());
        assert_eq!(findings.warnings, Vec::<String>::new());
    }

    #[test]
    fn what_a_file_refers_to_may_be_stored_beside_it() {
        let beside = [
            ("tenant.acme", r#"{"id":"acme","name":"Acme"}"#),
            (
                "app.main",
                r#"{"id":"main","secrets":["s"],"verify_token":"t"}"#,
            ),
            (
                "app.own",
                r#"{"id":"own","tenant":"globex","secrets":["s"],"verify_token":"t"}"#,
            ),
            (
                "flow.acme.f",
                r#"{"id":"f","tenant":"acme","definition":{}}"#,
            ),
            (
                "phone.1",
                r#"{"id":"1","tenant":"acme","app":"main","waba_id":"W","access_token":"t"}"#,
            ),
            (
                "phone.2",
                r#"{"id":"2","tenant":"globex","app":"main","waba_id":"W","access_token":"t"}"#,
            ),
        ];
        let entry = |value: &str| StoredEntry {
            revision: 1,
            value: value.to_owned().into(),
        };
        let beside = Stored(
            beside
                .into_iter()
                .map(|(key, value)| (key.to_owned(), entry(value)))
                .collect(),
        );
        let bot = |number: &str| {
            format!(
                "[[bots]]\nid='b'\ntenant='acme'\nflows=['f']\nphone_numbers=['{number}']\n[[phone_numbers]]\nid='3'\ntenant='acme'\napp='main'\nwaba_id='W'\naccess_token='t'"
            )
        };
        assert_eq!(
            findings_beside(&bot("1"), &beside).mistakes,
            Vec::<String>::new()
        );
        assert_eq!(
            findings(&bot("1")).mistakes.len(),
            5,
            "without what is stored none of it is there"
        );
        let foreign = bot("2").replace("app='main'", "app='own'");
        let reported = findings_beside(&foreign, &beside).mistakes.join("\n");
        assert!(
            reported.contains("2 belongs to tenant globex")
                && reported.contains("own belongs to tenant globex"),
            "{reported}"
        );
    }

    #[test]
    fn every_mistake_is_found_at_once() {
        let text = samples::TEXT
            .replace(
                "brand = \"ackline\"",
                "brand = \"gone\"\nshards = 9\negress_allow = [\"*.lan\"]",
            )
            .replace(
                "secrets = [\"s3cret-app-one\", \"s3cret-app-two\"]",
                "secrets = []\ntenant = \"globex\"",
            )
            .replace("waba_id = \"102290129340398\"", "waba_id = \"a b\"")
            .replace("flows = [\"welcome\"]", "flows = [\"welcome\", \"gone\"]")
            .replace(
                "phone_numbers = [\"106540352242922\"]",
                "phone_numbers = [\"106540352242922\", \"7\"]",
            )
            .replace("start = \"hello\"", "start = \"gone\"")
            .replace(
                "id = \"old\"\ntenant = \"acme\"",
                "id = \"_old\"\ntenant = \"gone\"\nconcurrency = 0",
            )
            .replace("https://bot.example.com/webhook", "ftp://bot.example.com")
            .replace(
                "https://acme.example.com/webhooks",
                "https://user:s3cret-url@acme.example.com",
            )
            .replace("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_s3cret")
            .replace("account_id = 1", "account_id = 0")
            .replace("hook-token-0123456789", "s3cret/hook")
            .replace("s3cret-api-key-0123456789abcdef", "s3cret-key");
        let findings = findings(&text);
        let all = findings.mistakes.join("\n");
        for part in [
            "tenant acme: brand: there is no brand gone",
            "tenant acme: shards: 9 is outside",
            "tenant acme: egress_allow: `*.lan` is not",
            "app main: secrets: is empty",
            "phone number 106540352242922: app: app main belongs to tenant globex, not acme",
            "phone number 106540352242922: waba_id",
            "bot acme/shop: phone_numbers[1]: there is no phone number 7",
            "bot acme/shop: flows[1]: there is no flow gone",
            "flow acme/welcome: definition: E003 ",
            "relay gone/_old: id: ids that start",
            "relay gone/_old: tenant: there is no tenant gone",
            "relay gone/_old: url: expected",
            "relay gone/_old: concurrency",
            "endpoint acme/main: url: addresses must not hold",
            "endpoint acme/main: secrets[0]",
            "crm link acme/desk: account_id",
            "crm link acme/desk: hook_token",
            "api key acme/ci: key: expected at least 24",
        ] {
            assert!(all.contains(part), "{part} in\n{all}");
        }
        assert!(!all.contains("s3cret"), "{all}");
        assert!(
            findings
                .mistakes
                .iter()
                .all(|mistake| mistake.starts_with("line ")),
            "{all}"
        );
    }

    #[test]
    fn a_number_of_another_tenant_and_a_shared_account_are_told() {
        let more = "\n[[phone_numbers]]\nid = \"8\"\ntenant = \"globex\"\napp = \"main\"\nwaba_id = \"102290129340398\"\naccess_token = \"x\"\n[[relays]]\nid = \"r\"\ntenant = \"globex\"\nurl = \"http://127.0.0.1:1\"\nphone_numbers = [\"106540352242922\"]\n[[api_keys]]\nid = \"two\"\ntenant = \"globex\"\nkey = \"s3cret-api-key-0123456789abcdef\"\n";
        let findings = findings(&format!("{}{more}", samples::TEXT));
        assert_eq!(findings.mistakes.len(), 2, "{:?}", findings.mistakes);
        assert!(findings.mistakes[0].contains(
            "phone_numbers[0]: phone number 106540352242922 belongs to tenant acme, not globex"
        ));
        assert!(
            findings.mistakes[1]
                .contains("api key globex/two: key: has the same value as that of line")
        );
        assert_eq!(findings.warnings.len(), 1, "{:?}", findings.warnings);
    }

    #[test]
    fn a_reference_to_a_malformed_part_is_no_second_mistake() {
        let findings = findings(&samples::TEXT.replace("name = \"Acme\"", "nmae = \"Acme\""));
        assert_eq!(findings.mistakes.len(), 1, "{:?}", findings.mistakes);
    }
}
