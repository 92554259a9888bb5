//! Who is who: people by business-scoped user id and phone, and what each number heard from them last.
//!
//! A person known by phone only gets a user id derived from it, so the same phone is the same person in
//! every run. The directory is bounded; who was heard least recently is forgotten first.

use super::mint::digits_of;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::time::Duration;

const PEOPLE_KEPT: usize = 100_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Business-scoped user id; also the name of the conversation in the journal.
    pub user_id: String,
    /// Digits without `+`, when known.
    pub phone: Option<String>,
    pub name: Option<String>,
    /// Whether webhooks leave the phone number out, as for people with a username.
    pub hides_phone: bool,
}

impl Person {
    /// The phone number as webhooks show it.
    pub fn shown_phone(&self) -> Option<&str> {
        self.phone.as_deref().filter(|_| !self.hides_phone)
    }

    /// The text that message ids are derived from.
    pub fn address(&self) -> &str {
        self.phone.as_deref().unwrap_or(&self.user_id)
    }
}

#[derive(Debug)]
pub struct People {
    by_user: LruCache<String, Person>,
    user_of_phone: LruCache<String, String>,
    heard: LruCache<(String, String), Duration>,
    author_of: LruCache<String, String>,
}

impl Default for People {
    fn default() -> Self {
        Self {
            by_user: cache(),
            user_of_phone: cache(),
            heard: cache(),
            author_of: cache(),
        }
    }
}

impl People {
    /// Finds or enters a person by what is known of them; later facts fill in earlier gaps.
    pub fn meet(
        &mut self,
        phone: Option<&str>,
        user_id: Option<&str>,
        name: Option<&str>,
    ) -> Person {
        let phone = phone.map(digits);
        let user_id = match (user_id, &phone) {
            (Some(user_id), _) => user_id.to_owned(),
            (None, Some(phone)) => {
                let known = self.user_of_phone.get(phone).cloned();
                known.unwrap_or_else(|| format!("US.{}", digits_of(phone, 20)))
            }
            (None, None) => String::new(),
        };
        let mut person = self.by_user.get(&user_id).cloned().unwrap_or(Person {
            user_id: user_id.clone(),
            phone: None,
            name: None,
            hides_phone: false,
        });
        person.phone = phone.or(person.phone);
        person.name = name.map(str::to_owned).or(person.name);
        if let Some(phone) = &person.phone {
            self.user_of_phone.put(phone.clone(), user_id.clone());
        }
        self.by_user.put(user_id, person.clone());
        person
    }

    /// Remembers whether a person's phone number is left out of webhooks.
    pub fn set_hides_phone(&mut self, user_id: &str, hides: bool) {
        if let Some(person) = self.by_user.get_mut(user_id) {
            person.hides_phone = hides;
        }
    }

    /// Turns a phone number or user id into the user id conversations are named by.
    pub fn conversation(&self, phone_or_user: &str) -> String {
        let phone = digits(phone_or_user);
        if phone.is_empty() || phone_or_user.contains('.') {
            return phone_or_user.to_owned();
        }
        self.user_of_phone
            .peek(&phone)
            .cloned()
            .unwrap_or_else(|| format!("US.{}", digits_of(&phone, 20)))
    }

    /// Remembers that a number heard from a person, and with which message.
    pub fn hear(&mut self, number: &str, user_id: &str, message_id: &str, now: Duration) {
        self.heard.put((number.to_owned(), user_id.to_owned()), now);
        self.author_of
            .put(message_id.to_owned(), user_id.to_owned());
    }

    /// When a number last heard from a person.
    pub fn last_heard(&self, number: &str, user_id: &str) -> Option<Duration> {
        self.heard
            .peek(&(number.to_owned(), user_id.to_owned()))
            .copied()
    }

    /// Who wrote an incoming message.
    pub fn author_of(&self, message_id: &str) -> Option<String> {
        self.author_of.peek(message_id).cloned()
    }
}

fn digits(phone: &str) -> String {
    phone.chars().filter(char::is_ascii_digit).collect()
}

fn cache<K: std::hash::Hash + Eq, V>() -> LruCache<K, V> {
    LruCache::new(NonZeroUsize::new(PEOPLE_KEPT).unwrap_or(NonZeroUsize::MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_and_its_user_id_are_one_conversation() {
        let mut people = People::default();
        let ada = people.meet(Some("+49 170 1234567"), None, Some("Ada"));
        assert_eq!(people.meet(None, Some(&ada.user_id), None), ada);
        assert_eq!(people.conversation("491701234567"), ada.user_id);
        assert_eq!(people.conversation(&ada.user_id), ada.user_id);
        assert_eq!(
            People::default()
                .meet(Some("491701234567"), None, None)
                .user_id,
            ada.user_id
        );
    }

    #[test]
    fn a_given_user_id_wins_over_the_derived_one() {
        let mut people = People::default();
        people.meet(Some("15551"), Some("DE.77"), None);
        assert_eq!(people.conversation("+15551"), "DE.77");
    }

    #[test]
    fn a_hidden_phone_is_known_but_not_shown() {
        let mut people = People::default();
        let user = people.meet(Some("15551"), None, None).user_id;
        people.set_hides_phone(&user, true);
        let person = people.meet(None, Some(&user), None);
        assert_eq!(
            (person.shown_phone(), person.phone.as_deref()),
            (None, Some("15551"))
        );
    }
}
