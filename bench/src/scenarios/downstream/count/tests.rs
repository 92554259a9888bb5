//! What is counted, on made-up notes.

use super::super::cell::Fault;
use super::*;

const RELAY: Cell = Cell {
    kind: Kind::Relay,
    fault: Fault::Hang,
    is_flooded: false,
};

struct Story {
    start: Instant,
    entries: Vec<Entry>,
    failing: Vec<Note>,
    healthy: Vec<Note>,
    letters: Vec<Seen>,
}

impl Story {
    fn new(updates: u32) -> Self {
        let start = Instant::now();
        let entry = |serial: u32| Entry {
            due: Duration::from_secs(serial.into()),
            update: Update {
                serial,
                tenant: 0,
                person: 1,
                is_status: false,
                second: false,
            },
            cell: 0,
            phase: Phase::Outage,
            sides: &[Side::Failing, Side::Healthy],
        };
        let entries: Vec<_> = (0..updates).map(entry).collect();
        let mut story = Self {
            start,
            entries,
            failing: vec![],
            healthy: vec![],
            letters: vec![],
        };
        story.healthy = (0..updates)
            .map(|serial| story.note(serial, serial.into(), 0, 200))
            .collect();
        story
    }

    /// A request that was answered with a status, or with 0 lost.
    fn note(&self, serial: u32, at_s: u64, took_s: u64, status: u16) -> Note {
        let at = self.start + Duration::from_secs(at_s);
        let (ending, is_done) = match status {
            0 => (Ending::Lost, false),
            status => (Ending::Answered(status), status == 200),
        };
        Note {
            serial: Some(serial),
            part: None,
            at,
            ended: at + Duration::from_secs(took_s),
            ending,
            is_done,
        }
    }

    fn asked(mut self, serial: u32, at_s: u64, took_s: u64, status: u16) -> Self {
        let note = self.note(serial, at_s, took_s, status);
        self.failing.push(note);
        self
    }

    fn buried(mut self, serial: u32, reason: &str) -> Self {
        self.letters.push(Seen {
            serial,
            conversation: String::new(),
            partition: 0,
            at_ms: 0,
            pool: Some(Pool::Relay),
            reason: Some(reason.to_owned()),
        });
        self
    }

    fn count(&self, cell: Cell, mended_s: u64, is_held: bool) -> Account {
        let evidence = Evidence {
            cells: &[cell],
            entries: &self.entries,
            start: self.start,
            mended: self.start + Duration::from_secs(mended_s),
            retry_after: Duration::from_secs(5),
            failing: vec![self.failing.clone()],
            healthy: self.healthy.clone(),
            letters: self.letters.clone(),
        };
        evidence.count(|_| is_held).remove(0)
    }
}

#[test]
fn a_repeat_after_a_lost_answer_is_told_from_one_after_an_answer() {
    let story = Story::new(1)
        .asked(0, 0, 3, 0)
        .asked(0, 63, 0, 200)
        .asked(0, 64, 0, 200);
    let account = story.count(RELAY, 10, false);
    assert_eq!((account.doubled, account.doubled_lost_answers), (1, 1));
    let graph = Cell {
        kind: Kind::Graph,
        ..RELAY
    };
    assert_eq!(story.count(graph, 10, false).doubled, 2);
}

#[test]
fn a_recovery_counts_from_when_the_target_may_be_asked_again() {
    let timed_out = Story::new(1)
        .asked(0, 2, 8, 0)
        .asked(0, 73, 0, 200)
        .count(RELAY, 15, false);
    assert_eq!(
        (timed_out.waited, timed_out.recovery),
        (1, Some(Duration::from_secs(3)))
    );
    let throttled = Story::new(1)
        .asked(0, 12, 0, 429)
        .asked(0, 19, 0, 200)
        .count(RELAY, 15, false);
    assert_eq!(throttled.recovery, Some(Duration::from_secs(2)));
    let unavailable = Story::new(1)
        .asked(0, 12, 0, 503)
        .asked(0, 19, 0, 200)
        .count(RELAY, 15, false);
    assert_eq!(unavailable.recovery, Some(Duration::from_secs(4)));
    let meanwhile = Story::new(1).asked(0, 12, 0, 200).count(RELAY, 15, false);
    assert_eq!((meanwhile.waited, meanwhile.recovery), (0, None));
}

#[test]
fn what_is_missing_is_lost_or_stuck_or_dead() {
    let story = Story::new(3).asked(0, 0, 0, 200);
    assert_eq!(story.count(RELAY, 15, false).lost, 2);
    assert_eq!(story.count(RELAY, 15, true).stuck, 2);
    let buried = story
        .buried(1, "gave up after 6 attempts")
        .buried(1, "gave up after 6 attempts");
    let account = buried
        .buried(2, "Meta's answer was lost (reset)")
        .count(RELAY, 15, true);
    assert_eq!(
        (
            account.dead,
            account.unconfirmed,
            account.lost,
            account.stuck
        ),
        (1, 1, 0, 0)
    );
}

#[test]
fn order_is_that_of_the_conversation_at_each_target() {
    let story = Story::new(3)
        .asked(1, 20, 0, 200)
        .asked(0, 21, 0, 200)
        .asked(2, 22, 0, 200);
    assert_eq!(story.count(RELAY, 15, false).out_of_order, 1);
}

#[test]
fn what_never_reaches_the_healthy_target_waits_for_ever() {
    let mut story = Story::new(2);
    story.healthy.truncate(1);
    let account = story.count(RELAY, 15, true);
    assert_eq!((account.beside.len(), account.late()), (2, 1));
}
