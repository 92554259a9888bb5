//! Who may receive.

use crate::Recipient;
use crate::check::ContentError;

/// Digits of the shortest phone number, with its country code.
pub const PHONE_DIGITS_MIN: usize = 5;
/// Digits of the longest phone number, by E.164.
pub const PHONE_DIGITS_MAX: usize = 15;
/// Country code, `.ENT.` and 128 characters.
const USER_ID_CHARS_MAX: usize = 135;

/// Says what is wrong with a recipient; places are below `/to`.
pub fn check_recipient(to: &Recipient) -> Vec<ContentError> {
    let mut errors = Vec::new();
    if to.user_id.is_none() && to.phone.is_none() {
        errors.push(ContentError::new("/to", "needs `user_id` or `phone`"));
    }
    if to.user_id.as_deref().is_some_and(|id| !is_user_id(id)) {
        errors.push(ContentError::new(
            "/to/user_id",
            "must be a business-scoped user id: a country code, a dot, letters and digits",
        ));
    }
    if to.phone.as_deref().is_some_and(|phone| !is_phone(phone)) {
        errors.push(ContentError::new(
            "/to/phone",
            format!(
                "needs country code and number in {PHONE_DIGITS_MIN} to {PHONE_DIGITS_MAX} digits, with or without `+`"
            ),
        ));
    }
    errors
}

/// Tells whether a text is a phone number in international form, with or without its `+`.
pub fn is_phone(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    (PHONE_DIGITS_MIN..=PHONE_DIGITS_MAX).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
}

/// Tells whether a text is a business-scoped user id, such as `US.13491208655302741918`.
///
/// What follows the country code is not read closer: what Meta hands out must also be taken back.
pub fn is_user_id(text: &str) -> bool {
    let Some((country, rest)) = text.split_once('.') else {
        return false;
    };
    country.len() == 2
        && country.bytes().all(|byte| byte.is_ascii_uppercase())
        && !rest.is_empty()
        && text.len() <= USER_ID_CHARS_MAX
        && rest
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
}
