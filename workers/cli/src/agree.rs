//! What is asked before much is done at once: what it is about is shown, and somebody says yes.

use super::Outcome;
use super::counted::Counted;
use super::dead_letters::bad;
use std::io::{BufRead, IsTerminal, Write};

/// Who can be asked while a command runs.
pub trait Person {
    /// Shows something before the command ends.
    fn show(&mut self, text: &str);

    /// The answer to a question of yes or no; `None` when nobody is there to give one.
    fn answer(&mut self, question: &str) -> Option<bool>;
}

/// Nobody is there, and nothing is shown before the end.
#[derive(Debug)]
pub struct Nobody;

impl Person for Nobody {
    fn show(&mut self, _text: &str) {}

    fn answer(&mut self, _question: &str) -> Option<bool> {
        None
    }
}

/// Whoever sits at the terminal that the command was started from, if there is one.
#[derive(Debug)]
pub struct AtTerminal;

impl Person for AtTerminal {
    fn show(&mut self, text: &str) {
        let _nobody_reads_it = std::io::stderr().write_all(text.as_bytes());
    }

    fn answer(&mut self, question: &str) -> Option<bool> {
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return None;
        }
        self.show(&format!("{question} [y/N] "));
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        Some(read.is_ok() && is_yes(&line))
    }
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_lowercase().as_str(), "y" | "yes")
}

/// How a yes is given before anybody asks.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AgreeArguments {
    /// Show what it is about and do not ask
    #[arg(long, short, conflicts_with = "count")]
    pub yes: bool,
    /// Do not ask if these are so many, as a dry run told; another number changes nothing
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

impl AgreeArguments {
    /// Goes on when somebody agrees to do this to what was counted.
    pub fn settle(
        &self,
        counted: &Counted<'_>,
        question: &str,
        person: &mut dyn Person,
    ) -> Result<(), Outcome> {
        let total = counted.count.total;
        if let Some(reported) = self.count {
            return match counted.count.complete {
                true if reported == total => Ok(()),
                true => Err(bad(format!(
                    "nothing was changed: these are {total} now; say --count {total} when that is meant"
                ))),
                false => Err(bad(
                    "nothing was changed: there are more than could be counted; narrow them, such as by --from and --to",
                )),
            };
        }
        let shown = counted.text();
        if self.yes {
            person.show(&shown);
            return Ok(());
        }
        person.show(&shown);
        let how = format!("say --yes, or --count {total} for exactly so many");
        settle(person.answer(question), &how)
    }
}

/// Goes on when somebody agrees to what is shown, or a yes was given before.
pub fn confirm(
    yes: bool,
    shown: &str,
    question: &str,
    person: &mut dyn Person,
) -> Result<(), Outcome> {
    person.show(shown);
    if yes {
        return Ok(());
    }
    settle(person.answer(question), "say --yes when this is meant")
}

/// Goes on after a yes; without anybody to ask, says how a yes is given.
pub fn settle(answer: Option<bool>, how: &str) -> Result<(), Outcome> {
    match answer {
        Some(true) => Ok(()),
        Some(false) => Err(Outcome::failed("nothing was changed\n")),
        None => Err(bad(format!(
            "nothing was changed: there is no terminal to ask at; {how}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::EXIT_FAILED;
    use super::*;
    use ackline_replay::Count;
    use ackline_shared::config::EXIT_CONFIG;

    /// Says always the same, and keeps what was shown.
    struct Says(Option<bool>, String);

    impl Person for Says {
        fn show(&mut self, text: &str) {
            self.1.push_str(text);
        }

        fn answer(&mut self, question: &str) -> Option<bool> {
            self.1.push_str(question);
            self.0
        }
    }

    fn asked(
        arguments: &AgreeArguments,
        complete: bool,
        says: Option<bool>,
    ) -> (Result<(), Outcome>, String) {
        let count = Count {
            total: 3,
            complete,
            ..Count::default()
        };
        let mut person = Says(says, String::new());
        let settled =
            arguments.settle(&Counted::new(&count, "dead letters"), "Go on?", &mut person);
        (settled, person.1)
    }

    #[test]
    fn somebody_sees_what_it_is_about_and_says_yes() {
        let ask = AgreeArguments::default();
        let (settled, shown) = asked(&ask, true, Some(true));
        assert_eq!(
            (settled, shown.as_str()),
            (Ok(()), "3 dead letters\nGo on?")
        );
        let refused = asked(&ask, true, Some(false)).0.unwrap_err();
        assert_eq!(
            (refused.code, refused.err.as_str()),
            (EXIT_FAILED, "nothing was changed\n")
        );
        let nobody = asked(&ask, true, None).0.unwrap_err();
        assert_eq!(nobody.code, EXIT_CONFIG);
        assert!(
            nobody.err.contains("--yes") && nobody.err.contains("--count 3"),
            "{nobody:?}"
        );
        assert!(is_yes("Y\n") && is_yes("yes") && !is_yes("\n") && !is_yes("yea") && !is_yes("n"));
    }

    #[test]
    fn what_is_confirmed_is_shown_and_asked_for_unless_a_yes_was_given() {
        let said = |yes, says| {
            let mut person = Says(says, String::new());
            let code =
                confirm(yes, "- bot b\n", "Delete?", &mut person).map_err(|outcome| outcome.code);
            (code, person.1)
        };
        assert_eq!(
            said(false, Some(true)),
            (Ok(()), "- bot b\nDelete?".to_owned())
        );
        assert_eq!(said(true, None), (Ok(()), "- bot b\n".to_owned()));
        assert_eq!(said(false, Some(false)).0, Err(EXIT_FAILED));
        assert_eq!(said(false, None).0, Err(EXIT_CONFIG));
    }

    #[test]
    fn a_yes_given_before_asks_nobody_and_a_number_must_be_the_right_one() {
        let (settled, shown) = asked(
            &AgreeArguments {
                yes: true,
                count: None,
            },
            false,
            None,
        );
        assert!(
            settled.is_ok() && shown.starts_with("3 dead letters\n") && !shown.contains("Go on?")
        );
        let count = |count| AgreeArguments {
            yes: false,
            count: Some(count),
        };
        assert_eq!(asked(&count(3), true, None), (Ok(()), String::new()));
        let other = asked(&count(2), true, Some(true)).0.unwrap_err();
        assert!(other.err.contains("these are 3 now"), "{other:?}");
        assert!(
            asked(&count(3), false, Some(true)).0.is_err(),
            "there may be more than these"
        );
    }
}
