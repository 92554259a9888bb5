//! Storing a send command, the API's one effect on conversations.

use super::App;
use super::problem::Problem;
use ackline_shared::command::SendCommand;
use ackline_shared::ids::UpdateId;
use ackline_shared::record::Record;
use ackline_shared::subjects::Lane;

/// Stores a command and then the record of it; the same command stored again changes nothing.
pub async fn queue(app: &App, lane: Lane, command: &SendCommand) -> Result<(), Problem> {
    app.reach_log()?;
    app.platform.log.command(lane, command).await.map_err(|error| {
        tracing::warn!(%error, message = command.id, "a message could not be stored");
        Problem::NatsAway
    })?;
    let head = command.head(lane, app.platform.log.partitions());
    let record = Record::ReplyQueued { command: Box::new(command.clone()) };
    let id = UpdateId::new(&command.id).effect("queued");
    if let Err(error) = app.platform.record(&head, &id, &record).await {
        // It will be sent all the same, and the record of that carries the whole command.
        tracing::warn!(%error, message = command.id, "the record of a queued message could not be stored");
    }
    Ok(())
}
