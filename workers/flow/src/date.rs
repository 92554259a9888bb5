//! Dates as people write them: `24.12.2026`, `24/12`, `2026-12-24`, in digits of any script.
//!
//! Only days of the calendar are dates: 31.02. is none. Points have the day first everywhere; with other marks the
//! locale says whether the month is, unless only one order can be.

use super::digits;
use jiff::civil::Date;

const CHARS_MAX: usize = 32;
/// How far ahead a year of two digits is meant; beyond that it is of the last century.
const YEARS_AHEAD: i16 = 20;
/// Years in which the 29th of February comes again, over the turn of a century.
const YEARS_UNTIL_LEAP: i16 = 8;

/// The days between which a date is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    pub earliest: Date,
    pub latest: Date,
}

impl Days {
    fn hold(self, date: Date) -> bool {
        (self.earliest..=self.latest).contains(&date)
    }
}

/// Reads a date within `days`; one without a year is the next from `today` on, or else the last before.
pub fn read(text: &str, month_first: bool, today: Date, days: Days) -> Option<Date> {
    let text = digits::read(text);
    let text = text.trim();
    if text.chars().count() > CHARS_MAX {
        return None;
    }
    let mark = text
        .chars()
        .find(|c| !c.is_ascii_digit())
        .filter(|c| ['.', '/', '-', ' '].contains(c))?;
    let trimmed = if mark == '.' {
        text.strip_suffix('.').unwrap_or(text)
    } else {
        text
    };
    let parts: Vec<&str> = trimmed.split(mark).map(str::trim).collect();
    let is_number =
        |part: &&str| (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    if !parts.iter().all(is_number) {
        return None;
    }
    match parts.as_slice() {
        [year, month, day] if year.len() == 4 => date(year, month, day),
        [first, second, year] if year.len() == 4 || year.len() == 2 => {
            let (day, month) = day_and_month(first, second, mark, month_first)?;
            let year = full_year(year, today)?;
            Date::new(year, month, day).ok()
        }
        [first, second] if first.len() <= 2 && second.len() <= 2 => {
            let (day, month) = day_and_month(first, second, mark, month_first)?;
            return nearest(day, month, today, days);
        }
        _ => None,
    }
    .filter(|date| days.hold(*date))
}

/// Reads a day as it is kept, `2026-12-24`.
pub fn iso(text: &str) -> Option<Date> {
    match text.split('-').collect::<Vec<_>>().as_slice() {
        [year, month, day] if text.len() == 10 && text.is_ascii() => date(year, month, day),
        _ => None,
    }
}

fn date(year: &str, month: &str, day: &str) -> Option<Date> {
    Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
}

fn day_and_month(first: &str, second: &str, mark: char, month_first: bool) -> Option<(i8, i8)> {
    let (first, second): (i8, i8) = (first.parse().ok()?, second.parse().ok()?);
    let month_first = match mark {
        '.' => false,
        _ if first > 12 => false,
        _ if second > 12 => true,
        _ => month_first,
    };
    Some(if month_first {
        (second, first)
    } else {
        (first, second)
    })
}

fn full_year(year: &str, today: Date) -> Option<i16> {
    let number: i16 = year.parse().ok()?;
    if year.len() == 4 {
        return Some(number);
    }
    let century = today.year() - today.year().rem_euclid(100);
    let this = century + number;
    Some(if this > today.year() + YEARS_AHEAD {
        this - 100
    } else {
        this
    })
}

fn nearest(day: i8, month: i8, today: Date, days: Days) -> Option<Date> {
    let years = |step: i16| (0..=YEARS_UNTIL_LEAP).map(move |by| today.year() + by * step);
    let in_year = |year: i16| Date::new(year, month, day).ok();
    let fits = |date: &Date| days.hold(*date);
    let ahead = years(1).filter_map(in_year).filter(|date| *date >= today);
    let before = years(-1).filter_map(in_year).filter(|date| *date < today);
    ahead.chain(before).find(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date as day;

    const ALL: Days = Days {
        earliest: day(1900, 1, 1),
        latest: day(2199, 12, 31),
    };

    fn of(text: &str) -> Option<String> {
        read(text, false, day(2026, 12, 1), ALL).map(|date| date.to_string())
    }

    #[test]
    fn days_are_read_as_people_write_them() {
        for (text, wanted) in [
            ("24.12.2026", "2026-12-24"),
            ("24. 12. 2026", "2026-12-24"),
            ("24.12.", "2026-12-24"),
            ("24.12", "2026-12-24"),
            ("1.3.", "2027-03-01"),
            ("24.12.85", "1985-12-24"),
            ("24.12.27", "2027-12-24"),
            ("24/12/2026", "2026-12-24"),
            ("12/24/2026", "2026-12-24"),
            ("3/4/2027", "2027-04-03"),
            ("24-12-2026", "2026-12-24"),
            ("2026-12-24", "2026-12-24"),
            ("2026/12/24", "2026-12-24"),
            ("24 12 2026", "2026-12-24"),
            ("29.02.", "2028-02-29"),
            ("29.02.2028", "2028-02-29"),
            (
                "\u{662}\u{664}/\u{661}\u{662}/\u{662}\u{660}\u{662}\u{666}",
                "2026-12-24",
            ),
        ] {
            assert_eq!(of(text).as_deref(), Some(wanted), "{text:?}");
        }
    }

    #[test]
    fn a_day_the_calendar_lacks_is_no_date() {
        for text in [
            "31.02.",
            "31.02.2027",
            "30/02/2027",
            "2027-02-31",
            "29.02.2027",
            "31.04.",
            "02/30/2027",
            "32.01.2027",
            "0.1.2027",
            "1.13.2027",
            "12.24.2026",
            "12",
            "",
            "tomorrow",
            "1.2.3.4",
            "1.234",
            "24.12/2026",
            "1,5",
        ] {
            assert_eq!(of(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_locale_orders_and_the_bounds_choose() {
        let today = day(2026, 12, 1);
        assert_eq!(read("3/4/2027", true, today, ALL), Some(day(2027, 3, 4)));
        assert_eq!(read("3.4.2027", true, today, ALL), Some(day(2027, 4, 3)));
        let past = Days {
            latest: today,
            ..ALL
        };
        assert_eq!(read("24.12.", false, today, past), Some(day(2025, 12, 24)));
        assert_eq!(read("24.12.2026", false, today, past), None);
        assert_eq!(iso("2026-02-31"), None);
        assert_eq!(iso("2026-02-28"), Some(day(2026, 2, 28)));
        assert_eq!(iso("2026-2-28"), None);
    }
}
