//! Media at Meta: files that people sent are fetched, files for them are uploaded.
//!
//! An address that Meta gives for a file works for minutes and only with the number's own token, so a file is asked for
//! by its id each time. How large it may be is checked by what Meta says and again by what comes.

use crate::graph::{Graph, words};
use ackline_shared::ids::PhoneNumberId;
use ackline_shared::secret::Secret;
use bytes::{Bytes, BytesMut};
use reqwest::multipart::{Form, Part};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// Files are larger than messages, and Meta's storage slower than its API.
const FILE_TIMEOUT: Duration = Duration::from_secs(60);
const METADATA_BYTES_MAX: usize = 64 << 10;

/// A file.
#[derive(Clone, PartialEq, Eq)]
pub struct MediaFile {
    /// Its type without parameters, such as `audio/ogg`.
    pub mime_type: String,
    pub bytes: Bytes,
}

impl std::fmt::Debug for MediaFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "MediaFile({}, {} bytes)",
            self.mime_type,
            self.bytes.len()
        )
    }
}

/// Why a file is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// It will not be there later either.
    #[error("{0}")]
    Never(String),
    /// It is larger than what is taken.
    #[error("it is larger than {} MiB", .0 >> 20)]
    TooLarge(usize),
    /// It may be there later.
    #[error("{0}")]
    Later(String),
}

impl Graph {
    /// Fetches a file that a person sent.
    pub async fn media(
        &self,
        token: &Secret<String>,
        id: &str,
        bytes_max: usize,
    ) -> Result<MediaFile, MediaError> {
        if id.is_empty()
            || !id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        {
            return Err(MediaError::Never("its id is none of Meta's".to_owned()));
        }
        let metadata = self.get(token, &format!("{}/{id}", self.base)).await?;
        let metadata = read(metadata, METADATA_BYTES_MAX).await?;
        let metadata: Value = serde_json::from_slice(&metadata)
            .map_err(|_| MediaError::Later("Meta's answer cannot be read".to_owned()))?;
        let says = |name: &str| metadata.get(name).and_then(Value::as_u64);
        if says("file_size").is_some_and(|size| size > bytes_max as u64) {
            return Err(MediaError::TooLarge(bytes_max));
        }
        let text = |name: &str| metadata.get(name).and_then(Value::as_str);
        let url = text("url").filter(|url| self.may_hold_files(url));
        let url = url.ok_or_else(|| MediaError::Later("Meta names no address of it".to_owned()))?;
        let mime_type = essence(text("mime_type").unwrap_or("application/octet-stream"));
        let file = self.get(token, url).await?;
        Ok(MediaFile {
            mime_type,
            bytes: read(file, bytes_max).await?,
        })
    }

    /// Uploads a file to a number; gives Meta's id of it.
    pub async fn upload(
        &self,
        phone: &PhoneNumberId,
        token: &Secret<String>,
        file: &MediaFile,
        name: &str,
    ) -> Result<String, MediaError> {
        let never = |error: reqwest::Error| MediaError::Never(words(&error));
        let part = Part::stream(file.bytes.clone())
            .file_name(name.to_owned())
            .mime_str(&file.mime_type)
            .map_err(never)?;
        let form = Form::new()
            .text("messaging_product", "whatsapp")
            .text("type", file.mime_type.clone())
            .part("file", part);
        let request = self.http.post(format!("{}/{phone}/media", self.base));
        let sent = request
            .bearer_auth(token.expose())
            .timeout(FILE_TIMEOUT)
            .multipart(form)
            .send();
        let answer = check(
            sent.await
                .map_err(|error| MediaError::Later(words(&error)))?,
        )?;
        let answer = read(answer, METADATA_BYTES_MAX).await?;
        let answer: Option<Value> = serde_json::from_slice(&answer).ok();
        let id = answer
            .as_ref()
            .and_then(|answer| answer.get("id")?.as_str());
        id.map(str::to_owned)
            .ok_or_else(|| MediaError::Later("Meta names no id of it".to_owned()))
    }

    async fn get(&self, token: &Secret<String>, url: &str) -> Result<Response, MediaError> {
        let request = self.http.get(url).bearer_auth(token.expose());
        let answer = request.timeout(FILE_TIMEOUT).send().await;
        check(answer.map_err(|error| MediaError::Later(words(&error)))?)
    }

    /// The token goes along, so an address without TLS is one only where the API itself is configured without.
    fn may_hold_files(&self, url: &str) -> bool {
        url.starts_with("https://")
            || (url.starts_with("http://") && self.base.starts_with("http://"))
    }
}

fn check(answer: Response) -> Result<Response, MediaError> {
    let status = answer.status();
    let reason = format!("Meta answered {}", status.as_u16());
    match status {
        status if status.is_success() => Ok(answer),
        // A token that is not accepted can be mended.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => {
            Err(MediaError::Later(reason))
        }
        status if status.is_server_error() => Err(MediaError::Later(reason)),
        _ => Err(MediaError::Never(reason)),
    }
}

async fn read(mut answer: Response, bytes_max: usize) -> Result<Bytes, MediaError> {
    let mut body = BytesMut::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > bytes_max => {
                return Err(MediaError::TooLarge(bytes_max));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body.freeze()),
            Err(error) => return Err(MediaError::Later(words(&error))),
        }
    }
}

/// A type without its parameters.
pub fn essence(mime_type: &str) -> String {
    let essence = mime_type.split(';').next().unwrap_or_default().trim();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/.+-_".contains(c);
    match essence.contains('/') && essence.chars().all(is_plain) {
        true => essence.to_ascii_lowercase(),
        false => "application/octet-stream".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::essence;

    #[test]
    fn a_type_has_no_parameters_and_breaks_no_header() {
        assert_eq!(essence("audio/ogg; codecs=opus"), "audio/ogg");
        assert_eq!(essence("Image/JPEG"), "image/jpeg");
        for odd in ["", "pdf", "a/b\r\nx: y"] {
            assert_eq!(essence(odd), "application/octet-stream");
        }
    }
}
