//! Any other file, by link or by the id of media uploaded to Meta, under a name.

use crate::Message;
use crate::check::Check;
use crate::image::Image;
use serde_json::{Value, json};

/// Characters of a file's name.
pub const FILENAME_CHARS_MAX: usize = 240;

pub(crate) struct Document<'a> {
    /// Meta takes it as it takes an image, and with a name.
    pub file: Image<'a>,
    pub filename: Option<&'a str>,
}

impl Message for Document<'_> {
    fn kind(&self) -> &'static str {
        "document"
    }

    fn check(&self, check: &mut Check) {
        self.file.check(check);
        check.optional("filename", self.filename, FILENAME_CHARS_MAX);
    }

    fn graph(&self) -> Value {
        let mut body = self.file.graph();
        if let (Some(fields), Some(filename)) = (body.as_object_mut(), self.filename) {
            fields.insert("filename".to_owned(), json!(filename));
        }
        body
    }

    fn plain(&self) -> String {
        let name = match self.filename {
            Some(filename) => format!("[document: {filename}]"),
            None => "[document]".to_owned(),
        };
        match self.file.caption {
            Some(caption) => format!("{name} {caption}"),
            None => name,
        }
    }
}
