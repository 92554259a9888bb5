//! How far long work is: a bar on the terminal, nothing where there is none.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over so many steps, with their pace.
pub fn bar(steps: u64) -> ProgressBar {
    styled(steps, "{bar:30} {pos}/{len}  {per_sec}  {eta} left")
}

/// A bar with words beside it, over what is not known before.
pub fn with_message() -> ProgressBar {
    styled(0, "{bar:30} {pos}/{len}  {msg}")
}

fn styled(steps: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
