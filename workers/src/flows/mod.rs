//! The flow engine: a conversation as data, decided by pure code.

pub mod expression;
pub mod filter;
pub mod fold;
pub mod limits;
pub mod template;
pub mod value;
