//! Checking a document as a whole: what its parts say about each other, and values that cannot work.

use super::document::{Declared, DocumentPlace, Placed};
use super::stored::Stored;
use ackline_egress::AllowList;
use ackline_flow::Compiled;
use ackline_shared::ids::{PhoneNumberId, TenantId, is_token};
use ackline_shared::model::SecretField;
use ackline_shared::registry::Snapshot;
use ackline_shared::secret::Secret;
use ackline_shared::standard_webhooks;
use ackline_shared::subjects::config_key;
use ackline_shared::vault::VaultKey;
use std::collections::BTreeMap;
use std::fmt::Display;

const API_KEY_CHARS_MIN: usize = 24;
const HOOK_TOKEN_CHARS_MIN: usize = 16;
const SHARDS: std::ops::RangeInclusive<u8> = 1..=8;

/// What was found, one sentence each.
#[derive(Debug, Default)]
pub struct Findings {
    pub mistakes: Vec<String>,
    /// What should be looked at.
    pub warnings: Vec<String>,
}

/// Checks everything at once; parts may refer to each other and to what is stored `beside` and stays.
pub fn check(declared: &Declared, beside: &Stored, findings: &mut Findings) {
    let (stored, _) = beside.snapshot();
    let mut check = Checker {
        declared,
        beside,
        stored,
        findings,
        reader: VaultKey::generate(),
    };
    check.brands_and_tenants();
    check.apps();
    check.numbers();
    check.bots_and_flows();
    check.relays();
    check.endpoints();
    check.crm_links();
    check.api_keys();
}

struct Checker<'a> {
    declared: &'a Declared,
    beside: &'a Stored,
    /// What is stored beside, as the programs hold it.
    stored: Snapshot,
    findings: &'a mut Findings,
    /// Plain secrets are read the same way as sealed ones, which asks for some key.
    reader: VaultKey,
}

impl<'a> Checker<'a> {
    fn mistake(&mut self, place: &DocumentPlace, what: impl Display) {
        self.findings.mistakes.push(format!("{place}: {what}"));
    }

    fn warning(&mut self, place: &DocumentPlace, what: impl Display) {
        self.findings.warnings.push(format!("{place}: {what}"));
    }

    fn brands_and_tenants(&mut self) {
        for brand in &self.declared.brands {
            self.id(&brand.place, brand.value.id.as_str());
        }
        for Placed { place, value } in &self.declared.tenants {
            self.id(place, value.id.as_str());
            if let Some(brand) = &value.brand {
                self.exists(
                    place,
                    config_key::brand(brand),
                    &format!("brand: there is no brand {brand}"),
                );
            }
            if !SHARDS.contains(&value.shards) {
                self.mistake(
                    place,
                    format_args!("shards: {} is outside 1 to 8", value.shards),
                );
            }
            if let Err(error) = AllowList::parse(value.egress_allow.iter().map(String::as_str)) {
                self.mistake(place, format_args!("egress_allow: {error}"));
            }
            for name in value.secrets.keys().filter(|name| !is_token(name)) {
                let form = "use 1 to 64 letters, digits, `_` or `-`";
                self.mistake(
                    place,
                    format_args!("secrets: `{name}` is no name for a secret; {form}"),
                );
            }
        }
    }

    fn apps(&mut self) {
        for Placed { place, value } in &self.declared.apps {
            self.id(place, value.id.as_str());
            if let Some(tenant) = &value.tenant {
                self.tenant(place, tenant);
            }
            if value.secrets.is_empty() {
                let what = "secrets: is empty; add the app secret of Meta's App Dashboard (App settings, Basic)";
                self.mistake(place, what);
            }
        }
    }

    fn numbers(&mut self) {
        let mut owners: BTreeMap<&str, &TenantId> = BTreeMap::new();
        for Placed { place, value } in &self.declared.phone_numbers {
            self.tenant(place, &value.tenant);
            let app = &value.app;
            self.exists(
                place,
                config_key::app(app),
                &format!("app: there is no app {app}"),
            );
            let app = self
                .declared
                .apps
                .iter()
                .find(|placed| placed.value.id == value.app);
            let owner = match app {
                Some(placed) => placed.value.tenant.clone(),
                None => self
                    .stored
                    .apps
                    .get(&value.app)
                    .and_then(|app| app.tenant.clone()),
            };
            if let Some(owner) = owner.filter(|owner| *owner != value.tenant) {
                let what = format!(
                    "app: {} belongs to tenant {owner}; name another app",
                    value.app
                );
                self.mistake(place, what);
            }
            if !is_token(&value.waba_id) {
                self.mistake(
                    place,
                    "waba_id: expected the id of the WhatsApp Business Account, digits only",
                );
            }
            let owner = *owners.entry(&value.waba_id).or_insert(&value.tenant);
            if *owner != value.tenant {
                self.warning(
                    place,
                    format_args!(
                        "waba_id: tenant {owner} has numbers of this account too; updates about the account go to one of the two"
                    ),
                );
            }
        }
    }

    fn bots_and_flows(&mut self) {
        for Placed { place, value } in &self.declared.bots {
            self.id(place, value.id.as_str());
            self.tenant(place, &value.tenant);
            self.phones(place, &value.tenant, &value.phone_numbers);
            if value.flows.is_empty() {
                self.mistake(
                    place,
                    "flows: is empty, so the bot would never answer; name at least one flow",
                );
            }
            for flow in &value.flows {
                let key = config_key::owned("flow", &value.tenant, flow);
                self.exists(
                    place,
                    key,
                    &format!("flows: tenant {} has no flow {flow}", value.tenant),
                );
            }
        }
        for Placed { place, value } in &self.declared.flows {
            self.owned(place, value.id.as_str(), &value.tenant);
            let (compiled, refused) = match Compiled::from_json(&value.definition) {
                Ok(compiled) => (Some(compiled), Vec::new()),
                Err(report) => (None, report.problems),
            };
            for problem in compiled
                .iter()
                .flat_map(|flow| flow.warnings())
                .chain(&refused)
            {
                if problem.is_error() {
                    self.mistake(place, format_args!("definition: {problem}"));
                } else {
                    self.warning(place, format_args!("definition: {problem}"));
                }
            }
        }
    }

    fn relays(&mut self) {
        for Placed { place, value } in &self.declared.relays {
            self.owned(place, value.id.as_str(), &value.tenant);
            self.url(place, &value.url);
            self.phones(place, &value.tenant, &value.phone_numbers);
            if value.concurrency == 0 {
                self.mistake(
                    place,
                    "concurrency: 0 would stop the relay; use 1 or more, or enabled = false",
                );
            }
        }
    }

    fn endpoints(&mut self) {
        for Placed { place, value } in &self.declared.endpoints {
            self.owned(place, value.id.as_str(), &value.tenant);
            self.url(place, &value.url);
            if value.secrets.is_empty() {
                self.mistake(
                    place,
                    "secrets: is empty; add a `whsec_` secret that the customer knows too",
                );
            }
            for (index, field) in value.secrets.iter().enumerate() {
                if let Some(secret) = self.plain(field)
                    && let Err(error) = standard_webhooks::key(&secret)
                {
                    self.mistake(place, format_args!("secrets[{index}]: {error}"));
                }
            }
        }
    }

    fn crm_links(&mut self) {
        for Placed { place, value } in &self.declared.crm_links {
            self.owned(place, value.id.as_str(), &value.tenant);
            self.url(place, &value.url);
            self.phones(place, &value.tenant, &value.phone_numbers);
            for (name, missing) in [
                ("account_id", value.account_id == 0),
                ("inbox_id", value.inbox_id == 0),
                ("inbox_identifier", value.inbox_identifier.is_empty()),
            ] {
                if missing {
                    self.mistake(
                        place,
                        format_args!("{name}: expected the CRM's own value, not nothing"),
                    );
                }
            }
            if let Some(token) = self.plain(&value.hook_token) {
                let text = token.expose();
                if text.len() < HOOK_TOKEN_CHARS_MIN || !is_token(text) {
                    let form = "16 to 64 letters, digits, `_` or `-`, hard to guess";
                    self.mistake(place, format_args!("hook_token: expected {form}"));
                }
            }
        }
        let tokens = self
            .declared
            .crm_links
            .iter()
            .map(|link| (&link.place, &link.value.hook_token));
        self.unique("hook_token", tokens.collect());
    }

    fn api_keys(&mut self) {
        for Placed { place, value } in &self.declared.api_keys {
            self.owned(place, value.id.as_str(), &value.tenant);
            if let Some(key) = self.plain(&value.key) {
                let usable = key.expose().bytes().all(|byte| byte.is_ascii_graphic());
                if key.expose().len() < API_KEY_CHARS_MIN || !usable {
                    let how = "make one with `openssl rand -hex 24`";
                    self.mistake(
                        place,
                        format_args!("key: expected at least 24 printable characters; {how}"),
                    );
                }
            }
            if value.scopes.is_empty() {
                self.mistake(
                    place,
                    "scopes: is empty, so the key could do nothing; leave it out for all",
                );
            }
        }
        let keys = self
            .declared
            .api_keys
            .iter()
            .map(|key| (&key.place, &key.value.key));
        self.unique("key", keys.collect());
    }

    fn owned(&mut self, place: &DocumentPlace, id: &str, tenant: &TenantId) {
        self.id(place, id);
        self.tenant(place, tenant);
    }

    fn id(&mut self, place: &DocumentPlace, id: &str) {
        if id.starts_with('_') {
            self.mistake(
                place,
                "id: ids that start with `_` are reserved; choose another",
            );
        }
    }

    fn tenant(&mut self, place: &DocumentPlace, tenant: &TenantId) {
        self.exists(
            place,
            config_key::tenant(tenant),
            &format!("tenant: there is no tenant {tenant}"),
        );
    }

    fn exists(&mut self, place: &DocumentPlace, key: String, missing: &str) {
        if !self.declared.keys.contains(&key) && !self.beside.0.contains_key(&key) {
            let places = "in this file or among what is stored and stays";
            self.mistake(
                place,
                format_args!("{missing} {places}; declare it or correct the name"),
            );
        }
    }

    fn phones(&mut self, place: &DocumentPlace, tenant: &TenantId, phones: &[PhoneNumberId]) {
        for id in phones {
            let missing = format!("phone_numbers: there is no phone number {id}");
            self.exists(place, config_key::phone(id), &missing);
            let number = self
                .declared
                .phone_numbers
                .iter()
                .find(|placed| placed.value.id == *id);
            let owner = match number {
                Some(placed) => Some(placed.value.tenant.clone()),
                None => self
                    .stored
                    .phones
                    .get(id)
                    .map(|number| number.tenant.clone()),
            };
            if let Some(owner) = owner.filter(|owner| owner != tenant) {
                self.mistake(
                    place,
                    format_args!("phone_numbers: {id} belongs to tenant {owner}, not {tenant}"),
                );
            }
        }
    }

    fn url(&mut self, place: &DocumentPlace, text: &str) {
        match url::Url::parse(text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => {
                self.mistake(
                    place,
                    "url: expected an address that starts with https:// or http://",
                );
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                self.mistake(
                    place,
                    "url: addresses must not hold user names or passwords; remove them",
                );
            }
            Ok(_) => {}
            Err(error) => self.mistake(place, format_args!("url: is not an address: {error}")),
        }
    }

    /// The plain text of a secret that was read without a mistake.
    fn plain(&self, field: &SecretField) -> Option<Secret<String>> {
        if field.environment_name().is_some() {
            return None;
        }
        field
            .open(&self.reader, "")
            .ok()
            .filter(|text| !text.expose().is_empty())
    }

    fn unique(&mut self, name: &str, fields: Vec<(&'a DocumentPlace, &'a SecretField)>) {
        let mut seen: BTreeMap<String, &DocumentPlace> = BTreeMap::new();
        for (place, field) in fields {
            let Some(secret) = self.plain(field) else {
                continue;
            };
            if let Some(first) = seen.insert(secret.expose().clone(), place) {
                self.mistake(
                    place,
                    format_args!("{name}: has the same value as that of {first}; make it differ"),
                );
            }
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
            "phone number 106540352242922: app: main belongs to tenant globex",
            "phone number 106540352242922: waba_id",
            "bot acme/shop: phone_numbers: there is no phone number 7",
            "bot acme/shop: flows: tenant acme has no flow gone",
            "flow acme/welcome: definition: E",
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
        assert!(
            findings.mistakes[0].contains("106540352242922 belongs to tenant acme, not globex")
        );
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
