//! The pinned inputs: one text message of about 1 KB, and a batch, in the shape the load generator's decks have.

use std::fmt::Write;

const PEOPLE: usize = 6_400;
const TEXT_BYTES: usize = 560;
const BATCH_TEXT_BYTES: usize = 440;

/// One message.
pub fn message() -> Vec<u8> {
    body(1, TEXT_BYTES)
}

/// A batch of at least as many bytes.
pub fn batch(bytes_min: usize) -> Vec<u8> {
    let each = body(101, BATCH_TEXT_BYTES)
        .len()
        .saturating_sub(body(1, BATCH_TEXT_BYTES).len())
        / 100;
    body(bytes_min / each + 1, BATCH_TEXT_BYTES)
}

fn body(updates: usize, text_bytes: usize) -> Vec<u8> {
    let text =
        "The parcel left the depot this morning and should be with you before noon. ".repeat(8);
    let text = &text[..text_bytes];
    let mut body = String::from(
        r#"{"object":"whatsapp_business_account","entry":[{"id":"W1","changes":[{"value":{"messaging_product":"whatsapp","metadata":{"display_phone_number":"15550783881","phone_number_id":"100"},"contacts":["#,
    );
    for serial in 0..updates {
        let person = person(serial);
        separate(&mut body, serial);
        // Writing to a String cannot fail.
        let _ = write!(
            body,
            r#"{{"profile":{{"name":"Person {person}"}},"wa_id":"1555{person:07}","user_id":"US.{person:012}"}}"#
        );
    }
    body.push_str(r#"],"messages":["#);
    for serial in 0..updates {
        let person = person(serial);
        separate(&mut body, serial);
        let _ = write!(
            body,
            r#"{{"from":"1555{person:07}","from_user_id":"US.{person:012}","id":"wamid.HBgLMTU1NTEyMzQ1NjcVAgASGBQ{serial:010}","timestamp":"1795300000","text":{{"body":"{text}"}},"type":"text"}}"#
        );
    }
    body.push_str(r#"]},"field":"messages"}]}]}"#);
    body.into_bytes()
}

fn person(serial: usize) -> usize {
    (serial * 7_919) % PEOPLE
}

fn separate(body: &mut String, serial: usize) {
    if serial > 0 {
        body.push(',');
    }
}
