//! How a person's answer is matched to the options they were given.

use super::fold::fold;

/// Shortest typed beginning of a title that counts.
const PREFIX_CHARS_MIN: usize = 2;

/// Joins an option's id and the wait it was shown in: what comes back when it is pressed.
///
/// The wait tells a press on the present question from one on an old message.
pub fn payload(option: &str, wait: &str) -> String {
    format!("{option}@{wait}")
}

/// Splits a payload into the option's id and the wait it was shown in.
pub fn read_payload(payload: &str) -> (&str, Option<&str>) {
    match payload.rsplit_once('@') {
        Some((option, wait)) => (option, Some(wait)),
        None => (payload, None),
    }
}

/// Finds the option a typed answer means: by title, then by number, id, or unique beginning of a title.
///
/// `options` are ids with titles, in the order shown.
pub fn pick(options: &[(&str, &str)], answer: &str) -> Option<usize> {
    let answer = fold(answer);
    if answer.is_empty() {
        return None;
    }
    let titles: Vec<String> = options.iter().map(|(_, title)| fold(title)).collect();
    let by_title = || titles.iter().position(|title| *title == answer);
    let by_id = || options.iter().position(|(id, _)| fold(id) == answer);
    by_title()
        .or_else(|| by_number(&answer, options.len()))
        .or_else(by_id)
        .or_else(|| by_prefix(&titles, &answer))
}

fn by_number(answer: &str, count: usize) -> Option<usize> {
    let digits = answer.trim_matches(['.', '(', ')', '#', ' ']);
    let is_number = digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit());
    let number: usize = is_number.then(|| digits.parse().ok())??;
    number.checked_sub(1).filter(|index| *index < count)
}

fn by_prefix(titles: &[String], answer: &str) -> Option<usize> {
    if answer.chars().count() < PREFIX_CHARS_MIN {
        return None;
    }
    let mut matching = titles
        .iter()
        .enumerate()
        .filter(|(_, title)| title.starts_with(answer));
    match (matching.next(), matching.next()) {
        (Some((index, _)), None) => Some(index),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: [(&str, &str); 3] = [
        ("status", "Order status"),
        ("talk", "Talk to us"),
        ("hours", "\u{d6}ffnungszeiten"),
    ];

    #[test]
    fn an_answer_matches_by_title_number_id_or_beginning() {
        for (answer, wanted) in [
            ("order STATUS ", Some(0)),
            ("offnungszeiten", Some(2)),
            ("2", Some(1)),
            ("2.", Some(1)),
            ("(2)", Some(1)),
            ("2\u{fe0f}\u{20e3}", Some(1)),
            ("\u{662}", Some(1)),
            ("\u{ff12}", Some(1)),
            ("4", None),
            ("0", None),
            ("talk", Some(1)),
            ("ord", Some(0)),
            ("o", None),
            ("of", Some(2)),
            ("", None),
            ("something else", None),
        ] {
            assert_eq!(pick(&OPTIONS, answer), wanted, "{answer:?}");
        }
    }

    #[test]
    fn a_title_that_is_a_number_wins_over_the_position() {
        assert_eq!(pick(&[("a", "2"), ("b", "1")], "1"), Some(1));
    }

    #[test]
    fn an_ambiguous_beginning_matches_nothing() {
        assert_eq!(pick(&[("a", "Red wine"), ("b", "Red beer")], "red"), None);
    }

    #[test]
    fn a_payload_reads_back() {
        assert_eq!(read_payload(&payload("a@b", "1.2")), ("a@b", Some("1.2")));
        assert_eq!(read_payload("plain"), ("plain", None));
    }
}
