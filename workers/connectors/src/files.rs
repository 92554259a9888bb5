//! The files that people send: fetched from Meta, as far as a CRM takes them, and posted with their message.

use super::entry::{CrmEntry, CrmFile, Direction};
use super::{Crm, CrmError, CrmSync, Posted, Thread};
use ackline_egress::FilePlace;
use ackline_runtime::job::Work;
use ackline_whatsapp::media::{MediaError, MediaFile};

/// Bytes of one file; a CRM takes about as much, and it is held in memory twice.
pub const FILE_BYTES_MAX: usize = 24 << 20;

/// An entry with its file, for as long as the file may be held.
pub(super) struct Loaded {
    pub entry: CrmEntry,
    _held: Option<FilePlace>,
}

impl CrmSync {
    /// The entry with the file it is about. Where there is none to be had, the words say so.
    pub(super) async fn loaded(&self, work: &Work, entry: CrmEntry) -> Result<Loaded, CrmError> {
        let (Some(graph), Some(media)) = (&self.graph, &entry.media) else {
            return Ok(Loaded { entry, _held: None });
        };
        if entry.direction == Direction::Note {
            return Ok(Loaded { entry, _held: None });
        }
        let held = self.files.enter(&work.head.tenant).await;
        let held = held.ok_or_else(|| CrmError::Again {
            reason: "other files take the places".to_owned(),
        })?;
        let snapshot = self.platform.snapshot();
        let phone = snapshot.phone_numbers.get(&entry.number);
        let phone = phone.filter(|phone| phone.tenant == work.head.tenant);
        let token = phone.map(|phone| self.platform.open(phone.as_ref(), &phone.access_token));
        let fetched = match token {
            Some(Ok(token)) => graph.media(&token, &media.id, FILE_BYTES_MAX).await,
            Some(Err(error)) => Err(MediaError::Later(error.to_string())),
            None => Err(MediaError::Never("its number is not declared".to_owned())),
        };
        let entry = match fetched {
            Ok(file) => attached(entry, file),
            Err(MediaError::Later(reason)) if !work.last_attempt => {
                return Err(CrmError::Again {
                    reason: format!("the file of a message is not fetched yet: {reason}"),
                });
            }
            Err(error) => CrmEntry {
                content: format!("{} (the file is not here: {error})", entry.content),
                ..entry
            },
        };
        Ok(Loaded {
            entry,
            _held: Some(held),
        })
    }
}

/// Posts an entry; what the CRM does not take as a file, it gets in words.
pub(super) async fn post(
    crm: &impl Crm,
    thread: Thread,
    entry: &CrmEntry,
) -> Result<Posted, CrmError> {
    let posted = crm.post(thread, entry).await;
    if entry.file.is_none() || !matches!(posted, Err(CrmError::Refused { .. })) {
        return posted;
    }
    let in_words = CrmEntry {
        file: None,
        content: format!("{} (the CRM did not take the file)", entry.content),
        ..entry.clone()
    };
    crm.post(thread, &in_words).await
}

fn attached(entry: CrmEntry, file: MediaFile) -> CrmEntry {
    let named = entry
        .media
        .as_ref()
        .and_then(|media| media.filename.clone());
    let name = named.unwrap_or_else(|| {
        let family = file.mime_type.split('/').next().unwrap_or("file");
        format!("{family}.{}", extension(&file.mime_type))
    });
    CrmEntry {
        file: Some(CrmFile {
            name,
            mime_type: file.mime_type,
            bytes: file.bytes,
        }),
        ..entry
    }
}

/// The end of a file's name by its type.
fn extension(mime_type: &str) -> &str {
    match mime_type {
        "image/jpeg" => "jpg",
        "audio/mpeg" => "mp3",
        "audio/mp4" => "m4a",
        "video/3gpp" => "3gp",
        "text/plain" => "txt",
        "application/octet-stream" => "bin",
        other => {
            let end = other.rsplit(['/', '.', '+', '-']).next().unwrap_or("bin");
            if (2..=5).contains(&end.len()) {
                end
            } else {
                "bin"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::extension;

    #[test]
    fn a_file_without_a_name_gets_an_end_that_fits_its_type() {
        for (mime_type, wanted) in [
            ("image/jpeg", "jpg"),
            ("image/png", "png"),
            ("audio/ogg", "ogg"),
            ("video/mp4", "mp4"),
            ("application/pdf", "pdf"),
            (
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
                "bin",
            ),
            ("application/octet-stream", "bin"),
        ] {
            assert_eq!(extension(mime_type), wanted);
        }
    }
}
