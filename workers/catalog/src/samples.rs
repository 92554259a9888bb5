//! A document for this module's tests, with every family in it, and the secrets in it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use ackline_shared::model::Document;

pub const SECRETS: [&str; 10] = [
    "s3cret-openai",
    "s3cret-app-one",
    "s3cret-app-two",
    "s3cret-verify",
    "s3cret-token",
    "s3cret-relay",
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "s3cret-chatwoot",
    "hook-token-0123456789",
    "s3cret-api-key-0123456789abcdef",
];

pub const TEXT: &str = r#"
[[brands]]
id = "ackline"
name = "Ackline"

[[tenants]]
id = "acme"
name = "Acme"
brand = "ackline"
[tenants.secrets]
openai = "s3cret-openai"

[[tenants]]
id = "globex"
name = "Globex"

[[apps]]
id = "main"
secrets = ["s3cret-app-one", "s3cret-app-two"]
verify_token = "s3cret-verify"

[[phone_numbers]]
id = "106540352242922"
tenant = "acme"
app = "main"
waba_id = "102290129340398"
access_token = "s3cret-token"

[[bots]]
id = "shop"
tenant = "acme"
flows = ["welcome"]
phone_numbers = ["106540352242922"]

[[flows]]
id = "welcome"
tenant = "acme"

[flows.definition]
format = 1
name = "Welcome"
start = "hello"
entry = [{ on = "any" }]

[flows.definition.nodes.hello]
kind = "message.text"
body = "Hi"
exits = { next = "bye" }

[flows.definition.nodes.bye]
kind = "end"

[[relays]]
id = "old"
tenant = "acme"
url = "https://bot.example.com/webhook"
app_secret = "s3cret-relay"

[[endpoints]]
id = "main"
tenant = "acme"
url = "https://acme.example.com/webhooks"
secrets = ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]

[[crm_links]]
id = "desk"
tenant = "acme"
kind = "chatwoot"
url = "https://chat.example.com"
account_id = 1
inbox_id = 1
inbox_identifier = "abc"
access_token = "s3cret-chatwoot"
hook_token = "hook-token-0123456789"

[[api_keys]]
id = "ci"
tenant = "acme"
key = "s3cret-api-key-0123456789abcdef"
"#;

pub fn document() -> Document {
    toml::from_str(TEXT).unwrap()
}
