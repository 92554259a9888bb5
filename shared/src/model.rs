//! The declared configuration: brands, tenants and what they own, as `ackline apply` writes it into the `config` bucket.
//!
//! [`entities!`](crate::entities) is the table of all kinds; a kind is a file below that implements [`Entity`]. One
//! [`Document`] declares a whole installation. Every entity is stored under its own key as JSON, by the rule for
//! [stored records](crate::stored): whoever reads a document refuses a field that an entity does not have, whoever reads
//! the bucket passes over it. Secrets are [`SecretField`]s: plain (or `env:NAME`) in a document, sealed under the
//! scope's data key in the bucket.

mod api_key;
mod app;
mod bot;
mod brand;
mod crm_link;
mod endpoint;
mod entity;
mod flow;
mod phone_number;
mod relay;
mod tenant;
mod url;

pub use api_key::{ApiKey, Reach, Scope};
pub use app::App;
pub use bot::Bot;
pub use brand::Brand;
pub use crm_link::{CrmKind, CrmLink};
pub use endpoint::Endpoint;
pub use entity::{Entity, Fault, Faults, Kind, Reference};
pub use flow::Flow;
pub use phone_number::PhoneNumber;
pub use relay::{Redelivery, Relay};
pub use tenant::Tenant;
pub use url::RequestTimeout;

use crate::secret::Secret;
use crate::stored::Stored;
use crate::vault::{Sealed, VaultError, VaultKey};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Every kind of entity: its section of a document, its type, what its map in memory is keyed by (the whole key for what
/// is owned, else the id), and what memory keeps where that is not all of it. They stand in the order in which they are written: what something refers to comes before it, and numbers come last, because with
/// its number a tenant's traffic starts.
#[macro_export]
macro_rules! entities {
    ($with:ident) => {
        $with! {
            brands: Brand [EntityId],
            tenants: Tenant [TenantId],
            apps: App [AppId],
            flows: Flow [String => HeldFlow],
            bots: Bot [String],
            relays: Relay [String],
            endpoints: Endpoint [String],
            crm_links: CrmLink [String],
            api_keys: ApiKey [String],
            phone_numbers: PhoneNumber [PhoneNumberId],
        }
    };
}

/// A secret inside the configuration, in one of its two forms.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretField(String);

impl fmt::Debug for SecretField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl SecretField {
    /// Wraps what stands in a document or in the store.
    pub fn stored(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Wraps a sealed secret.
    pub fn sealed(sealed: &Sealed) -> Self {
        Self(sealed.as_str().to_owned())
    }

    /// The variable a document wants the secret read from, for `env:NAME`.
    pub fn environment_name(&self) -> Option<&str> {
        self.0.strip_prefix("env:")
    }

    /// Opens a stored secret with the scope's data key; a plain one is given as it is.
    pub fn open(&self, key: &VaultKey, scope: &str) -> Result<Secret<String>, VaultError> {
        match Sealed::from_text(&self.0) {
            Some(sealed) => key.open(scope, &sealed),
            None => Ok(Secret::new(self.0.clone())),
        }
    }

    /// The secret as a document has it, where it stands there and can be one.
    pub fn as_plain(&self) -> Option<Secret<String>> {
        let is_elsewhere =
            self.environment_name().is_some() || Sealed::from_text(&self.0).is_some();
        (!is_elsewhere && !self.0.is_empty()).then(|| Secret::new(self.0.clone()))
    }
}

fn enabled() -> bool {
    true
}

/// Facts fixed when the installation was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// How many partitions the streams have.
    pub partitions: u16,
}

impl Stored for Installation {}

/// The scope whose data key seals what belongs to no single tenant.
pub const INSTALLATION_SCOPE: &str = "_installation";

macro_rules! document {
    ($($section:ident: $Type:ident [$Key:ty $(=> $Held:ty)?],)*) => {
        $(impl Stored for $Type {})*

        /// What is known of every kind, in the order in which they are written.
        pub const KINDS: &[Kind] = &[$(Kind::of::<$Type>(stringify!($section))),*];

        /// A whole installation, as a file declares it.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Document {
            $(
                #[doc = concat!("`[[", stringify!($section), "]]`.")]
                pub $section: Vec<$Type>,
            )*
        }
    };
}
crate::entities!(document);
