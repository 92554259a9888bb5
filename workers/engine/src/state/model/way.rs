//! What is on its way, until a step of the history lets it end, fail or get lost.

use super::world::{Job, Update};
use super::*;

#[derive(Debug)]
pub(super) enum Way {
    Action(Action<Arc<Update>>),
    /// An attempt that was started and asked nobody yet.
    Run(Started<Arc<Update>, Job>),
    /// One whose effect took place.
    Remember(Started<Arc<Update>, Job>),
}

impl Way {
    /// In a few words, for whoever reads a history.
    pub(super) fn in_words(&self) -> String {
        let of = |started: &Started<Arc<Update>, Job>| {
            format!(
                "{} at {} ({})",
                started.place.sequence, started.target.name, started.piece
            )
        };
        let queue = |queue: &SpillQueue| {
            let token = queue.conversation.as_deref().unwrap_or("whole");
            format!(
                "{}.{}.{}",
                queue.partition,
                queue.tenant,
                token.get(..6).unwrap_or(token)
            )
        };
        match self {
            Self::Run(started) => format!("to run {}", of(started)),
            Self::Remember(started) => format!("to remember {}", of(started)),
            Self::Action(Action::LookUp(partition, _)) => format!("to look up {partition}"),
            Self::Action(Action::Load(name, _, from, max)) => {
                format!("to load {} from {from}, {max} at most", queue(name))
            }
            Self::Action(Action::Remove(name, up_to)) => {
                format!("to remove {} up to {up_to}", queue(name))
            }
            Self::Action(Action::Store(batch)) => {
                let copies = batch.iter().map(|copy| {
                    let target = copy.target.as_ref().map_or("all", |target| &target.name);
                    format!("{}→{target} in {}", copy.place.sequence, queue(&copy.queue))
                });
                format!("to store {:?}", copies.collect::<Vec<_>>())
            }
            Self::Action(Action::Acknowledge(update, moved)) => {
                format!("to acknowledge {} (moved: {moved})", update.place.sequence)
            }
        }
    }
}
