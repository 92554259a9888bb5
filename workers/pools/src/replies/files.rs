//! An agent's file on its way out: fetched from the CRM through the guarded client, uploaded to Meta, sent by its id.
//!
//! Meta does not reach a CRM's addresses, and need not: they may be signed, private or in a network of one's own.

use super::Replies;
use ackline_egress::{Egress, EgressAnswer, EgressError, EgressRequest};
use ackline_engine::step::Step;
use ackline_message::SendCommand;
use ackline_message::media::{MediaKind, MediaParts};
use ackline_runtime::job::{Marks, Work};
use ackline_shared::secret::Secret;
use ackline_whatsapp::media::{MediaError, MediaFile, essence};
use ackline_whatsapp::verdict::{Failure, Setback};
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Method, Url};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of one file.
const FILE_BYTES_MAX: usize = 24 << 20;
/// Longest time of fetching one.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time of fetching and uploading one.
pub const FILE_TIMEOUT: Duration = Duration::from_secs(95);
/// A CRM sends on to where it stores its files.
const REDIRECTS_MAX: usize = 4;
/// Prefix of the mark that keeps Meta's id of an uploaded file.
const UPLOADED: &str = "uploaded:";

/// Why a command cannot go out yet, or ever.
pub(super) enum NotReady {
    Again(Setback),
    Failed(Failure),
}

impl Replies {
    /// The command with its file at Meta, where it has one that is not there yet.
    pub(super) async fn with_file(
        &self,
        work: &Work,
        command: SendCommand,
    ) -> Result<SendCommand, NotReady> {
        let Some((kind, parts)) = command.file_to_upload() else {
            return Ok(command);
        };
        if let Some((kind, id)) = uploaded_before(&work.marks) {
            return Ok(command.with_upload(kind, &id));
        }
        let never = |reason: String| {
            NotReady::Failed(Failure::ours(format!("the file was not sent: {reason}")))
        };
        let later = |reason: String| {
            let reason = format!("the file is not fetched and uploaded yet: {reason}");
            NotReady::Again(Setback::own(reason))
        };
        let outcome = |error: MediaError| match error {
            MediaError::Later(reason) => later(reason),
            error => never(error.to_string()),
        };
        let Some(egress) = &self.egress else {
            return Err(never("this process fetches none".to_owned()));
        };
        let snapshot = self.platform.snapshot();
        let owner = snapshot.tenants.get(&work.head.tenant);
        let egress = egress.of_tenant(owner.map(AsRef::as_ref));
        let token = self.token(work, &command).map_err(NotReady::Failed)?;
        let held = self.files.enter(&work.head.tenant).await;
        let _held = held.ok_or_else(|| later("other files take the places".to_owned()))?;
        let url = parts.link.as_deref().unwrap_or_default();
        let file = fetch(&egress, url).await.map_err(outcome)?;
        let kind = kind.fitting(&file.mime_type, file.bytes.len());
        let id = self.upload(&command, &token, &file, &parts);
        let id = id.await.map_err(outcome)?;
        work.marks
            .set(Step::done(format!("{UPLOADED}{}:{id}", kind.as_str())));
        Ok(command.with_upload(kind, &id))
    }

    async fn upload(
        &self,
        command: &SendCommand,
        token: &Secret<String>,
        file: &MediaFile,
        parts: &MediaParts,
    ) -> Result<String, MediaError> {
        let name = parts.filename.as_deref().unwrap_or("file");
        self.graph
            .upload(&command.phone_number_id, token, file, name)
            .await
    }
}

fn uploaded_before(marks: &Marks) -> Option<(MediaKind, String)> {
    marks.all().iter().find_map(|mark| {
        let (kind, id) = mark.strip_prefix(UPLOADED)?.split_once(':')?;
        Some((MediaKind::read(kind)?, id.to_owned()))
    })
}

/// Fetches a file, wherever the CRM sends on to; each address is looked at anew by the guarded client.
async fn fetch(egress: &Egress, address: &str) -> Result<MediaFile, MediaError> {
    let deadline = Instant::now() + FETCH_TIMEOUT;
    let never = |reason: &str| MediaError::Never(reason.to_owned());
    let mut url = Url::parse(address).map_err(|_| never("its address cannot be read"))?;
    for _ in 0..=REDIRECTS_MAX {
        let request = EgressRequest {
            method: Method::GET,
            url: url.to_string(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: deadline.saturating_duration_since(Instant::now()),
            response_bytes_max: FILE_BYTES_MAX,
        };
        let answer = egress.request(request).await.map_err(unfetched)?;
        match answer.status.as_u16() {
            301..=303 | 307 | 308 => {
                let target = answer.headers.get(LOCATION);
                let target = target.and_then(|target| url.join(target.to_str().ok()?).ok());
                url = target.ok_or_else(|| never("the CRM sends on to no address"))?;
            }
            200..=299 => return whole(answer),
            // The webhook is faster than the storage of what it tells.
            code => return Err(MediaError::Later(format!("the CRM answered {code}"))),
        }
    }
    Err(never("the CRM sends on and on"))
}

fn unfetched(error: EgressError) -> MediaError {
    match error.is_permanent() {
        true => MediaError::Never(error.to_string()),
        false => MediaError::Later(error.to_string()),
    }
}

fn whole(answer: EgressAnswer) -> Result<MediaFile, MediaError> {
    if answer.broke_off {
        return Err(MediaError::Later("the CRM's answer broke off".to_owned()));
    }
    if !answer.whole {
        return Err(MediaError::TooLarge(FILE_BYTES_MAX));
    }
    if answer.body.is_empty() {
        return Err(MediaError::Later("the CRM has nothing in it".to_owned()));
    }
    let kind = answer.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    Ok(MediaFile {
        mime_type: essence(kind),
        bytes: answer.body,
    })
}
