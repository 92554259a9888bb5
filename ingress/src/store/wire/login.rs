//! How the edge says who it is when it connects: nothing, a user of the URL, or a credentials file.

use super::servers::Server;
use ackline_shared::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use std::path::Path;

/// The contents of a credentials file, if there is one.
#[derive(Debug, Default)]
pub struct Login(Option<Credentials>);

#[derive(Debug)]
struct Credentials {
    jwt: Secret<String>,
    seed: Secret<String>,
}

/// The credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The file cannot be read.
    #[error("cannot read nats.credentials_file: {0}")]
    Unread(std::io::Error),
    /// The file has no JWT and seed.
    #[error(
        "nats.credentials_file holds no JWT followed by a seed, as `nsc generate creds` writes them"
    )]
    Incomplete,
    #[error("the seed in nats.credentials_file cannot sign: {0}")]
    Seed(nkeys::error::Error),
}

impl Login {
    pub async fn load(path: Option<&Path>) -> Result<Self, LoginError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text = tokio::fs::read_to_string(path)
            .await
            .map_err(LoginError::Unread)?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, LoginError> {
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let mut framed = lines.windows(3).filter_map(|lines| match lines {
            [before, text, after] if is_frame(before) && is_frame(after) && !text.is_empty() => {
                Some(*text)
            }
            _ => None,
        });
        let (Some(jwt), Some(seed)) = (framed.next(), framed.next()) else {
            return Err(LoginError::Incomplete);
        };
        KeyPair::from_seed(seed).map_err(LoginError::Seed)?;
        Ok(Self(Some(Credentials {
            jwt: Secret::new(jwt.to_owned()),
            seed: Secret::new(seed.to_owned()),
        })))
    }

    /// The line that opens a session, signing the server's nonce.
    pub fn connect(&self, server: &Server, nonce: &str, name: &str) -> Result<Vec<u8>, LoginError> {
        let mut options = json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true, "protocol": 1,
            "tls_required": server.tls, "lang": "rust", "name": name, "version": env!("CARGO_PKG_VERSION"),
        });
        let mut set = |name: &str, value: &str| {
            if let Some(options) = options.as_object_mut() {
                options.insert(name.to_owned(), Value::String(value.to_owned()));
            }
        };
        match (&self.0, &server.user) {
            (Some(credentials), _) => {
                let key =
                    KeyPair::from_seed(credentials.seed.expose()).map_err(LoginError::Seed)?;
                let signature = key.sign(nonce.as_bytes()).map_err(LoginError::Seed)?;
                set("jwt", credentials.jwt.expose());
                set("sig", &URL_SAFE_NO_PAD.encode(signature));
            }
            (None, Some((user, Some(password)))) => {
                set("user", user);
                set("pass", password.expose());
            }
            (None, Some((token, None))) => set("auth_token", token),
            (None, None) => {}
        }
        Ok(format!("CONNECT {options}\r\n").into_bytes())
    }
}

fn is_frame(line: &str) -> bool {
    line.starts_with("---") && line.ends_with("---")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &[u8]) -> Value {
        let text = std::str::from_utf8(line).unwrap();
        serde_json::from_str(
            text.strip_prefix("CONNECT ")
                .unwrap()
                .strip_suffix("\r\n")
                .unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn credentials_sign_the_servers_nonce() {
        let key = KeyPair::new_user();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\nhead.body.sig\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\nkeep it\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            key.seed().unwrap()
        );
        let login = Login::parse(&text).unwrap();
        let options = options(
            &login
                .connect(&Server::parse("a").unwrap(), "nonce", "edge")
                .unwrap(),
        );
        assert_eq!(options["jwt"], "head.body.sig");
        let signature = URL_SAFE_NO_PAD
            .decode(options["sig"].as_str().unwrap())
            .unwrap();
        key.verify(b"nonce", &signature).unwrap();
        assert!(!format!("{login:?}").contains("head.body"));
        assert!(matches!(
            Login::parse("-----\nx\n-----\n"),
            Err(LoginError::Incomplete)
        ));
        assert!(matches!(
            Login::parse("---\nx\n---\ny\n---\nz\n---\n"),
            Err(LoginError::Seed(_))
        ));
    }

    #[test]
    fn a_user_of_the_url_or_a_token_is_told() {
        let connect = |url: &str| {
            options(
                &Login::default()
                    .connect(&Server::parse(url).unwrap(), "", "edge")
                    .unwrap(),
            )
        };
        let user = connect("nats://ann:secret@a");
        assert_eq!(
            (&user["user"], &user["pass"]),
            (&json!("ann"), &json!("secret"))
        );
        assert_eq!(connect("nats://token@a")["auth_token"], "token");
        assert_eq!(connect("tls://a")["tls_required"], true);
    }
}
