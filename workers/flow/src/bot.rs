//! A bot's side of a conversation: which flow takes an update, over all flows of the bot.

use super::compiled::Compiled;
use super::effect::Effect;
use super::session::Session;
use super::step::step;
use super::trigger;
use super::update::Update;
use std::sync::Arc;

/// A live flow of a bot.
#[derive(Debug, Clone)]
pub struct Flow {
    pub id: String,
    pub compiled: Arc<Compiled>,
}

/// Takes one update with the stored session, if there is one, over the bot's flows in their order.
///
/// None means that nothing is to be stored or done: no flow claims the message, or nobody waits for the
/// outcome. As pure as [`step`].
pub fn advance(
    flows: &[Flow],
    session: Option<Session>,
    update: &Update,
    now_ms: u64,
) -> Option<(Session, Vec<Effect>)> {
    if let Some(effects) = session
        .as_ref()
        .and_then(|session| session.replay(&update.id()))
    {
        return session.map(|session| (session, effects));
    }
    let current = session.as_ref().filter(|session| !session.is_over());
    let current = current.and_then(|session| flows.iter().find(|flow| flow.id == session.flow()));
    let (flow, session) = match (current, update) {
        (Some(flow), _) => (flow, session?),
        (None, Update::Message(message)) => {
            let table = flows.iter().map(|flow| (flow, flow.compiled.as_ref()));
            let (flow, compiled) = trigger::choose(table, message)?;
            let session = match session {
                Some(session) => session.succeed(&flow.id, compiled),
                None => Session::new(&flow.id, compiled),
            };
            (flow, session)
        }
        (None, Update::EffectDone { .. } | Update::Start { .. }) => return None,
    };
    let (session, effects) = step(&flow.compiled, session, update, now_ms);
    // What concerned the session is remembered in it; what did not left it as it was.
    session.seen(&update.id()).then_some((session, effects))
}
