//! TLS of the public port: the credentials in use, and their replacement while connections stay open.
//!
//! A connection keeps the credentials of its handshake to its end; new ones see what was read last. Files
//! that cannot be used never replace what works: the mistake is logged, shown by `/readyz` and counted.

pub mod client_name;
pub mod credentials;

use crate::metrics::Metrics;
use arc_swap::ArcSwap;
use credentials::{Credentials, Files, Stamp, unix_seconds};
use rustls::ServerConfig;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Time before its end at which a certificate is reported as ending soon.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// What TLS is made of, read and found usable.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    pub files: Files,
    /// What they were at the start.
    pub credentials: Arc<Credentials>,
}

#[derive(Debug)]
pub struct Tls {
    files: Files,
    current: ArcSwap<Credentials>,
    seen: Mutex<Seen>,
    metrics: Arc<Metrics>,
}

/// The files as they were last looked at, and what was wrong with them.
#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    mistake: Option<String>,
}

impl Tls {
    /// Begins with the credentials of the start.
    pub fn new(settings: TlsSettings, metrics: Arc<Metrics>) -> Arc<Self> {
        let seen = Mutex::new(Seen {
            stamp: settings.credentials.stamp.clone(),
            mistake: None,
        });
        let tls = Self {
            files: settings.files,
            current: settings.credentials.into(),
            seen,
            metrics,
        };
        tls.announce();
        Arc::new(tls)
    }

    /// What the next handshake uses.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load().config.clone()
    }

    /// Follows the files until dropped: every few seconds, and at once on SIGHUP.
    pub async fn follow(self: Arc<Self>) {
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP is not heard"))
            .ok();
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => drop(hangup.recv().await),
                    None => std::future::pending().await,
                }
            };
            let forced = tokio::select! { () = asked => true, () = sleep(LOOK_EVERY) => false };
            let tls = self.clone();
            // Files may lie on slow disks.
            let _looked = tokio::task::spawn_blocking(move || tls.look(forced)).await;
        }
    }

    /// Reads the files again if they changed, were wrong before, or `forced` says so.
    pub fn look(&self, forced: bool) {
        let stamp = self.files.stamp();
        let mut seen = self.seen();
        if !forced && seen.mistake.is_none() && seen.stamp == stamp {
            return;
        }
        seen.stamp = stamp;
        match self.files.load() {
            Ok(credentials) => {
                self.current.store(Arc::new(credentials));
                seen.mistake = None;
                drop(seen);
                tracing::info!("the certificate was read again");
                self.announce();
            }
            Err(error) => {
                let mistake = format!("{}: {error}", error.key());
                if seen.mistake.as_ref() != Some(&mistake) {
                    tracing::error!(%mistake, "the new certificate cannot be used; the old one stays");
                    self.metrics.certificate_reload_failures.inc();
                }
                seen.mistake = Some(mistake);
                self.metrics.certificate_refused.set(1);
            }
        }
    }

    /// What the operator is shown at `now`.
    pub fn status(&self, now: SystemTime) -> Value {
        let current = self.current.load();
        json!({
            "certificate_expires": unix_seconds(current.expires),
            "certificate_expired": current.expires <= now,
            "client_certificate": current.client_certificate,
            "reload_error": self.seen().mistake,
        })
    }

    fn announce(&self) {
        let expires = self.current.load().expires;
        self.metrics.certificate_expires.set(unix_seconds(expires));
        self.metrics.certificate_refused.set(0);
        let left = expires
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        if left.is_zero() {
            tracing::error!(
                "the certificate has expired: Meta delivers nothing until it is replaced"
            );
        } else if left < SOON {
            tracing::warn!(
                days = left.as_secs() / 86_400,
                "the certificate expires soon"
            );
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A short word for metrics on why a handshake failed.
pub fn reason(error: &std::io::Error) -> &'static str {
    use rustls::{CertificateError, Error};
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::NoCertificatesPresented) => "client_certificate_missing",
        Some(Error::InvalidCertificate(why)) => match why {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "client_certificate_name"
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => "client_certificate_expired",
            _ => "client_certificate_untrusted",
        },
        Some(Error::InvalidMessage(_)) => "not_tls",
        Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => "tls_incompatible",
        Some(Error::AlertReceived(_)) => "tls_refused_by_client",
        Some(_) => "tls_broken",
        None => "tls_client_gone",
    }
}
