//! A film, by link or by the id of media uploaded to Meta.

use crate::Message;
use crate::check::Check;
use crate::image::Image;
use serde_json::Value;

/// Meta takes it as it takes an image.
pub(crate) struct Video<'a>(pub Image<'a>);

impl Message for Video<'_> {
    fn kind(&self) -> &'static str {
        "video"
    }

    fn check(&self, check: &mut Check) {
        self.0.check(check);
    }

    fn graph(&self) -> Value {
        self.0.graph()
    }

    fn plain(&self) -> String {
        match self.0.caption {
            Some(caption) => format!("[video] {caption}"),
            None => "[video]".to_owned(),
        }
    }

    fn summary(&self) -> String {
        self.0.caption.unwrap_or("[video]").to_owned()
    }
}
