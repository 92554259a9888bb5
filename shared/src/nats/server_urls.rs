//! Where the servers are: URLs that may name a user and a password, and never print them.

use crate::secret::without_user;
use std::fmt;

/// The configured URLs, separated by commas; only [`ServerUrls::expose`] gives them out whole.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrls(String);

impl ServerUrls {
    /// Takes what is configured, right or wrong.
    pub fn new(urls: impl Into<String>) -> Self {
        Self(urls.into())
    }

    /// Each URL as configured.
    pub fn expose(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').map(str::trim)
    }

    /// Whether several servers are named.
    pub fn are_several(&self) -> bool {
        self.0.contains(',')
    }
}

impl fmt::Display for ServerUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, url) in self.expose().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", without_user(url))?;
        }
        Ok(())
    }
}

impl fmt::Debug for ServerUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_no_password_and_no_token_prints() {
        for (urls, shown) in [
            ("nats://a:4222", "nats://a:4222"),
            (
                "nats://ann:hunter2@a:4222,tls://tok@b",
                "nats://[secret]@a:4222, tls://[secret]@b",
            ),
        ] {
            let read = ServerUrls::new(urls);
            assert_eq!(
                (read.to_string(), format!("{read:?}")),
                (shown.to_owned(), format!("\"{shown}\""))
            );
        }
        assert_eq!(
            ServerUrls::new("a, b").expose().collect::<Vec<_>>(),
            ["a", "b"]
        );
    }
}
