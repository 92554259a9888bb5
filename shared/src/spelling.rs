//! The two spellings of one mobile number: with or without the digits that a country adds to its mobiles.
//!
//! WhatsApp names a person now by one and now by the other: Brazil's ninth digit, the 9 or the 15 of Argentina and the 1 of
//! Mexico. The spelling without them stands in the keys of conversations; what is sent, shown and relayed stays as it
//! came. A rule only holds for numbers that cannot be a landline's once the digits are gone.

use std::borrow::Cow;

/// The parts of a number around what only one of its spellings has; the second is empty where there is no such thing. It
/// costs a look at a few digits and allocates nothing.
pub fn around_mobile_digits(number: &str) -> (&str, &str) {
    let whole = (number, "");
    let Some((at, length)) = mobile_digits(number.as_bytes()) else {
        return whole;
    };
    match (number.get(..at), number.get(at + length..)) {
        (Some(before), Some(after)) => (before, after),
        _ => whole,
    }
}

/// Where such digits stand in a number, and how many they are.
fn mobile_digits(number: &[u8]) -> Option<(usize, usize)> {
    let found = match number {
        // Mobiles had eight digits from 6 on before they got the 9.
        [b'5', b'5', _, _, b'9', b'6'..=b'9', ..] if number.len() == 13 => (4, 1),
        [b'5', b'4', b'9', ..] if number.len() == 13 => (2, 1),
        [b'5', b'4', ..] if number.len() == 14 => (fifteen(number)?, 2),
        [b'5', b'2', b'1', ..] if number.len() == 13 => (2, 1),
        _ => return None,
    };
    number.iter().all(u8::is_ascii_digit).then_some(found)
}

/// Where the 15 stands behind an Argentine area code, which has three or four digits everywhere but in Buenos Aires.
fn fifteen(number: &[u8]) -> Option<usize> {
    match number {
        [_, _, b'1', b'1', b'1', b'5', ..] => Some(4),
        [_, _, _, _, _, b'1', b'5', ..] => Some(5),
        [_, _, _, _, _, _, b'1', b'5', ..] => Some(6),
        _ => None,
    }
}

/// A number in the spelling of keys; without `+`.
pub fn of_key(number: &str) -> Cow<'_, str> {
    match around_mobile_digits(number.trim_start_matches('+')) {
        (whole, "") => Cow::Borrowed(whole),
        (before, after) => Cow::Owned([before, after].concat()),
    }
}

/// Whether two texts are one number.
pub fn is_same(one: &str, other: &str) -> bool {
    one == other || of_key(one) == of_key(other)
}

/// The other spellings of a number in the spelling of keys: what an earlier version kept may stand under one of them.
pub fn others(key: &str) -> Vec<String> {
    let with = |at: usize, digits: &str| {
        let (before, after) = key.split_at_checked(at)?;
        let spelled = [before, digits, after].concat();
        (of_key(&spelled) == key).then_some(spelled)
    };
    let found = match key.as_bytes() {
        [b'5', b'5', ..] => [with(4, "9"), None, None, None],
        [b'5', b'4', ..] => [with(2, "9"), with(4, "15"), with(5, "15"), with(6, "15")],
        [b'5', b'2', ..] => [with(2, "1"), None, None, None],
        _ => [const { None }; 4],
    };
    let mut found: Vec<String> = found.into_iter().flatten().collect();
    // Area codes of ones and fives have the same digits at two places.
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_spellings_of_a_mobile_are_one_number() {
        for (one, other) in [
            ("5521987654321", "552187654321"),
            ("5511961234567", "551161234567"),
            ("5491144445555", "541144445555"),
            ("54111544445555", "541144445555"),
            ("54341155123456", "543415123456"),
            ("54290115412345", "542901412345"),
            ("5215512345678", "525512345678"),
        ] {
            assert_eq!(of_key(one), other);
            assert_eq!(of_key(&format!("+{one}")), other);
            assert_eq!(of_key(other), other);
            assert!(is_same(one, other) && is_same(other, one));
            assert!(others(other).contains(&one.to_owned()), "{one}");
        }
    }

    #[test]
    fn a_number_that_may_be_another_persons_keeps_its_digits() {
        for number in [
            // Without the 9 it would be a landline of São Paulo.
            "5511951234567",
            "551151234567",
            "559912345678",
            "55219876543210",
            "4915112345678",
            "15215551234",
            "521551234567",
            "549114444555",
            "54341125123456",
            "5521987654x21",
            "US.1349120865530",
            "5521٩87654321",
            "",
            "+",
        ] {
            assert_eq!(of_key(number), number.trim_start_matches('+'), "{number}");
        }
        assert!(!is_same("5511951234567", "551151234567"));
        assert!(others("4915112345678").is_empty());
    }

    proptest! {
        #[test]
        fn a_key_is_its_own_key_and_every_other_spelling_leads_to_it(number in "(55|54|52|54911|5411)[0-9]{9,12}|\\PC{0,20}") {
            let key = of_key(&number).into_owned();
            prop_assert_eq!(of_key(&key).into_owned(), key.clone());
            for other in others(&key) {
                prop_assert_eq!(of_key(&other).into_owned(), key.clone());
            }
            let (before, after) = around_mobile_digits(&number);
            prop_assert!(number.len() - before.len() - after.len() <= 2);
        }
    }
}
