//! The transitions, one by one and in any order.

use super::*;
use proptest::prelude::*;

const HOUR: u64 = 3_600_000;
const REST: Duration = Duration::from_secs(24 * 3600);

fn answered(at_ms: u64) -> Event {
    Event::Answered {
        link: "desk".into(),
        at_ms,
        rest: REST,
    }
}

fn resolved(at_ms: u64) -> Event {
    Event::Released {
        link: "desk".into(),
        at_ms,
        to_bot: false,
    }
}

fn handover(is_gained: bool, at_ms: u64) -> Event {
    Event::Handover {
        is_gained,
        roles: "A to B".into(),
        at_ms,
    }
}

/// The owner after events, each with the time at which it is told.
fn after(events: &[(Event, u64)]) -> Option<Owner> {
    events.iter().fold(None, |owner, (event, now)| {
        Owner::after(owner.as_ref(), event, *now).or(owner)
    })
}

fn who(events: &[(Event, u64)]) -> Option<Who> {
    after(events).map(|owner| owner.who)
}

#[test]
fn flows_rest_once_an_agent_answered_until_the_pause_ends() {
    let owner = after(&[(answered(1_000), 1_500)]).unwrap();
    assert_eq!(
        (&owner.who, owner.since_ms, owner.until_ms),
        (&Who::Person, 1_000, Some(1_500 + 24 * HOUR))
    );
    assert!(!owner.lets_flows_answer(2_000, 2_000));
    let end = 1_500 + 24 * HOUR;
    assert!(owner.lets_flows_answer(end, end), "the pause is over");
    assert!(
        !owner.lets_flows_answer(end - 1, end),
        "what came during the pause was the agent's"
    );
}

#[test]
fn every_answer_begins_the_pause_anew_and_most_are_not_written() {
    let first = after(&[(answered(0), 0)]).unwrap();
    assert_eq!(
        Owner::after(Some(&first), &answered(HOUR / 2), HOUR / 2),
        None
    );
    let later = Owner::after(Some(&first), &answered(2 * HOUR), 2 * HOUR).unwrap();
    assert_eq!((later.since_ms, later.until_ms), (0, Some(26 * HOUR)));
    let endless = Event::Set {
        who: Who::Person,
        until_ms: None,
        key: "k".into(),
    };
    assert_eq!(
        after(&[(endless, 0), (answered(1), 1)]).unwrap().until_ms,
        None,
        "no end is not cut short"
    );
}

#[test]
fn a_resolved_conversation_is_the_bots_but_for_what_came_before() {
    let owner = after(&[(answered(1_000), 1_000), (resolved(5_000), 5_000)]).unwrap();
    assert_eq!(owner.who, Who::Idle);
    assert!(owner.lets_flows_answer(5_000, 6_000));
    assert!(
        !owner.lets_flows_answer(4_999, 6_000),
        "the agent had seen it"
    );
}

#[test]
fn an_answer_told_after_the_conversation_was_resolved_changes_nothing() {
    assert_eq!(
        who(&[(resolved(5_000), 5_000), (answered(4_000), 5_100)]),
        Some(Who::Idle)
    );
    assert_eq!(
        who(&[(resolved(5_000), 5_000), (answered(6_000), 6_100)]),
        Some(Who::Person)
    );
}

#[test]
fn a_conversation_that_another_responder_took_is_not_ours_until_meta_says_so() {
    let taken = after(&[(handover(false, 10), 10)]).unwrap();
    assert_eq!(taken.who, Who::Responder);
    assert!(!taken.lets_flows_answer(20, 20));
    assert_eq!(
        who(&[(handover(false, 10), 10), (handover(true, 20), 20)]),
        Some(Who::Bot)
    );
    // Nobody is told of a release: what comes as ours afterwards tells it.
    assert_eq!(
        who(&[(handover(false, 10), 10), (Event::Heard { at_ms: 10 }, 20)]),
        Some(Who::Bot)
    );
    assert_eq!(
        who(&[(handover(false, 10), 10), (Event::Heard { at_ms: 9 }, 20)]),
        Some(Who::Responder)
    );
    assert_eq!(
        who(&[(Event::Overheard { at_ms: 10 }, 10)]),
        Some(Who::Responder)
    );
    assert!(
        taken.lets_flows_answer(10 + 24 * HOUR, 10 + 24 * HOUR),
        "Meta leaves it to nobody for longer"
    );
}

#[test]
fn what_is_told_late_or_twice_changes_nothing() {
    let events = [
        (handover(true, 10), 10),
        (handover(false, 20), 20),
        (handover(true, 30), 30),
    ];
    let last = after(&events);
    for (event, _) in &events {
        assert_eq!(Owner::after(last.as_ref(), event, 40), None, "{event:?}");
    }
    assert_eq!(
        Owner::after(last.as_ref(), &Event::Overheard { at_ms: 30 }, 40),
        None
    );
}

#[test]
fn a_colleague_who_is_at_it_goes_on_when_meta_passes_the_conversation() {
    assert_eq!(
        who(&[(answered(10), 10), (handover(true, 20), 20)]),
        Some(Who::Person)
    );
    assert_eq!(
        who(&[(answered(10), 10), (handover(false, 20), 20)]),
        Some(Who::Responder)
    );
    assert_eq!(
        who(&[(handover(false, 20), 20), (resolved(30), 30)]),
        Some(Who::Responder)
    );
}

#[test]
fn a_record_reads_back_and_what_is_unknown_is_not_us() {
    let owner = after(&[(answered(1_000), 1_500)]).unwrap();
    let text = serde_json::to_string(&owner).unwrap();
    assert_eq!(serde_json::from_str::<Owner>(&text).unwrap(), owner);
    let newer: Owner =
        serde_json::from_str(r#"{"v":9,"who":"committee","since_ms":1,"quorum":3}"#).unwrap();
    assert!(newer.is_newer() && !newer.lets_flows_answer(2, 3));
    assert_eq!(newer.who.as_str(), "committee");
    assert!(serde_json::from_str::<Owner>(r#"{"who":3}"#).is_err());
}

fn event() -> impl Strategy<Value = Event> {
    let at = 0..50_u64;
    prop_oneof![
        at.clone().prop_map(answered),
        at.clone().prop_map(resolved),
        (any::<bool>(), at.clone()).prop_map(|(gained, at)| handover(gained, at)),
        at.clone().prop_map(|at_ms| Event::Heard { at_ms }),
        at.prop_map(|at_ms| Event::Overheard { at_ms }),
    ]
}

proptest! {
    #[test]
    fn the_same_event_again_changes_nothing(events in prop::collection::vec(event(), 1..12)) {
        let reported: Vec<_> = events.into_iter().map(|event| (event, 100)).collect();
        let owner = after(&reported);
        let (last, now) = &reported[reported.len() - 1];
        prop_assert_eq!(Owner::after(owner.as_ref(), last, *now), None);
    }
}
