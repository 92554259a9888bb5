//! How far long work is: a bar on the terminal, nothing where there is none.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over so many steps.
pub fn bar(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {per_sec}  {eta} left");
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
