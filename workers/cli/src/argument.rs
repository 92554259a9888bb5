//! Arguments that cannot be, for the commands that check them together.

use ackline_replay::past::ReadsNone;
use ackline_replay::terms::TermError;
use ackline_shared::ids::InvalidId;

/// Why arguments are refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error("{id}: {error}")]
    Name { id: String, error: InvalidId },
    #[error(transparent)]
    Term(#[from] TermError),
    #[error(transparent)]
    Reads(#[from] ReadsNone),
    #[error("flows answer people again; say --answer-people when that is meant")]
    AnswersPeople,
    #[error("--tenant: {0}")]
    Tenant(InvalidId),
    #[error("--tenant: say whose it is")]
    NoTenant,
    #[error("--tenant: is not for this kind; its id is enough")]
    NotOfTenant,
}
