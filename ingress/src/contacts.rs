//! A value's `contacts`: whose names and ids they are, to be found by person.

use crate::element::{Person, read_text};
use crate::json::{Flaw, Scanner, Span, Text};
use std::cell::OnceCell;
use std::collections::HashMap;

/// One of a value's `contacts`.
#[derive(Debug, Default)]
pub struct Contact<'a> {
    /// All of it.
    pub span: Span,
    /// Business-scoped user id.
    pub user: Text<'a>,
    /// Phone number.
    pub phone: Text<'a>,
}

/// Contacts by what names them; each index is made when it is first asked.
#[derive(Debug)]
pub struct Contacts<'c, 'a> {
    list: &'c [Contact<'a>],
    by_user: OnceCell<HashMap<&'c str, usize>>,
    by_phone: OnceCell<HashMap<&'c str, usize>>,
}

impl<'a> Contact<'a> {
    /// Scans a contact; one that is not an object says nothing.
    pub fn scan(scanner: &mut Scanner<'a>) -> Result<Self, Flaw> {
        let mut contact = Self::default();
        if scanner.peek() != Some(b'{') {
            return Ok(Self { span: scanner.value()?, ..contact });
        }
        contact.span = scanner.object(|scanner, key| {
            match &*scanner.name(&key) {
                "user_id" => contact.user = read_text(scanner)?,
                "wa_id" => contact.phone = read_text(scanner)?,
                _ => return scanner.value().map(drop),
            }
            Ok(())
        })?;
        Ok(contact)
    }

    /// Whether nothing speaks against this being the person.
    fn may_be(&self, person: Person<'_>) -> bool {
        match (self.user.as_deref(), person.user) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => match (self.phone.as_deref(), person.phone) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => true,
            },
        }
    }
}

impl<'c, 'a> Contacts<'c, 'a> {
    /// Looks among these.
    pub fn new(list: &'c [Contact<'a>]) -> Self {
        Self { list, by_user: OnceCell::new(), by_phone: OnceCell::new() }
    }

    /// The contact of a person, and its place, when it can be told.
    pub fn of(&self, person: Person<'_>) -> Option<(usize, &'c Contact<'a>)> {
        let index = match self.list {
            [] => None,
            // One contact needs no index, and is by far the most frequent case.
            [only] => only.may_be(person).then_some(0),
            list => {
                let by_user = || self.by_user.get_or_init(|| index(list, |contact| contact.user.as_deref()));
                let by_phone =
                    || self.by_phone.get_or_init(|| index(list, |contact| contact.phone.as_deref()));
                let found = person.user.and_then(|user| by_user().get(user));
                found.or_else(|| person.phone.and_then(|phone| by_phone().get(phone))).copied()
            }
        }?;
        self.list.get(index).filter(|contact| contact.may_be(person)).map(|contact| (index, contact))
    }
}

/// The first contact of each name.
fn index<'c, 'a>(
    list: &'c [Contact<'a>],
    name: impl Fn(&'c Contact<'a>) -> Option<&'c str>,
) -> HashMap<&'c str, usize> {
    let mut index = HashMap::with_capacity(list.len());
    for (place, contact) in list.iter().enumerate() {
        if let Some(name) = name(contact) {
            index.entry(name).or_insert(place);
        }
    }
    index
}
