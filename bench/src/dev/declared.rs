//! What the demo's document declares, as far as whoever plays Meta and the customer has to know it.
//!
//! The document names the fixed addresses of `make run`; a copy with the real ones is what gets applied.

use super::ports::Ports;
use crate::meta::Number;
use crate::sink::ChatwootOptions;
use ackline_shared::secret::Secret;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The document, from the repository's root.
pub const DOCUMENT: &str = "deploy/dev/demo.toml";
/// Where definitions lie, beside their document.
const FLOWS: &str = "flows";

/// The parts of the document that matter here.
#[derive(Debug, Deserialize)]
pub struct Declared {
    apps: Vec<App>,
    phone_numbers: Vec<PhoneNumber>,
    #[serde(default)]
    relays: Vec<Target>,
    #[serde(default)]
    endpoints: Vec<Target>,
    #[serde(default)]
    crm_links: Vec<CrmLink>,
    api_keys: Vec<ApiKey>,
}

#[derive(Debug, Deserialize)]
struct App {
    id: String,
    secrets: Vec<Plain>,
    verify_token: Plain,
}

#[derive(Debug, Clone, Deserialize)]
struct PhoneNumber {
    id: String,
    tenant: String,
    waba_id: String,
    access_token: Plain,
}

#[derive(Debug, Deserialize)]
struct Target {
    url: String,
    #[serde(default)]
    secrets: Vec<Plain>,
    app_secret: Option<Plain>,
}

#[derive(Debug, Deserialize)]
struct CrmLink {
    id: String,
    tenant: String,
    account_id: u64,
    inbox_id: u64,
    inbox_identifier: String,
    access_token: Plain,
    webhook_secret: Option<Plain>,
    hook_token: Plain,
}

#[derive(Debug, Deserialize)]
struct ApiKey {
    tenant: String,
    key: Plain,
}

/// A secret as the document writes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "String")]
struct Plain(Secret<String>);

impl From<String> for Plain {
    fn from(text: String) -> Self {
        Self(Secret::new(text))
    }
}

impl Declared {
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("reading {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    fn app(&self) -> Result<&App> {
        self.apps.first().context("the document declares no app")
    }

    /// The path of the webhook that is registered with Meta.
    pub fn webhook_path(&self) -> Result<String> {
        Ok(format!("/webhooks/meta/{}", self.app()?.id))
    }

    /// The secret that signs webhooks.
    pub fn app_secret(&self) -> Result<Secret<String>> {
        Ok(self
            .app()?
            .secrets
            .first()
            .context("the app has no secret")?
            .0
            .clone())
    }

    /// What Meta repeats in the handshake.
    pub fn verify_token(&self) -> Result<Secret<String>> {
        Ok(self.app()?.verify_token.0.clone())
    }

    /// The tokens of the business numbers.
    pub fn access_tokens(&self) -> Vec<Secret<String>> {
        self.phone_numbers
            .iter()
            .map(|number| number.access_token.0.clone())
            .collect()
    }

    /// The business numbers, in the document's order.
    pub fn numbers(&self) -> Vec<Number> {
        self.phone_numbers
            .iter()
            .map(|number| Number::new(&number.id, &number.waba_id))
            .collect()
    }

    /// The first business number of a tenant.
    pub fn number_of(&self, tenant: &str) -> Result<String> {
        let found = self
            .phone_numbers
            .iter()
            .find(|number| number.tenant == tenant);
        Ok(found
            .with_context(|| format!("{tenant} has no phone number"))?
            .id
            .clone())
    }

    /// The API key of a tenant.
    pub fn api_key(&self, tenant: &str) -> Result<Secret<String>> {
        let found = self.api_keys.iter().find(|key| key.tenant == tenant);
        Ok(found
            .with_context(|| format!("{tenant} has no API key"))?
            .key
            .0
            .clone())
    }

    /// The secrets of the customer's endpoints, by the last segment of their address.
    pub fn endpoints(&self) -> BTreeMap<String, Vec<Secret<String>>> {
        let secrets = |endpoint: &Target| {
            endpoint
                .secrets
                .iter()
                .map(|secret| secret.0.clone())
                .collect()
        };
        self.endpoints
            .iter()
            .map(|endpoint| (endpoint.name(), secrets(endpoint)))
            .collect()
    }

    /// The app secrets of the existing bots, by the last segment of their address.
    pub fn bots(&self) -> Result<BTreeMap<String, Vec<Secret<String>>>> {
        let own = self.app_secret()?;
        let secret = |relay: &Target| {
            relay
                .app_secret
                .as_ref()
                .map_or_else(|| own.clone(), |secret| secret.0.clone())
        };
        Ok(self
            .relays
            .iter()
            .map(|relay| (relay.name(), vec![secret(relay)]))
            .collect())
    }

    /// The stand-in for Chatwoot, reporting to the API.
    pub fn chatwoot(&self, ports: &Ports) -> Option<ChatwootOptions> {
        let link = self.crm_links.first()?;
        let hook = format!(
            "{}/hooks/chatwoot/{}/{}/{}",
            ports.api.url(),
            link.tenant,
            link.id,
            link.hook_token.0.expose()
        );
        Some(ChatwootOptions {
            account_id: link.account_id,
            inbox_id: link.inbox_id,
            inbox_identifier: link.inbox_identifier.clone(),
            access_token: link.access_token.0.clone(),
            webhook_url: Some(Secret::new(hook)),
            webhook_secret: link.webhook_secret.as_ref().map(|secret| secret.0.clone()),
        })
    }
}

impl Target {
    fn name(&self) -> String {
        self.url.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

/// Copies a document and its flows with the real addresses in them; gives the copy to apply.
pub fn copy(document: &Path, data: &Path, ports: &Ports) -> Result<PathBuf> {
    let target = data.join("declared");
    let flows = target.join("flows");
    std::fs::create_dir_all(&flows).with_context(|| format!("making {}", flows.display()))?;
    let copied = target.join("document.toml");
    copy_file(document, &copied, ports)?;
    let definitions = document.with_file_name(FLOWS);
    let reading = || format!("reading {}", definitions.display());
    for entry in std::fs::read_dir(&definitions).with_context(reading)? {
        let entry = entry?;
        copy_file(&entry.path(), &flows.join(entry.file_name()), ports)?;
    }
    Ok(copied)
}

fn copy_file(from: &Path, to: &Path, ports: &Ports) -> Result<()> {
    let text =
        std::fs::read_to_string(from).with_context(|| format!("reading {}", from.display()))?;
    std::fs::write(to, with_addresses(&text, ports))
        .with_context(|| format!("writing {}", to.display()))
}

/// Replaces the fixed addresses in one pass, so that a real one that looks like a fixed one stays.
fn with_addresses(text: &str, ports: &Ports) -> String {
    const FIXED: &str = "127.0.0.1:808";
    let mut parts = text.split(FIXED);
    let mut moved = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let real = match part.chars().next() {
            Some('3') => Some(ports.sink),
            Some('2') => Some(ports.simulator),
            _ => None,
        };
        match real {
            Some(port) => {
                moved.push_str(&port.address().to_string());
                moved.extend(part.chars().skip(1));
            }
            None => moved.extend([FIXED, part]),
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_addresses_of_the_simulators_become_the_real_ones() {
        let mut ports = Ports::free().await.unwrap();
        (ports.sink.number, ports.simulator.number) = (8082, 5);
        let text =
            "http://127.0.0.1:8083/relay/globex http://127.0.0.1:8082 http://127.0.0.1:8081/";
        let moved = with_addresses(text, &ports);
        assert_eq!(
            moved,
            "http://127.0.0.1:8082/relay/globex http://127.0.0.1:5 http://127.0.0.1:8081/"
        );
    }

    #[test]
    fn the_repositorys_document_says_what_the_simulators_need() {
        let declared =
            Declared::read(&ackline_shared::testing::workspace_dir().join(DOCUMENT)).unwrap();
        assert_eq!(declared.webhook_path().unwrap(), "/webhooks/meta/main");
        assert_eq!(declared.endpoints().keys().collect::<Vec<_>>(), ["acme"]);
        assert_eq!(
            declared.bots().unwrap().keys().collect::<Vec<_>>(),
            ["globex"]
        );
        assert!(declared.number_of("acme").is_ok() && declared.api_key("acme").is_ok());
        assert!(declared.number_of("globex").is_ok());
    }
}
