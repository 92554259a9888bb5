//! A recording, by link or by the id of media uploaded to Meta.

use crate::Message;
use crate::check::Check;
use crate::image::Image;
use serde_json::Value;

pub(crate) struct Audio<'a> {
    pub link: Option<&'a str>,
    pub id: Option<&'a str>,
}

impl Audio<'_> {
    /// Meta takes it as it takes an image, only without a text below.
    fn as_image(&self) -> Image<'_> {
        Image {
            link: self.link,
            id: self.id,
            caption: None,
        }
    }
}

impl Message for Audio<'_> {
    fn kind(&self) -> &'static str {
        "audio"
    }

    fn check(&self, check: &mut Check) {
        self.as_image().check(check);
    }

    fn graph(&self) -> Value {
        self.as_image().graph()
    }

    fn plain(&self) -> String {
        "[audio]".to_owned()
    }
}
