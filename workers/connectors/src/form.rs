//! A message with files as a CRM takes it: `multipart/form-data`.
//!
//! What parts the parts is drawn at random, so that no file can hold it and add parts of its own.

use super::entry::CrmFile;

/// A body with its content type.
pub struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    pub fn new(random: [u8; 16]) -> Self {
        Self {
            boundary: format!("ackline-{}", ackline_shared::ids::hex(&random)),
            body: Vec::new(),
        }
    }

    pub fn text(&mut self, name: &str, text: &str) {
        self.begin(&format!("name=\"{name}\""), None);
        self.body.extend_from_slice(text.as_bytes());
    }

    pub fn file(&mut self, name: &str, file: &CrmFile) {
        let filename = file_name(&file.name);
        self.begin(
            &format!("name=\"{name}\"; filename=\"{filename}\""),
            Some(&file.mime_type),
        );
        self.body.extend_from_slice(&file.bytes);
    }

    fn begin(&mut self, disposition: &str, mime_type: Option<&str>) {
        let mut head = if self.body.is_empty() {
            String::new()
        } else {
            "\r\n".to_owned()
        };
        head.push_str(&format!(
            "--{}\r\nContent-Disposition: form-data; {disposition}\r\n",
            self.boundary
        ));
        if let Some(mime_type) = mime_type {
            head.push_str(&format!("Content-Type: {mime_type}\r\n"));
        }
        head.push_str("\r\n");
        self.body.extend_from_slice(head.as_bytes());
    }

    /// The content type and the whole body.
    pub fn finish(mut self) -> (String, Vec<u8>) {
        self.body
            .extend_from_slice(format!("\r\n--{}--\r\n", self.boundary).as_bytes());
        let kind = format!("multipart/form-data; boundary={}", self.boundary);
        (kind, self.body)
    }
}

/// A name without what would end it, or lead elsewhere.
fn file_name(name: &str) -> String {
    let plain = super::clean::line(name);
    let name: String = plain
        .chars()
        .map(|c| if "\"\\/".contains(c) { '_' } else { c })
        .take(NAME_CHARS_MAX)
        .collect();
    match name.trim_matches('.').is_empty() {
        true => "file".to_owned(),
        false => name,
    }
}

const NAME_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_files_stand_between_boundaries() {
        let mut form = Form::new([1; 16]);
        form.text("content", "Look");
        let file = CrmFile {
            name: "a\"\r\nb/../c.pdf".into(),
            mime_type: "application/pdf".into(),
            bytes: bytes::Bytes::from_static(b"%PDF"),
        };
        form.file("attachments[]", &file);
        let (kind, body) = form.finish();
        let boundary = "ackline-01010101010101010101010101010101";
        assert_eq!(kind, format!("multipart/form-data; boundary={boundary}"));
        let expected = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\nLook\r\n--{boundary}\r\n\
             Content-Disposition: form-data; name=\"attachments[]\"; filename=\"a_ b_.._c.pdf\"\r\n\
             Content-Type: application/pdf\r\n\r\n%PDF\r\n--{boundary}--\r\n"
        );
        assert_eq!(String::from_utf8(body).unwrap(), expected);
        assert_eq!(file_name(".."), "file");
    }
}
