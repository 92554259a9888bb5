//! Storing a send command, the API's one effect on conversations.

use super::App;
use super::problem::Problem;
use ackline_message::Record;
use ackline_message::SendCommand;
use ackline_shared::ids::{TenantId, UpdateId};
use ackline_shared::stored;
use ackline_shared::subjects::{Lane, OUTBOUND, UPDATES};
use async_nats::jetstream::stream::RawMessageErrorKind;

/// Stores a command and then the record of it; the same command stored again changes nothing, and another with its id
/// is refused.
pub async fn queue(app: &App, lane: Lane, command: &SendCommand) -> Result<(), Problem> {
    app.reach_log()?;
    has_room(app, &command.tenant)?;
    let before = app
        .platform
        .log
        .command(lane, command)
        .await
        .map_err(|error| {
            tracing::warn!(%error, message = command.id, "a message could not be stored");
            Problem::NatsAway
        })?;
    if let Some(sequence) = before
        && !is_same(app, sequence, command).await?
    {
        return Err(Problem::IdempotencyConflict);
    }
    let head = command.head(lane, app.platform.log.partitions());
    let record = Record::ReplyQueued {
        command: Box::new(command.clone()),
    };
    let id = UpdateId::new(&command.id).effect("queued");
    if let Err(error) = app.platform.record(&head, &id, &record).await {
        // It will be sent all the same, and the record of that carries the whole command.
        tracing::warn!(%error, message = command.id, "the record of a queued message could not be stored");
    }
    Ok(())
}

/// Refuses for a tenant that fills what its sends would go into.
fn has_room(app: &App, tenant: &TenantId) -> Result<(), Problem> {
    let snapshot = app.platform.snapshot();
    match snapshot.overdrafts.get(tenant) {
        Some(overdraft) if overdraft.is_of(&[OUTBOUND, UPDATES]) => {
            Err(Problem::OverShare(overdraft.words()))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether what was stored before under a command's id is the same; what is gone since was sent long ago.
async fn is_same(app: &App, sequence: u64, command: &SendCommand) -> Result<bool, Problem> {
    let away = |error: &dyn std::fmt::Display| {
        tracing::warn!(%error, message = command.id, "a message stored before could not be read");
        Problem::NatsAway
    };
    let stream = app
        .platform
        .log
        .context()
        .get_stream_no_info(OUTBOUND)
        .await
        .map_err(|error| away(&error))?;
    let stored = match stream.get_raw_message(sequence).await {
        Ok(stored) => stored,
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(true),
        Err(error) => return Err(away(&error)),
    };
    let Ok(first) = stored::decode::<SendCommand>(&stored.payload) else {
        return Ok(true);
    };
    let is_same = (
        &first.to,
        &first.content,
        &first.phone_number_id,
        &first.reply_to,
    ) == (
        &command.to,
        &command.content,
        &command.phone_number_id,
        &command.reply_to,
    );
    Ok(first.id != command.id || is_same)
}
