//! The one rule for every record that is stored as a JSON object, in a bucket, in a stream or in a message: how it is
//! written, how it is read, and when it is left alone.
//!
//! - It is written with a number `v`, the version of its kind. A record without one is of the first version.
//! - It is read tolerantly: fields that this program does not know are passed over, whoever wrote them. What a person
//!   writes, a document or a request, is read strictly instead: a misspelt setting must not pass silently.
//! - A session of a flow calls its number `schema`, a sealed secret has it in its text, and the headers of a message are
//!   of the first version as long as none says otherwise; the same holds for them.
//! - Adding a field does not raise `v`. It is raised when an older program must not write over such a record, or must
//!   not carry it out; an older program then leaves it alone and says so ([`Newer`]).
//! - A declared entity, a live setting or an order that is written anew keeps the fields of its last version that this
//!   program does not know.

use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, forward_to_deserialize_any};
use serde_json::{Map, Value};

/// The field that holds the version.
const VERSION: &str = "v";

/// A kind of stored record; it has the shape of a JSON object and does not refuse unknown fields.
pub trait Stored: Serialize + DeserializeOwned {
    /// The version this program writes, and the highest it writes over.
    const V: u32 = 1;

    /// The fields that hold a struct of their own in which unknown fields are kept, too, each with those that are known.
    fn inner() -> Vec<(&'static str, Vec<&'static str>)> {
        Vec::new()
    }
}

/// A record is of a later version than this program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it was written by a newer version of Ackline (v {found}, this one knows up to {known}); upgrade this program first"
)]
pub struct Newer {
    /// The record's version.
    pub found: u32,
    /// The version this program knows.
    pub known: u32,
}

/// What every record says; one that says nothing is of the first version.
#[derive(Deserialize)]
struct Version {
    #[serde(default = "first")]
    v: u32,
}

fn first() -> u32 {
    1
}

/// Writes a record with its version.
pub fn encode<T: Stored>(record: &T) -> Vec<u8> {
    let mut out = format!("{{\"{VERSION}\":{}", T::V).into_bytes();
    let start = out.len();
    // Our own types hold only texts, numbers and JSON values, all of which serialise.
    if serde_json::to_writer(&mut out, record).is_err() || out.get(start) != Some(&b'{') {
        return Vec::new();
    }
    match out.get(start + 1) {
        Some(b'}') => drop(out.remove(start)),
        _ => out
            .iter_mut()
            .skip(start)
            .take(1)
            .for_each(|brace| *brace = b','),
    }
    out
}

/// Reads a record, whichever version wrote it.
pub fn decode<T: Stored>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes)
}

/// Makes sure that a record is not of a later version than this program writes; what does not read is of no version.
pub fn check<T: Stored>(bytes: &[u8]) -> Result<(), Newer> {
    match serde_json::from_slice::<Version>(bytes) {
        Ok(Version { v }) if v > T::V => Err(Newer {
            found: v,
            known: T::V,
        }),
        _ => Ok(()),
    }
}

/// Writes a record in the place of another of its kind, with the fields of that one that this program does not know.
pub fn encode_over<T: Stored>(record: &T, before: &[u8]) -> Result<Vec<u8>, Newer> {
    check::<T>(before)?;
    let (Ok(Value::Object(mut fields)), Ok(mut before)) = (
        serde_json::to_value(record),
        serde_json::from_slice::<Map<String, Value>>(before),
    ) else {
        return Ok(encode(record));
    };
    before.remove(VERSION);
    let mut is_kept = false;
    for (name, known) in T::inner() {
        let pair = (fields.get_mut(name), before.remove(name));
        if let (Some(Value::Object(inner)), Some(Value::Object(before))) = pair {
            is_kept |= keep_unknown(inner, before, &known);
        }
    }
    is_kept |= keep_unknown(&mut fields, before, fields_of::<T>());
    if !is_kept {
        return Ok(encode(record));
    }
    fields.insert(VERSION.to_owned(), T::V.into());
    Ok(serde_json::to_vec(&fields).unwrap_or_default())
}

/// Adds the fields that are not known; whether there are any. Of what has no known fields nothing is.
fn keep_unknown(
    fields: &mut Map<String, Value>,
    mut before: Map<String, Value>,
    known: &[&str],
) -> bool {
    before.retain(|name, _| !known.is_empty() && !known.contains(&name.as_str()));
    let is_kept = !before.is_empty();
    fields.extend(before);
    is_kept
}

/// Refuses a field that a type does not have, with its name and in serde's own words; for what a person wrote.
pub fn refuse_unknown<T: DeserializeOwned>(written: &Value) -> Result<(), String> {
    let known = fields_of::<T>();
    let mut names = written.as_object().into_iter().flat_map(Map::keys);
    match names.find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!(
            "{name}: {}",
            serde_json::Error::unknown_field(name, known)
        )),
        None => Ok(()),
    }
}

/// Reads a struct that is strict in what a person writes, inside of a record: fields it does not have are passed over.
pub fn tolerant<'de, T: DeserializeOwned, D: Deserializer<'de>>(reader: D) -> Result<T, D::Error> {
    let known = fields_of::<T>();
    let mut fields = Map::<String, Value>::deserialize(reader)?;
    fields.retain(|name, _| known.contains(&name.as_str()));
    T::deserialize(Value::Object(fields)).map_err(D::Error::custom)
}

/// The fields of a plain struct, as its derived reader knows them; none for any other type.
pub fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names = Names::default();
    let _only_the_names_are_wanted = T::deserialize(&mut names);
    names.0
}

/// A source that only learns which fields it is asked for.
#[derive(Default)]
struct Names(&'static [&'static str]);

impl<'de> Deserializer<'de> for &mut Names {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("there is nothing to read"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0 = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod records;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    }

    impl Stored for Sample {}

    #[derive(Serialize, Deserialize)]
    struct Nothing {}

    impl Stored for Nothing {
        const V: u32 = 12;
    }

    fn sample(name: Option<&str>) -> Sample {
        Sample {
            id: "a".into(),
            name: name.map(Into::into),
        }
    }

    #[test]
    fn a_record_is_written_with_its_version_and_read_with_or_without() {
        assert_eq!(encode(&sample(None)), br#"{"v":1,"id":"a"}"#);
        assert_eq!(encode(&Nothing {}), br#"{"v":12}"#);
        for text in [
            r#"{"id":"a"}"#,
            r#"{"v":1,"id":"a"}"#,
            r#"{"v":9,"id":"a","of":{"the":["future"]}}"#,
        ] {
            assert_eq!(
                decode::<Sample>(text.as_bytes()).unwrap(),
                sample(None),
                "{text}"
            );
        }
        assert!(decode::<Sample>(br#"{"id":1}"#).is_err());
    }

    #[test]
    fn what_is_written_over_another_keeps_what_only_that_one_knows() {
        let before = br#"{"v":1,"id":"b","name":"gone","of":["the","future"]}"#;
        let after = encode_over(&sample(None), before).unwrap();
        let after: Value = serde_json::from_slice(&after).unwrap();
        assert_eq!(after, json!({"v": 1, "id": "a", "of": ["the", "future"]}));
        assert_eq!(
            encode_over(&sample(None), b"{").unwrap(),
            encode(&sample(None))
        );
    }

    #[test]
    fn what_a_newer_version_wrote_is_left_alone() {
        let newer = encode_over(&sample(None), br#"{"v":2,"id":"a"}"#).unwrap_err();
        assert_eq!(newer, Newer { found: 2, known: 1 });
        assert_eq!(check::<Sample>(br#"{"id":"a"}"#), Ok(()));
        assert_eq!(check::<Nothing>(br#"{"v":12}"#), Ok(()));
        assert!(
            newer.to_string().contains("upgrade this program first"),
            "{newer}"
        );
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Nested {
        sample: Sample,
    }

    impl Stored for Nested {
        fn inner() -> Vec<(&'static str, Vec<&'static str>)> {
            vec![("sample", fields_of::<Sample>().to_vec())]
        }
    }

    #[test]
    fn what_an_inner_struct_does_not_know_is_kept_as_well() {
        let nested = Nested {
            sample: sample(None),
        };
        let over = |before: Value| -> Value {
            let after = encode_over(&nested, before.to_string().as_bytes()).unwrap();
            serde_json::from_slice(&after).unwrap()
        };
        let before = json!({"sample": {"id": "b", "name": "gone", "of": "tomorrow"}});
        assert_eq!(
            over(before),
            json!({"v": 1, "sample": {"id": "a", "of": "tomorrow"}})
        );
        let plain = json!({"v": 1, "sample": {"id": "a"}});
        assert_eq!(over(json!({"sample": {"id": "b"}})), plain);
        assert_eq!(over(json!({"sample": 7})), plain);
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        id: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Around {
        #[serde(deserialize_with = "tolerant")]
        inner: Strict,
    }

    impl Stored for Around {}

    #[test]
    fn what_is_strict_elsewhere_is_tolerant_inside_of_a_record() {
        let around = decode::<Around>(br#"{"inner":{"id":"a","colour":"of tomorrow"}}"#).unwrap();
        assert_eq!(around.inner, Strict { id: "a".into() });
        assert!(decode::<Around>(br#"{"inner":{"id":7}}"#).is_err());
    }

    #[test]
    fn what_a_person_writes_is_refused_with_a_field_that_there_is_not() {
        refuse_unknown::<Sample>(&json!({"id": "a", "name": "b"})).unwrap();
        let error = refuse_unknown::<Sample>(&json!({"id": "a", "nmae": "b"})).unwrap_err();
        assert_eq!(error, "nmae: unknown field `nmae`, expected `id` or `name`");
    }
}
