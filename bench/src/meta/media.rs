//! Media of both directions: kept in memory, bounded, described the way the Graph API does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lru::LruCache;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::num::NonZeroUsize;

pub const UPLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;
const FILES_MAX: usize = 256;
const BYTES_MAX: usize = 128 * 1024 * 1024;

/// The media id of the built-in picture.
pub const SAMPLE_ID: &str = "1000000000000001";

// A transparent PNG of one pixel.
const SAMPLE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

#[derive(Debug, Clone)]
pub struct File {
    pub mime_type: String,
    /// Base64 of the SHA-256 of the bytes.
    pub sha256: String,
    pub bytes: Bytes,
}

impl File {
    /// Takes in bytes of a type.
    pub fn new(mime_type: &str, bytes: Bytes) -> Self {
        Self {
            mime_type: mime_type.to_owned(),
            sha256: STANDARD.encode(Sha256::digest(&bytes)),
            bytes,
        }
    }

    /// The metadata answer for this file.
    pub fn metadata(&self, id: &str, url: &str) -> Value {
        json!({
            "url": url, "mime_type": self.mime_type, "sha256": self.sha256, "file_size": self.bytes.len(),
            "id": id, "messaging_product": "whatsapp",
        })
    }
}

/// The files kept; the least recently used leave first, the built-in picture never.
#[derive(Debug)]
pub struct Media {
    files: LruCache<String, File>,
    bytes: usize,
    sample: File,
}

impl Default for Media {
    fn default() -> Self {
        let sample = Bytes::from(STANDARD.decode(SAMPLE).unwrap_or_default());
        Self {
            files: LruCache::new(NonZeroUsize::new(FILES_MAX).unwrap_or(NonZeroUsize::MIN)),
            bytes: 0,
            sample: File::new("image/png", sample),
        }
    }
}

impl Media {
    /// Keeps a file under an id.
    pub fn put(&mut self, id: String, file: File) {
        self.bytes += file.bytes.len();
        if let Some((_, replaced)) = self.files.push(id, file) {
            self.bytes -= replaced.bytes.len();
        }
        while self.bytes > BYTES_MAX {
            let Some((_, oldest)) = self.files.pop_lru() else {
                break;
            };
            self.bytes -= oldest.bytes.len();
        }
    }

    pub fn get(&mut self, id: &str) -> Option<File> {
        if id == SAMPLE_ID {
            Some(self.sample.clone())
        } else {
            self.files.get(id).cloned()
        }
    }

    /// Deletes a file; tells whether there was one.
    pub fn delete(&mut self, id: &str) -> bool {
        let deleted = self.files.pop(id);
        self.bytes -= deleted.as_ref().map_or(0, |file| file.bytes.len());
        deleted.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_bounded_in_files_and_bytes() {
        let mut media = Media::default();
        for n in 0..FILES_MAX + 10 {
            media.put(
                n.to_string(),
                File::new("text/plain", Bytes::from_static(b"x")),
            );
        }
        assert!(media.get("0").is_none() && media.get(SAMPLE_ID).is_some());
        let large = Bytes::from(vec![0; UPLOAD_BYTES_MAX]);
        for n in 0..20 {
            media.put(format!("large{n}"), File::new("video/mp4", large.clone()));
        }
        assert!(media.bytes <= BYTES_MAX);
        assert!(media.delete("large19") && !media.delete("large19"));
    }
}
