//! What is common to messages that are a file: of which kind WhatsApp takes it, and where it is.

use crate::{Content, Origin, SendCommand};

const MIB: usize = 1 << 20;

/// The kinds of files that WhatsApp shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    Image,
    Audio,
    Video,
    Document,
}

impl MediaKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Document => "document",
        }
    }

    pub fn read(name: &str) -> Option<Self> {
        [Self::Image, Self::Audio, Self::Video, Self::Document]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }

    /// The kind a file can go out as: as wanted where WhatsApp takes its type and size so, else as a document.
    pub fn fitting(self, mime_type: &str, bytes: usize) -> Self {
        let (types, most): (&[&str], usize) = match self {
            Self::Image => (&["image/jpeg", "image/png"], 5 * MIB),
            Self::Audio => (
                &[
                    "audio/aac",
                    "audio/amr",
                    "audio/mpeg",
                    "audio/mp4",
                    "audio/ogg",
                ],
                16 * MIB,
            ),
            Self::Video => (&["video/mp4", "video/3gpp"], 16 * MIB),
            Self::Document => return Self::Document,
        };
        match types.contains(&mime_type) && bytes <= most {
            true => self,
            false => Self::Document,
        }
    }
}

/// A file of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MediaParts {
    pub link: Option<String>,
    pub id: Option<String>,
    pub caption: Option<String>,
    pub filename: Option<String>,
}

impl Content {
    /// A message that is a file; what its kind has no place for is left out.
    pub fn file(kind: MediaKind, parts: MediaParts) -> Self {
        let MediaParts {
            link,
            id,
            caption,
            filename,
        } = parts;
        match kind {
            MediaKind::Image => Self::Image { link, id, caption },
            MediaKind::Audio => Self::Audio { link, id },
            MediaKind::Video => Self::Video { link, id, caption },
            MediaKind::Document => Self::Document {
                link,
                id,
                caption,
                filename,
            },
        }
    }

    /// The kind and the file of a message that is one.
    pub fn as_file(&self) -> Option<(MediaKind, MediaParts)> {
        let parts = |link: &Option<String>, id: &Option<String>| MediaParts {
            link: link.clone(),
            id: id.clone(),
            ..MediaParts::default()
        };
        Some(match self {
            Self::Image { link, id, caption } => {
                let caption = caption.clone();
                (
                    MediaKind::Image,
                    MediaParts {
                        caption,
                        ..parts(link, id)
                    },
                )
            }
            Self::Audio { link, id } => (MediaKind::Audio, parts(link, id)),
            Self::Video { link, id, caption } => {
                let caption = caption.clone();
                (
                    MediaKind::Video,
                    MediaParts {
                        caption,
                        ..parts(link, id)
                    },
                )
            }
            Self::Document {
                link,
                id,
                caption,
                filename,
            } => {
                let (caption, filename) = (caption.clone(), filename.clone());
                let parts = parts(link, id);
                (
                    MediaKind::Document,
                    MediaParts {
                        caption,
                        filename,
                        ..parts
                    },
                )
            }
            _ => return None,
        })
    }
}

impl SendCommand {
    /// The file that is fetched and uploaded before the message goes out: an agent's, whose address in the CRM Meta does
    /// not reach.
    pub fn file_to_upload(&self) -> Option<(MediaKind, MediaParts)> {
        let (kind, parts) = self.content.as_file()?;
        let is_agents = matches!(self.origin, Origin::Agent { .. });
        (is_agents && parts.link.is_some()).then_some((kind, parts))
    }

    /// The command once its file is uploaded under an id.
    pub fn with_upload(mut self, kind: MediaKind, id: &str) -> Self {
        if let Some((_, parts)) = self.content.as_file() {
            let id = Some(id.to_owned());
            self.content = Content::file(
                kind,
                MediaParts {
                    link: None,
                    id,
                    ..parts
                },
            );
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_whatsapp_does_not_show_goes_as_a_document() {
        use MediaKind::{Audio, Document, Image, Video};
        for (wanted, mime_type, bytes, kind) in [
            (Image, "image/png", 5 * MIB, Image),
            (Image, "image/png", 5 * MIB + 1, Document),
            (Image, "image/webp", 1, Document),
            (Audio, "audio/ogg", 1, Audio),
            (Audio, "audio/wav", 1, Document),
            (Video, "video/mp4", 16 * MIB, Video),
            (Video, "video/quicktime", 1, Document),
            (Document, "image/png", 1, Document),
        ] {
            assert_eq!(wanted.fitting(mime_type, bytes), kind, "{mime_type}");
        }
    }

    #[test]
    fn a_file_is_taken_apart_and_put_together() {
        let whole = MediaParts {
            link: Some("https://a.example/x".into()),
            id: None,
            caption: Some("c".into()),
            filename: Some("x.pdf".into()),
        };
        for kind in ["image", "audio", "video", "document"] {
            let kind = MediaKind::read(kind).unwrap();
            let content = Content::file(kind, whole.clone());
            let (of, parts) = content.as_file().unwrap();
            assert_eq!((of, parts.link.as_deref()), (kind, whole.link.as_deref()));
            assert_eq!(Content::file(of, parts), content);
        }
    }
}
