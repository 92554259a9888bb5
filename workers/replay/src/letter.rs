//! A dead letter as its headers tell it, and the replay that follows from it; pure.

use super::job::ReplayJob;
use ackline_engine::step::Step;
use ackline_runtime::whole::Whole;
use ackline_shared::envelope::{Head, Replay, parts};
use ackline_shared::ids::{EntityId, TenantId, UpdateId};
use ackline_shared::subjects::{DEAD, Pool, Subject, header};
use ackline_whatsapp::verdict::{ANSWER_LOST, SENDING};
use async_nats::HeaderMap;

/// The kind of what could not be read; no pool can do anything with it.
const UNREADABLE: &str = "unreadable";
/// The kind of the one send that may go out whenever it likes.
const TEMPLATE: &str = "send.template";
/// How long after it was asked for a send that is no template may be sent again. Meta takes such a message for 24 h
/// after the person's last one, which came before the answer to it was asked for.
///
/// Source: WhatsApp Business Platform, customer service windows (error 131047 outside of one).
const SEND_WINDOW_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its place among the dead letters.
    pub sequence: u64,
    /// The pool that gave it up.
    pub pool: Pool,
    pub tenant: TenantId,
    pub reason: String,
    /// How often it was tried.
    pub attempts: Option<u64>,
    /// When the edge had it, in unix milliseconds.
    pub received_ms: Option<u64>,
    /// When it was given up, in unix milliseconds.
    pub at_ms: Option<u64>,
    pub origin: Option<Origin>,
    /// What it was, such as `message.text`.
    pub kind: String,
    pub id: UpdateId,
    pub phone: Option<String>,
    /// The conversation it belongs to.
    pub conversation: Option<String>,
    pub done: Vec<String>,
    /// What it repeated, when it was a replay itself.
    pub replay_of: Option<String>,
    /// The one target it was for, when it was a replay for one.
    pub target: Option<EntityId>,
    /// Its payload, when it holds only the beginning of it.
    pub cut: Option<Whole>,
}

/// Where a dead letter came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub stream: String,
    pub sequence: u64,
    pub subject: String,
}

impl Origin {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (stream, sequence, subject) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            stream: stream.to_owned(),
            sequence: sequence.parse().ok()?,
            subject: subject.to_owned(),
        })
    }
}

impl Letter {
    /// Reads a message of the stream; `None` for one that no pool wrote.
    pub fn read(sequence: u64, subject: &str, headers: &HeaderMap) -> Option<Self> {
        let Some(Subject::Dead(pool, tenant)) = Subject::parse(subject) else {
            return None;
        };
        let mut letter = Self {
            sequence,
            pool,
            tenant,
            reason: String::new(),
            attempts: None,
            received_ms: None,
            at_ms: None,
            origin: None,
            kind: String::new(),
            id: UpdateId::new(""),
            phone: None,
            conversation: None,
            done: Vec::new(),
            replay_of: None,
            target: None,
            cut: None,
        };
        let (mut id, mut message_id, mut length) = (None, None, None);
        // Counting reads a great many letters: one walk costs less than a look-up for each field.
        for (name, values) in headers.iter() {
            let Some(value) = values.first().map(|value| value.as_str()) else {
                continue;
            };
            match name.as_ref() {
                header::DEAD_REASON => letter.reason = value.to_owned(),
                header::DEAD_ATTEMPTS => letter.attempts = value.parse().ok(),
                header::DEAD_AT => letter.at_ms = value.parse().ok(),
                header::DEAD_ORIGIN => letter.origin = Origin::read(value),
                header::DEAD_ID => id = Some(value),
                header::DEAD_DONE => letter.done = parts(value),
                header::RECEIVED => letter.received_ms = value.parse().ok(),
                header::KIND => letter.kind = value.to_owned(),
                header::PHONE => letter.phone = Some(value.to_owned()),
                header::CONVERSATION => letter.conversation = Some(value.to_owned()),
                header::REPLAY_OF => letter.replay_of = Some(value.to_owned()),
                header::REPLAY_TARGET => letter.target = EntityId::new(value).ok(),
                header::DEAD_CUT => length = value.parse().ok(),
                header::MSG_ID => message_id = Some(value),
                _ => {}
            }
        }
        letter.cut = length.zip(message_id).map(|(length, name)| Whole {
            name: name.to_owned(),
            length,
        });
        letter.id = UpdateId::new(id.or(message_id).unwrap_or_default());
        Some(letter)
    }

    /// Whether its effect may have taken place: a message that Meta may have accepted.
    pub fn is_ambiguous(&self) -> bool {
        let was_sending = || self.done.iter().any(|part| is_sending(part));
        self.pool == Pool::Replies && (self.reason.contains(ANSWER_LOST) || was_sending())
    }

    /// Whether it is a message that came too late: an answer to yesterday's question, which Meta refuses unless the
    /// person wrote again since.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        let age_ms = self
            .received_ms
            .map_or(0, |asked_ms| now_ms.saturating_sub(asked_ms));
        self.pool == Pool::Replies && self.kind != TEMPLATE && age_ms > SEND_WINDOW_MS
    }

    /// The head of its replay by a job, or why there is none.
    pub fn replay(
        &self,
        headers: &HeaderMap,
        job: &ReplayJob,
        now_ms: u64,
    ) -> Result<Head, &'static str> {
        if self.kind == UNREADABLE {
            return Err("it could not be read, and no pool can");
        }
        if self.is_ambiguous() && !job.include_ambiguous {
            return Err(
                "the person may have the message already; include ambiguous ones to send it again",
            );
        }
        if self.is_expired(now_ms) && !job.include_expired {
            return Err(
                "the send is older than 24 h and its window may be closed; include expired ones to send it all the same",
            );
        }
        let origin = self
            .origin
            .as_ref()
            .ok_or("it does not say where it came from")?;
        let mut headers = headers.clone();
        headers.insert(header::MSG_ID, self.id.as_str());
        let head =
            Head::read(&origin.subject, &headers).map_err(|_| "its headers cannot be read")?;
        if head.tenant != self.tenant {
            return Err("it does not say whose it is");
        }
        let target = job.target.as_ref().and_then(|target| target.id.clone());
        let done = self
            .done
            .iter()
            .filter(|part| !is_sending(part))
            .cloned()
            .collect();
        // A letter that was no replay holds what its pool was given, and that is what the edge stored.
        let was_verbatim = head
            .replay
            .as_ref()
            .map_or(self.replay_of.is_none(), |replay| replay.verbatim);
        let verbatim = was_verbatim && !job.is_edit();
        Ok(Head {
            id: job.replay_id(&self.id),
            signature: head.signature.filter(|_| verbatim),
            replay: Some(Box::new(Replay {
                pool: self.pool,
                of: format!("{DEAD}:{}", self.sequence),
                id: self.id.clone(),
                target: target.or_else(|| self.target.clone()),
                done,
                verbatim,
            })),
            ..head
        })
    }
}

/// Whether a step is a send whose answer is not known.
fn is_sending(part: &str) -> bool {
    Step::from(part) == SENDING
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::job;
    use crate::{Filter, Source};
    use ackline_shared::subjects;

    const NOW: u64 = 5 + SEND_WINDOW_MS;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let all = [
            (header::MSG_ID, "dead:relay:UPDATES:9"),
            (header::DEAD_ID, "wamid.A="),
            (header::DEAD_REASON, "relay old: answered 500"),
            (header::DEAD_ORIGIN, "UPDATES:9:in.3.msg.acme"),
            (header::DEAD_DONE, "crm-bot,other"),
            (header::KIND, "message.text"),
            (header::CONVERSATION, "u:US.1"),
            (header::RECEIVED, "5"),
            (header::SIGNATURE, "sha256=00"),
        ];
        for (name, value) in all.iter().chain(pairs) {
            headers.insert(*name, *value);
        }
        headers
    }

    fn letter(pool: &str, headers: &HeaderMap) -> Letter {
        let subject = subjects::dead(pool.parse().unwrap(), &TenantId::new("acme").unwrap());
        Letter::read(17, &subject, headers).unwrap()
    }

    #[test]
    fn a_replay_is_the_original_for_its_pool_alone_without_what_is_done() {
        let (headers, job) = (headers(&[]), job(Source::Letters(Filter::default())));
        let head = letter("relay", &headers)
            .replay(&headers, &job, NOW)
            .unwrap();
        assert_eq!(head.subject(), "rp.relay.3.msg.acme");
        assert_eq!(head.id.as_str(), "wamid.A=~rp_1");
        assert_eq!(head.signature.as_deref(), Some("sha256=00"));
        let replay = head.replay.unwrap();
        assert_eq!((replay.of.as_str(), replay.done.len()), ("DEAD:17", 2));
    }

    #[test]
    fn a_replay_that_died_keeps_the_first_id_and_its_one_target() {
        let again = headers(&[
            (header::DEAD_ORIGIN, "UPDATES:12:rp.relay.3.msg.acme"),
            (header::REPLAY_OF, "DEAD:3"),
            (header::REPLAY_ID, "wamid.A="),
            (header::REPLAY_TARGET, "old"),
        ]);
        let letter = letter("relay", &again);
        assert_eq!(letter.replay_of.as_deref(), Some("DEAD:3"));
        let head = letter
            .replay(&again, &job(Source::Letters(Filter::default())), NOW)
            .unwrap();
        assert_eq!(
            (head.id.as_str(), head.subject().as_str()),
            ("wamid.A=~rp_1", "rp.relay.3.msg.acme")
        );
        assert!(
            head.is_for(&EntityId::new("old").unwrap())
                && !head.is_for(&EntityId::new("x").unwrap())
        );
    }

    #[test]
    fn edited_bytes_have_no_signature_of_metas() {
        let (headers, edit) = (
            headers(&[]),
            Source::Letter {
                sequence: 17,
                payload: Some("{}".into()),
            },
        );
        assert_eq!(
            letter("relay", &headers)
                .replay(&headers, &job(edit), NOW)
                .unwrap()
                .signature,
            None
        );
    }

    /// The headers that a pool gives the dead letter of a replay, as `core::dead` writes them.
    fn died(head: &Head) -> HeaderMap {
        let mut headers = head.to_headers();
        headers.insert(header::DEAD_ID, head.original_id().as_str());
        headers.insert(
            header::DEAD_ORIGIN,
            format!("UPDATES:12:{}", head.subject()),
        );
        headers
    }

    #[test]
    fn what_was_edited_once_is_never_again_what_the_edge_stored() {
        let edit = job(Source::Letter {
            sequence: 17,
            payload: Some("{}".into()),
        });
        let plain = job(Source::Letters(Filter::default()));
        let replay = |headers: &HeaderMap, job: &ReplayJob| {
            letter("relay", headers).replay(headers, job, NOW)
        };
        for (first, second, third, is_verbatim) in [
            (&plain, &plain, &plain, true),
            (&edit, &plain, &plain, false),
            (&plain, &edit, &plain, false),
            (&plain, &plain, &edit, false),
        ] {
            let mut letter = headers(&[]);
            for job in [first, second, third] {
                letter = died(&replay(&letter, job).unwrap());
            }
            let head = replay(&letter, &plain).unwrap();
            assert_eq!(
                (head.is_verbatim(), head.signature.is_some()),
                (is_verbatim, is_verbatim)
            );
        }
    }

    #[test]
    fn a_replay_that_does_not_say_it_is_verbatim_is_not() {
        let plain = job(Source::Letters(Filter::default()));
        let (update, replayed) = ("UPDATES:12:in.3.msg.acme", "UPDATES:12:rp.relay.3.msg.acme");
        for (origin, replay) in [(replayed, true), (update, true), (update, false)] {
            let of = [
                (header::REPLAY_OF, "DEAD:3"),
                (header::REPLAY_ID, "wamid.A="),
            ];
            let mut pairs = vec![(header::DEAD_ORIGIN, origin)];
            pairs.extend(of.into_iter().filter(|_| replay));
            let headers = headers(&pairs);
            let head = letter("relay", &headers)
                .replay(&headers, &plain, NOW)
                .unwrap();
            assert_eq!(
                (head.is_verbatim(), head.signature.is_some()),
                (!replay, !replay),
                "{origin}"
            );
        }
    }

    #[test]
    fn a_message_that_may_have_gone_out_is_sent_again_only_when_asked_for() {
        let lost = [
            (header::DEAD_ORIGIN, "OUTBOUND:9:out.3.live.acme"),
            (
                header::DEAD_REASON,
                "Meta's answer was lost (it took too long); …",
            ),
            (header::DEAD_DONE, "sending?"),
        ];
        let headers = headers(&lost);
        let letter = letter("replies", &headers);
        let mut job = job(Source::Letters(Filter::default()));
        assert!(
            letter
                .replay(&headers, &job, NOW)
                .unwrap_err()
                .contains("ambiguous")
        );
        job.include_ambiguous = true;
        let head = letter.replay(&headers, &job, NOW).unwrap();
        let origin = lost[0].1.rsplit(':').next();
        assert_eq!(
            (
                Some(head.subject().as_str()),
                head.replay.unwrap().done.len()
            ),
            (origin, 0)
        );
    }

    #[test]
    fn a_send_of_yesterday_is_sent_again_only_when_asked_for_unless_it_is_a_template() {
        let expired = |pool: &str, kind: &str, now_ms: u64| {
            let origin = (header::DEAD_ORIGIN, "OUTBOUND:9:out.3.live.acme");
            let headers = headers(&[origin, (header::KIND, kind)]);
            let letter = letter(pool, &headers);
            let mut job = job(Source::Letters(Filter::default()));
            let refusal = letter.replay(&headers, &job, now_ms).err();
            job.include_expired = true;
            assert!(letter.replay(&headers, &job, now_ms).is_ok());
            assert_eq!(refusal.is_some(), letter.is_expired(now_ms));
            refusal.is_some_and(|reason| reason.contains("older than 24 h"))
        };
        assert!(
            expired("replies", "send.text", NOW + 1)
                && expired("replies", "send.buttons", u64::MAX)
        );
        assert!(!expired("replies", "send.text", NOW) && !expired("replies", "send.text", 0));
        assert!(
            !expired("replies", "send.template", u64::MAX)
                && !expired("relay", "message.text", u64::MAX)
        );
    }

    #[test]
    fn what_names_no_origin_or_another_tenants_is_not_replayed() {
        let job = job(Source::Letters(Filter::default()));
        for origin in [
            "",
            "UPDATES:x:in.3.msg.acme",
            "UPDATES:9:in.3.msg.globex",
            "UPDATES:9:elsewhere",
        ] {
            let headers = headers(&[(header::DEAD_ORIGIN, origin)]);
            assert!(
                letter("relay", &headers)
                    .replay(&headers, &job, NOW)
                    .is_err(),
                "{origin}"
            );
        }
    }
}
