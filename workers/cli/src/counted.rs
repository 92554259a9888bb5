//! A count of dead letters or of the past, as people and scripts read it.

use super::dead_letters::{line, pretty};
use super::{EXIT_CHANGES, EXIT_OK, Outcome, figures};
use ackline_replay::{Count, terms};
use ackline_shared::clock::now_ms;
use std::time::Duration;

/// Tenants shown of a count; those after them are summed up.
const TENANTS_SHOWN: usize = 20;

/// A count with what it is of, as people read it.
pub struct Counted<'a> {
    /// How many.
    pub count: &'a Count,
    noun: &'a str,
    sent: Sent,
}

/// Which sends go out that are otherwise left out.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Sent {
    /// Also send messages again whose answer was lost: their recipient may get them twice
    #[arg(long)]
    pub include_ambiguous: bool,
    /// Also send messages that are older than their window of 24 h, which Meta may refuse; templates are sent anyway
    #[arg(long)]
    pub include_expired: bool,
}

impl<'a> Counted<'a> {
    /// A count of these.
    pub fn new(count: &'a Count, noun: &'a str) -> Self {
        Self {
            count,
            noun,
            sent: Sent::default(),
        }
    }

    /// The same under a job that sends these, too.
    pub fn sending(self, sent: Sent) -> Self {
        Self { sent, ..self }
    }

    /// The outcome of a command that only counts.
    pub fn outcome(&self, json: bool) -> Outcome {
        Outcome::printed(if json {
            pretty(self.count)
        } else {
            self.text()
        })
    }

    /// The same of a dry run: exit status 2 when there is anything.
    pub fn dry_run(&self, json: bool) -> Outcome {
        let code = if self.count.total > 0 {
            EXIT_CHANGES
        } else {
            EXIT_OK
        };
        Outcome {
            code,
            ..self.outcome(json)
        }
    }

    /// How many, how old, and by pool, tenant and reason.
    pub fn text(&self) -> String {
        let (count, mut out) = (self.count, String::new());
        match count.total {
            0 => line(&mut out, format_args!("no {}", self.noun)),
            total => line(&mut out, format_args!("{total} {}", self.noun)),
        }
        if let (Some(oldest), Some(newest)) = (&count.oldest_received_at, &count.newest_received_at)
        {
            let now = now_ms();
            line(
                &mut out,
                format_args!(
                    "  received between {} and {}",
                    since(oldest, now),
                    since(newest, now)
                ),
            );
        }
        for (pool, count) in &count.pools {
            line(&mut out, format_args!("  {count:>8}  pool {pool}"));
        }
        let mut tenants: Vec<(&String, &u64)> = count.tenants.iter().collect();
        tenants.sort_by(|one, two| two.1.cmp(one.1));
        for (tenant, count) in tenants.iter().take(TENANTS_SHOWN) {
            line(&mut out, format_args!("  {count:>8}  tenant {tenant}"));
        }
        if let Some(others) = tenants
            .get(TENANTS_SHOWN..)
            .filter(|others| !others.is_empty())
        {
            let sum: u64 = others.iter().map(|(_, count)| **count).sum();
            line(
                &mut out,
                format_args!("  {sum:>8}  of {} other tenants", others.len()),
            );
        }
        for reason in &count.reasons {
            line(
                &mut out,
                format_args!("  {:>8}  {}", reason.count, reason.reason),
            );
        }
        self.left_out(&mut out);
        if !count.complete {
            line(
                &mut out,
                format_args!("  there may be more: not everything was looked at in time"),
            );
        }
        out
    }

    fn left_out(&self, out: &mut String) {
        let (ambiguous, expired) = (self.count.ambiguous, self.count.expired);
        let Sent {
            include_ambiguous,
            include_expired,
        } = self.sent;
        for (count, what, flag, is_sent) in [
            (
                ambiguous,
                "may have reached their recipient",
                "--include-ambiguous",
                include_ambiguous,
            ),
            (
                expired,
                "are sends older than their window of 24 h",
                "--include-expired",
                include_expired,
            ),
        ] {
            match (count, is_sent) {
                (0, _) => {}
                (_, true) => line(
                    out,
                    format_args!("  {count} of them {what} and are sent all the same"),
                ),
                (_, false) => line(
                    out,
                    format_args!("  {count} of them {what}: a replay sends them only with {flag}"),
                ),
            }
        }
    }
}

/// How long ago a time was, in the unit people use.
fn since(at: &str, now_ms: u64) -> String {
    let ago_ms = terms::time(at, now_ms).map_or(0, |at_ms| now_ms.saturating_sub(at_ms));
    if ago_ms == 0 {
        "now".to_owned()
    } else {
        format!("{} ago", figures::age(Duration::from_millis(ago_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_tells_age_the_largest_tenants_and_what_is_left_out() {
        let tenants = (0..25_u64).map(|n| (format!("t{n:02}"), 100 + n)).collect();
        let count = Count {
            total: 7,
            complete: true,
            tenants,
            ambiguous: 1,
            expired: 2,
            oldest_received_at: Some("1970-01-01T00:00:00Z".into()),
            newest_received_at: Some("9999-01-01T00:00:00Z".into()),
            ..Count::default()
        };
        let text = Counted::new(&count, "dead letters").text();
        for part in [
            "7 dead letters\n",
            "d ago and now\n",
            "  124  tenant t24\n",
            "  510  of 5 other tenants\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.contains(
            "2 of them are sends older than their window of 24 h: a replay sends them only with --include-exp"
        ));
        let sent = Sent {
            include_ambiguous: false,
            include_expired: true,
        };
        let text = Counted::new(&count, "dead letters").sending(sent).text();
        assert!(
            text.contains("older than their window of 24 h and are sent all the same"),
            "{text}"
        );
        assert!(text.contains("only with --include-ambiguous"), "{text}");
    }
}
