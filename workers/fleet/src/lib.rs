//! What all processes tell of themselves, and what one of them does for all.

pub mod board;
pub mod diagnosis;

#[cfg(any(test, feature = "testing"))]
pub mod fixture;
pub mod fleet;
pub mod floors;
pub mod gauges;
pub mod janitor;
pub mod lag;
pub mod notices;
pub mod publish;
pub mod scaling;
pub mod settings;
pub mod settled;
pub mod shared_work;
pub mod stream_share;
pub mod surroundings;
pub mod view;
