//! A step of an update's work for one target that must not be done twice, as records and headers spell it.

use std::borrow::Cow;
use std::fmt;

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Everything took effect and only has to be remembered: `*`.
    All,
    /// It was begun, and whether it took effect is not known yet: `name?`.
    Begun(Cow<'static, str>),
    Done(Cow<'static, str>),
    /// Its target refused it for good: `name!reason`.
    Refused(String),
}

impl Step {
    /// A step whose name is only known when it is done.
    pub fn begun(name: impl Into<String>) -> Self {
        Self::Begun(Cow::Owned(name.into()))
    }

    /// The same, after it took effect.
    pub fn done(name: impl Into<String>) -> Self {
        Self::Done(Cow::Owned(name.into()))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Begun(name) => write!(f, "{name}?"),
            Self::Done(name) => f.write_str(name),
            Self::Refused(text) => f.write_str(text),
        }
    }
}

impl From<&str> for Step {
    fn from(text: &str) -> Self {
        match text.strip_suffix('?') {
            _ if text == "*" => Self::All,
            _ if text.contains('!') => Self::Refused(text.to_owned()),
            Some(name) => Self::begun(name),
            None => Self::done(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_as_it_is_written() {
        for (step, text) in [
            (Step::All, "*"),
            (Step::begun("sending"), "sending?"),
            (Step::done("sent:wamid.A"), "sent:wamid.A"),
            (Step::Refused("bot!no".to_owned()), "bot!no"),
        ] {
            assert_eq!(step.to_string(), text);
            assert_eq!(Step::from(text), step);
        }
    }

    #[test]
    fn a_step_that_was_begun_is_not_the_one_that_took_effect() {
        assert_ne!(Step::begun("posting"), Step::done("posting"));
    }
}
