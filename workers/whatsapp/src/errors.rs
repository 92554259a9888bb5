//! What Meta's error codes mean for us: whether, when and how often to try again, and what a person should do.
//!
//! Decided by `error.code` alone, as Meta advises (error code reference of the Cloud API, 2026-09); the HTTP
//! status decides only when there is no code or one that is not listed.

use std::time::Duration;

/// How to go on after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Meta's own trouble: try again, at most this often in all.
    Transient(u32),
    /// What this one message needs is not ready yet: wait at least this long.
    Sync(Duration),
    /// Something above the number is limited (app, account, maintenance): wait at least this long.
    Wait(Duration),
    /// The sending number is too fast: hold all of its sends this long.
    Throttle(Duration),
    /// Too many messages to this one person; others go on.
    PairRate,
    /// The token is not accepted: try again after somebody had time to mend it.
    Auth,
    /// Trying again would not help.
    Permanent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    pub class: Class,
    /// What it is and what to do, in words.
    pub words: &'static str,
}

const NUMBER_PAUSE: Duration = Duration::from_secs(1);
const LIMIT_WAIT: Duration = Duration::from_secs(60);
const UPGRADE_WAIT: Duration = Duration::from_secs(60);
const SYNC_WAIT: Duration = Duration::from_secs(600);
const FEW: u32 = 3;
const MANY: u32 = u32::MAX;

/// The longest pair wait: a burst of 45 borrowed from one message per 6 s is paid back after 270 s.
const PAIR_EXPONENT_MAX: u32 = 4;

/// The wait after the `hits`-th pair rate error in a row, from 1: Meta's own 4^X seconds with X from 0.
pub fn pair_wait(hits: u32) -> Duration {
    Duration::from_secs(4_u64.pow(hits.saturating_sub(1).min(PAIR_EXPONENT_MAX)))
}

/// Says what a code means; `status` is the HTTP status it came with.
pub fn meaning(code: i64, status: u16) -> Meaning {
    use Class::{Auth, PairRate, Permanent, Sync, Throttle, Transient, Wait};
    let (class, words) = match code {
        0 | 104 | 190 => (
            Auth,
            "the access token is missing, expired or revoked; set a new access_token for the number and apply it",
        ),
        1 => (
            Transient(FEW),
            "Meta calls it an invalid request or an error of its own",
        ),
        2 | 131_016 | 133_004 => (Transient(MANY), "Meta is unavailable or overloaded"),
        131_000 => (Transient(MANY), "something went wrong at Meta"),
        131_057 => (
            Wait(UPGRADE_WAIT),
            "the account is in maintenance, usually for a minute",
        ),
        4 => (Wait(LIMIT_WAIT), "the app's call limit is reached"),
        80_007 => (
            Wait(LIMIT_WAIT),
            "the WhatsApp Business Account's rate limit is reached",
        ),
        131_208 => (Wait(LIMIT_WAIT), "the group rate limit is reached"),
        130_429 => (
            Throttle(NUMBER_PAUSE),
            "the number sends faster than its throughput",
        ),
        131_056 => (PairRate, "too many messages to this person in a short time"),
        134_101 => (Sync(SYNC_WAIT), "the template is still being synchronised"),
        3 | 10 | 200..=299 | 131_005 => (
            Permanent,
            "the token lacks the permission whatsapp_business_messaging for this number; grant it, then replay",
        ),
        33 => (
            Permanent,
            "the business number was deleted at Meta; remove it from the configuration",
        ),
        100 | 131_008 | 131_009 | 135_000 => (Permanent, "a parameter is wrong or missing"),
        368 | 131_031 => (
            Permanent,
            "the account is restricted or locked by Meta; see the Account Quality page",
        ),
        130_403 => (Permanent, "the business blocked this person"),
        130_472 => (
            Permanent,
            "Meta withholds this marketing message from this person as part of an experiment",
        ),
        130_497 => (
            Permanent,
            "the account may not message people in this country",
        ),
        131_021 => (Permanent, "the recipient is the sending number itself"),
        131_026 => (
            Permanent,
            "it cannot be delivered: not on WhatsApp, an old version, or terms not accepted",
        ),
        131_037 => (Permanent, "the number needs an approved display name"),
        131_042 => (
            Permanent,
            "the account has a payment problem; mend it in Meta's billing settings, then replay",
        ),
        131_045 | 133_010 => (
            Permanent,
            "the number is not registered with the Cloud API; register it, then replay",
        ),
        131_047 => (
            Permanent,
            "the 24-hour window is closed; only a template may be sent now",
        ),
        131_048 => (
            Permanent,
            "the number is restricted after reports of spam; wait for Meta to lift it, then replay",
        ),
        131_049 => (
            Permanent,
            "Meta limits marketing messages to this person; not before 24 hours from now",
        ),
        131_050 => (Permanent, "this person opted out of marketing messages"),
        131_051 => (Permanent, "the message type is not supported"),
        131_052 | 131_053 => (
            Permanent,
            "the media could not be fetched or is not accepted",
        ),
        131_055 | 131_063 | 134_100 | 134_102 => (
            Permanent,
            "the number may not use the marketing messages API",
        ),
        131_062 => (
            Permanent,
            "this kind of message needs a phone number, not a user id",
        ),
        131_064 => (
            Permanent,
            "template sending is restricted; wait for Meta to lift it, then replay",
        ),
        132_000 | 132_005 | 132_007 | 132_012 | 132_018 => (
            Permanent,
            "the template's parameters do not fit its approved form",
        ),
        132_001 => (
            Permanent,
            "the template does not exist in this language or is not approved",
        ),
        132_015 => (Permanent, "the template is paused for low quality"),
        132_016 => (Permanent, "the template is disabled for low quality"),
        132_068 | 132_069 => (
            Permanent,
            "the WhatsApp Flow is blocked or throttled for its errors",
        ),
        133_000 | 133_005 | 133_006 | 133_008 | 133_009 | 133_015 | 133_016 => (
            Permanent,
            "the number's registration or PIN needs attention",
        ),
        134_011 => (Permanent, "the terms of WhatsApp payments are not accepted"),
        _ => return unlisted(status),
    };
    Meaning { class, words }
}

/// An error without a code we know goes by its HTTP status.
pub fn unlisted(status: u16) -> Meaning {
    let (class, words) = match status {
        401 => (Class::Auth, "the access token is not accepted"),
        429 => (Class::Throttle(NUMBER_PAUSE), "too many requests"),
        500..=599 => (Class::Transient(FEW), "an error at Meta"),
        _ => (
            Class::Permanent,
            "refused with an error that is not in Meta's list",
        ),
    };
    Meaning { class, words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_decide_and_the_http_status_does_not() {
        for status in [200, 400, 429, 500] {
            assert_eq!(meaning(131_047, status).class, Class::Permanent);
            assert_eq!(meaning(131_000, status).class, Class::Transient(MANY));
            assert_eq!(meaning(190, status).class, Class::Auth);
            assert_eq!(meaning(131_056, status).class, Class::PairRate);
            assert_eq!(
                meaning(130_429, status).class,
                Class::Throttle(NUMBER_PAUSE)
            );
            assert_eq!(meaning(4, status).class, Class::Wait(LIMIT_WAIT));
        }
    }

    #[test]
    fn a_code_nobody_knows_goes_by_its_http_status() {
        let table = [
            (401, Class::Auth),
            (429, Class::Throttle(NUMBER_PAUSE)),
            (503, Class::Transient(FEW)),
            (400, Class::Permanent),
        ];
        for (status, class) in table {
            assert_eq!(meaning(999_999, status).class, class, "{status}");
        }
    }

    #[test]
    fn the_pair_wait_grows_by_four_up_to_the_time_a_burst_is_paid_back() {
        let seconds: Vec<u64> = (1..=7).map(|hits| pair_wait(hits).as_secs()).collect();
        assert_eq!(seconds, [1, 4, 16, 64, 256, 256, 256]);
    }
}
