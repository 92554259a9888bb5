//! Between whom a change is, where its value says so itself: `recipient`, `sender` and who gained or lost control.
//!
//! Handovers of a conversation name nobody anywhere else, and a delivery may come without `metadata`.

use crate::split::json::{Flaw, Piece, Scanner, Span};
use ackline_shared::ids::FoundKey;

/// The members of a value that name its two sides.
#[derive(Debug, Default)]
pub struct Participants {
    pub number: Piece,
    user: Piece,
    phone: Piece,
    control: Option<&'static str>,
}

impl Participants {
    /// Scans the value of a member, and notes what it says if it is one of these.
    pub fn member(&mut self, name: &str, scanner: &mut Scanner<'_>) -> Result<Span, Flaw> {
        match name {
            "recipient" => self.number = Piece::default(),
            "sender" => (self.user, self.phone) = (Piece::default(), Piece::default()),
            "control_passed" => self.control = Some("control_passed"),
            "control_taken" => self.control = Some("control_taken"),
            _ => return scanner.value(),
        }
        if scanner.peek() != Some(b'{') {
            return scanner.value();
        }
        scanner.object(|scanner, key| {
            let slot = match (name, &*scanner.name(&key)) {
                ("recipient", "phone_number_id") => &mut self.number,
                ("sender", "user_id") => &mut self.user,
                ("sender", "phone_number") => &mut self.phone,
                _ => return scanner.value().map(drop),
            };
            *slot = scanner.piece()?;
            Ok(())
        })
    }

    /// What happened to the control of the conversation, and whose it is: of the sender, known as in a message.
    pub fn handover<'a>(&self, text: &'a str) -> Option<(Option<&'static str>, FoundKey<'a>)> {
        let user = self.user.text(text).map(FoundKey::user);
        let key = user.or_else(|| self.phone.text(text).map(FoundKey::phone))?;
        Some((self.control, key))
    }
}
