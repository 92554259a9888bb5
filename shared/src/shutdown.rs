//! The signal to end, as every part of a process gets it.

use tokio::sync::watch;

/// The signal to end: true once.
pub type Shutdown = watch::Receiver<bool>;

/// Waits for the signal to end; a vanished sender is one too.
pub async fn ended(shutdown: &mut Shutdown) {
    let _signal_or_gone = shutdown.wait_for(|ended| *ended).await;
}
