//! The flow engine: a conversation as data, decided by pure code.
//!
//! A definition ([`definition`]) compiles to what is walked ([`compile`]) or to a report of all its
//! mistakes ([`report`]). [`step`](step::step) takes a session and an update and gives a session and
//! effects; [`bot::advance`] chooses the flow first. Web requests and language models are effects whose
//! outcomes come back as updates, so nothing in here waits, calls, reads a clock or draws at random.

pub mod agent;
pub mod answer;
pub mod bot;
mod builder;
pub mod choice;
pub mod compile;
pub mod compiled;
mod date;
pub mod definition;
mod digits;
pub mod effect;
pub mod expression;
pub mod filter;
pub mod fold;
mod hear;
pub mod library;
pub mod limits;
mod locale;
mod message;
pub mod node;
mod nodes;
mod number;
mod reasoning;
pub mod render;
pub mod report;
pub mod session;
pub mod step;
pub mod template;
pub mod trigger;
pub mod update;
mod validate;
pub mod value;

#[cfg(test)]
mod tests;

pub use bot::{Flow, advance};
pub use compiled::Compiled;
pub use effect::{AgentCall, Call, Effect, HeaderValue, HttpCall};
pub use report::{Problem, Report};
pub use session::{Session, Status};
pub use step::step;
pub use update::{CallOutcome, Contact, Message, Update};
