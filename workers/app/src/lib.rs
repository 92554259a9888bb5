//! The program that runs pools and the API.

pub mod process;
pub mod scaler;
