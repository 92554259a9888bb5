//! Who writes in which turn: as many people who write once as people who write ten times, all at the same time.
//!
//! A pure rule of the turn's number, so that every part of a run agrees, and a later part goes on with the people of
//! the one before.

/// What a person writes who writes more than once.
const TIMES: u32 = 10;
/// People who write ten times and are at it at once; one writes again after so many turns and a tenth more.
const AT_ONCE: u32 = 500;
/// Above those who write ten times.
const FIRST_OF_ONCE: u32 = 5_000_000;
const NAME_START: &str = "TURN";

/// The person who writes in a turn.
pub fn writer(turn: u32) -> u32 {
    let (group, place) = (turn / (TIMES + 1), turn % (TIMES + 1));
    let Some(place) = place.checked_sub(1) else {
        return FIRST_OF_ONCE + group;
    };
    let (round, lane) = {
        let nth = group * TIMES + place;
        (nth / AT_ONCE, nth % AT_ONCE)
    };
    // They do not begin together: in each round a tenth of them is new.
    lane + AT_ONCE * ((round + lane % TIMES) / TIMES)
}

/// How a text names its turn.
pub fn name(turn: u32) -> String {
    format!("{NAME_START}{turn:08x} ")
}

/// The turn that some bytes name.
pub fn turn_in(bytes: &[u8]) -> Option<u32> {
    let start = bytes
        .windows(NAME_START.len())
        .position(|window| window == NAME_START.as_bytes())?;
    let from = start + NAME_START.len();
    u32::from_str_radix(std::str::from_utf8(bytes.get(from..from + 8)?).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn half_of_the_people_write_once_and_half_ten_times() {
        let mut turns: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for turn in 0..110_000 {
            turns.entry(writer(turn)).or_default().push(turn);
        }
        let wrote = |times| turns.values().filter(|turns| turns.len() == times).count();
        assert_eq!(
            wrote(1).abs_diff(10_000),
            AT_ONCE as usize / 5,
            "and some who were cut off at the start or at the end"
        );
        assert!(wrote(10).abs_diff(10_000) <= AT_ONCE as usize);
        let soonest = turns
            .values()
            .flat_map(|turns| turns.windows(2).map(|pair| pair[1] - pair[0]));
        assert!(soonest.min() >= Some(AT_ONCE));
    }

    #[test]
    fn a_turn_is_found_where_it_is_named() {
        let body = format!("You said: {}hello", name(0xab));
        assert_eq!(turn_in(body.as_bytes()), Some(0xab));
        assert_eq!(turn_in(b"TURN12"), None);
    }
}
