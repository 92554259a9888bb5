//! A value's `contacts`: whose names and ids they are, to be found by person.

use crate::split::element::Person;
use crate::split::json::{Flaw, Piece, Scanner, Span};
use ackline_shared::spelling;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;

/// One of a value's `contacts`, and where what names the person lies.
#[derive(Debug, Default)]
pub struct Contact {
    pub span: Span,
    pub user: Piece,
    pub phone: Piece,
}

/// Contacts by what names them; each index is made when it is first asked.
#[derive(Debug)]
pub struct Contacts<'c> {
    text: &'c str,
    list: &'c [Contact],
    by_user: OnceCell<Index<'c>>,
    by_phone: OnceCell<Index<'c>>,
}

type Index<'c> = HashMap<Cow<'c, str>, u32>;

impl Contact {
    /// Scans a contact; one that is not an object says nothing.
    pub fn scan(scanner: &mut Scanner<'_>) -> Result<Self, Flaw> {
        let mut contact = Self::default();
        if scanner.peek() != Some(b'{') {
            return Ok(Self {
                span: scanner.value()?,
                ..contact
            });
        }
        contact.span = scanner.object(|scanner, key| {
            match &*scanner.name(&key) {
                "user_id" => contact.user = scanner.piece()?,
                "wa_id" => contact.phone = scanner.piece()?,
                _ => return scanner.value().map(drop),
            }
            Ok(())
        })?;
        Ok(contact)
    }

    /// Whether nothing speaks against this being the person.
    fn may_be(&self, text: &str, person: &Person<'_>) -> bool {
        match (self.user.text(text), &person.user) {
            (Some(ours), Some(theirs)) => ours == *theirs,
            _ => match (self.phone.text(text), &person.phone) {
                (Some(ours), Some(theirs)) => spelling::is_same(&ours, theirs),
                _ => true,
            },
        }
    }
}

impl<'c> Contacts<'c> {
    /// Looks among these, found in the text.
    pub fn new(text: &'c str, list: &'c [Contact]) -> Self {
        Self {
            text,
            list,
            by_user: OnceCell::new(),
            by_phone: OnceCell::new(),
        }
    }

    /// The place of a person's contact, when it can be told.
    pub fn of(&self, person: &Person<'_>) -> Option<u32> {
        let (place, contact) = match self.list {
            [] => return None,
            // One contact needs no index, and is by far the most frequent case.
            [only] => (0, only),
            list => {
                let by_user = |user: &Cow<'_, str>| {
                    self.by_user
                        .get_or_init(|| self.index(|contact| contact.user, |user| user))
                        .get(&**user)
                };
                let by_phone = |phone: &Cow<'_, str>| {
                    self.by_phone
                        .get_or_init(|| self.index(|contact| contact.phone, spelled_as_key))
                        .get(&*spelling::of_key(phone))
                };
                let found = person.user.as_ref().and_then(by_user);
                let place = *found.or_else(|| person.phone.as_ref().and_then(by_phone))?;
                (place, list.get(usize::try_from(place).ok()?)?)
            }
        };
        contact.may_be(self.text, person).then_some(place)
    }

    /// The first contact of each name.
    fn index(
        &self,
        name: impl Fn(&Contact) -> Piece,
        spelled: impl Fn(Cow<'c, str>) -> Cow<'c, str>,
    ) -> Index<'c> {
        let mut index = HashMap::with_capacity(self.list.len());
        for (place, contact) in (0..).zip(self.list) {
            if let Some(name) = name(contact).text(self.text) {
                index.entry(spelled(name)).or_insert(place);
            }
        }
        index
    }
}

fn spelled_as_key(phone: Cow<'_, str>) -> Cow<'_, str> {
    match phone {
        Cow::Borrowed(phone) => spelling::of_key(phone),
        Cow::Owned(phone) => Cow::Owned(spelling::of_key(&phone).into_owned()),
    }
}
