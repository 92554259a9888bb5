//! Makes sure that every stream and bucket exists.
//!
//! Whoever starts first creates what is missing; what exists is left as it is, but for subjects that a stream of an
//! older version lacks, and for the size of a bucket, which is bounded where it was not and only ever raised. The partition count is recorded when the installation is created, and a process configured
//! otherwise refuses to start.

use super::api::{self, ApiError, Ask, Unanswered};
use super::layout::{self, StreamConfig, bucket_stream, bucket_subject};
use super::{NatsError, NatsSettings};
use crate::model::Installation;
use crate::stored;
use crate::subjects::{BUCKET_CONFIG, UPDATES, config_key};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicU8, Ordering};

/// The stream exists with other settings.
const NAME_IN_USE: u64 = 10_058;
/// Somebody else wrote the subject meanwhile.
const WRONG_LAST_SEQUENCE: u64 = 10_071;

/// What a stream says about itself; `C` is what is wanted of its settings.
#[derive(Debug, Deserialize)]
pub struct StreamInfo<C> {
    /// Its settings.
    pub config: C,
    /// What it holds.
    #[serde(default)]
    pub state: StreamState,
}

/// What a stream holds.
#[derive(Debug, Default, Deserialize)]
pub struct StreamState {
    /// Bytes on disk.
    #[serde(default)]
    pub bytes: u64,
}

/// Asks a stream about itself.
pub async fn stream_info<C>(asker: &impl Ask, name: &str) -> Result<StreamInfo<C>, ApiError>
where
    StreamInfo<C>: serde::de::DeserializeOwned,
{
    api::call(asker, &format!("STREAM.INFO.{name}"), &json!({})).await
}

/// Makes sure every stream and bucket exists and the partition count is the recorded one.
pub async fn establish(asker: &impl Ask, settings: &NatsSettings) -> Result<(), NatsError> {
    for wanted in layout::streams(settings) {
        let made = ensure(asker, &wanted).await;
        made.map_err(|error| NatsError::prepare(wanted.bucket().unwrap_or(&wanted.name), &error))?;
    }
    check_partitions(asker, settings.partitions).await
}

/// How the streams are, as far as is known; shared by whoever looks and whoever tells.
#[derive(Debug, Default)]
pub struct Health(AtomicU8);

impl Health {
    const LOST: u8 = 1;
    const SILENT: u8 = 2;

    /// Notes what a look brought; nothing where NATS was away.
    pub fn note(&self, looked: &Result<bool, ApiError>) {
        let now = match looked {
            Ok(false) => 0,
            Ok(true) => Self::LOST,
            Err(ApiError::Refused { .. } | ApiError::Unanswered(Unanswered::Nobody)) => {
                Self::SILENT
            }
            Err(_) => return,
        };
        let before = self.0.swap(now, Ordering::Relaxed);
        match now {
            Self::LOST if before != now => tracing::error!(
                "NATS lost its store: updates and configuration are gone. Streams and buckets are made again; restore its store, or run `ackline apply`"
            ),
            Self::SILENT if before != now => tracing::error!("{RESTART_HINT}"),
            _ => {}
        }
    }

    /// Whether they are gone.
    pub fn is_lost(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::LOST
    }

    /// How they are, in words.
    pub fn words(&self) -> &'static str {
        match self.0.load(Ordering::Relaxed) {
            0 => "there",
            Self::LOST => "lost",
            _ => RESTART_HINT,
        }
    }
}

/// Whether the stream of updates is gone, as it is after the server lost its store.
pub async fn is_lost(asker: &impl Ask) -> Result<bool, ApiError> {
    match stream_info::<Value>(asker, UPDATES).await {
        Ok(_) => Ok(false),
        Err(error) if error.is_missing() => Ok(true),
        Err(error) => Err(error),
    }
}

/// What to do about a server that is connected and whose JetStream does not do what it is asked.
pub const RESTART_HINT: &str = "JetStream does not answer; if its disk was full, give it room and restart nats-server: it does not recover by itself";

async fn ensure(asker: &impl Ask, wanted: &StreamConfig) -> Result<(), ApiError> {
    let name = &wanted.name;
    let mut found = stream_info::<Map<String, Value>>(asker, name).await;
    if found.as_ref().is_err_and(ApiError::is_missing) {
        match create(asker, wanted).await {
            // Another process created it between the two calls, with settings of its own.
            Err(error) if error.is(NAME_IN_USE) => found = stream_info(asker, name).await,
            created => return created,
        }
    }
    let StreamInfo {
        config: mut stored,
        state,
    } = found?;
    let endpoint = format!("STREAM.UPDATE.{name}");
    if wanted.allow_atomic
        && !stored
            .get("allow_atomic")
            .is_some_and(|allowed| allowed == true)
    {
        stored.insert("allow_atomic".to_owned(), json!(true));
        api::call::<Value>(asker, &endpoint, &stored).await?;
    }
    if let Some(bucket) = wanted.bucket() {
        if bound(&mut stored, wanted.max_bytes(), state.bytes, bucket)
            && let Err(error) = api::call::<Value>(asker, &endpoint, &stored).await
        {
            // It works as it is, only without an end.
            tracing::warn!(bucket, %error, "the size of a bucket cannot be bounded; give JetStream more max_file_store");
        }
    } else if add_subjects(&mut stored, &wanted.subjects) {
        api::call::<Value>(asker, &endpoint, &stored).await?;
    }
    Ok(())
}

/// Creates a stream. A bucket whose size cannot be reserved is made without an end, for it works all the same.
async fn create(asker: &impl Ask, wanted: &StreamConfig) -> Result<(), ApiError> {
    let endpoint = format!("STREAM.CREATE.{}", wanted.name);
    let created = api::call::<Value>(asker, &endpoint, wanted).await;
    let (Err(error @ ApiError::Refused { .. }), Some(bucket)) = (&created, wanted.bucket()) else {
        return created.map(drop);
    };
    if error.is(NAME_IN_USE) {
        return created.map(drop);
    }
    match api::call::<Value>(asker, &endpoint, &wanted.endless()).await {
        Ok(_) => {
            tracing::warn!(bucket, %error, "the size of a bucket cannot be bounded; give JetStream more max_file_store");
            Ok(())
        }
        Err(other) if other.is(NAME_IN_USE) => Err(other),
        Err(_) => created.map(drop),
    }
}

/// Gives a bucket the size it lacks, or a larger one; tells whether it is to be written.
fn bound(stored: &mut Map<String, Value>, wanted: u64, held: u64, bucket: &str) -> bool {
    let now = stored
        .get("max_bytes")
        .and_then(Value::as_i64)
        .and_then(|bytes| u64::try_from(bytes).ok());
    let is_bounded = now.is_some_and(|bytes| bytes > 0);
    if now
        .filter(|_| is_bounded)
        .is_some_and(|bytes| bytes >= wanted)
    {
        return false;
    }
    if !is_bounded && held > wanted / 2 {
        tracing::warn!(
            bucket,
            held,
            wanted,
            "a bucket is too full to be bounded; raise nats.session_bytes_max or nats.config_bytes_max"
        );
        return false;
    }
    stored.insert("max_bytes".to_owned(), json!(wanted));
    true
}

/// Adds the subjects that a stream lacks; tells whether there were any.
fn add_subjects(stored: &mut Map<String, Value>, wanted: &[String]) -> bool {
    let subjects = stored.entry("subjects").or_insert_with(|| json!([]));
    let Some(subjects) = subjects.as_array_mut() else {
        return false;
    };
    let before = subjects.len();
    for subject in wanted {
        if !subjects.iter().any(|stored| stored == subject) {
            subjects.push(Value::String(subject.clone()));
        }
    }
    subjects.len() > before
}

/// The last message of a subject, as the stream's leader has it.
#[derive(Deserialize)]
struct Last {
    message: LastMessage,
}

#[derive(Default, Deserialize)]
struct LastMessage {
    seq: u64,
    /// In base64; what marks a removal carries nothing.
    #[serde(default)]
    data: String,
}

async fn check_partitions(asker: &impl Ask, configured: u16) -> Result<(), NatsError> {
    let failed = |error: ApiError| NatsError::prepare(config_key::INSTALLATION, &error);
    let mut last = last(asker).await.map_err(failed)?;
    if last.data.is_empty() {
        let record = stored::encode(&Installation {
            partitions: configured,
        });
        let subject = bucket_subject(BUCKET_CONFIG, config_key::INSTALLATION);
        match api::publish_after(asker, &subject, last.seq, record).await {
            Err(error) if error.is(WRONG_LAST_SEQUENCE) => {
                last = self::last(asker).await.map_err(failed)?
            }
            recorded => return recorded.map_err(failed),
        }
    }
    let unreadable = |error: String| failed(ApiError::Unreadable(error));
    let record = STANDARD
        .decode(&last.data)
        .map_err(|error| unreadable(error.to_string()))?;
    let stored: Installation =
        stored::decode(&record).map_err(|error| unreadable(error.to_string()))?;
    if stored.partitions == configured {
        Ok(())
    } else {
        Err(NatsError::Partitions {
            stored: stored.partitions,
            configured,
        })
    }
}

async fn last(asker: &impl Ask) -> Result<LastMessage, ApiError> {
    let endpoint = format!("STREAM.MSG.GET.{}", bucket_stream(BUCKET_CONFIG));
    let request = json!({"last_by_subj": bucket_subject(BUCKET_CONFIG, config_key::INSTALLATION)});
    match api::call::<Last>(asker, &endpoint, &request).await {
        Ok(last) => Ok(last.message),
        Err(error) if error.is_missing() => Ok(LastMessage::default()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_at_the_streams_is_told_in_words_and_what_is_away_says_nothing() {
        let health = Health::default();
        let refused = ApiError::Refused {
            code: 503,
            err_code: 10_023,
            description: "insufficient resources".into(),
        };
        for (looked, lost, part) in [
            (Ok(true), true, "lost"),
            (Err(ApiError::Unanswered(Unanswered::Away)), true, "lost"),
            (Err(refused), false, "restart nats-server"),
            (
                Err(ApiError::Unanswered(Unanswered::Nobody)),
                false,
                "restart nats-server",
            ),
            (Ok(false), false, "there"),
        ] {
            health.note(&looked);
            assert_eq!(health.is_lost(), lost, "{looked:?}");
            assert!(
                health.words().contains(part),
                "{looked:?}: {}",
                health.words()
            );
        }
    }
}
