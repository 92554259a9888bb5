//! A value that never prints: not in `Debug`, not in a log, not in an error.

use std::fmt;

/// Holds a secret; reading it takes the word [`Secret::expose`], so every use can be found by search.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a secret value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Gives the value out.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// What stands for a user and a password in a URL that is shown.
const HIDDEN: &str = "[secret]";

/// A URL as it may be shown: whatever stands before its last @ may be a secret, also where the URL is wrong.
pub fn without_user(url: &str) -> String {
    match (url.rsplit_once('@'), url.split_once("://")) {
        (Some((_, host)), Some((scheme, _))) => format!("{scheme}://{HIDDEN}@{host}"),
        (Some((_, host)), None) => format!("{HIDDEN}@{host}"),
        (None, _) => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_user() {
        for (url, shown) in [
            ("nats://a:4222", "nats://a:4222"),
            ("postgres://ann:hunter2@a/db", "postgres://[secret]@a/db"),
            ("nats://ann:hun@ter2@a", "nats://[secret]@a"),
            ("ann:hunter2@a:4222", "[secret]@a:4222"),
            ("http://ann:hunter2@a b", "http://[secret]@a b"),
        ] {
            assert_eq!(without_user(url), shown);
        }
    }

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[secret]");
    }
}
