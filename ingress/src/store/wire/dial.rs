//! Opens a session with one of the servers: the socket, TLS if either side wants it, the login.

use super::login::{Login, LoginError};
use super::protocol::{self, LINE_BYTES_MAX, Operation, ProtocolError};
use super::servers::{Server, Servers};
use ackline_shared::nats::{NatsError, NatsSettings};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Added to the wait before each further attempt, up to a bound.
const PAUSE: Duration = Duration::from_millis(25);
const PAUSES_MAX: u32 = 8;
/// The subscription that brings answers.
pub const ANSWERS: &str = "1";

/// A stream of bytes to a server.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open session, logged in and subscribed.
pub struct Session {
    /// Bytes to and from the server.
    pub io: Box<dyn Io>,
    /// Bytes received and not read yet.
    pub received: Vec<u8>,
    /// What the server says about itself.
    pub info: Info,
}

/// What a server says about itself.
#[derive(Debug, Default, Deserialize)]
pub struct Info {
    #[serde(default)]
    pub server_id: String,
    /// Longest message it takes, headers included.
    #[serde(default)]
    pub max_payload: Option<usize>,
    /// Whether it is about to end.
    #[serde(default)]
    pub ldm: bool,
    /// Other servers of its cluster.
    #[serde(default)]
    pub connect_urls: Vec<String>,
    #[serde(default)]
    tls_required: bool,
    #[serde(default)]
    nonce: String,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The server cannot be reached or went away.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It does not speak the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("the server says {0}")]
    Refused(String),
    /// Nobody can be said to log in.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// Its name cannot be verified.
    #[error("`{0}` is no name that a certificate could be for")]
    Name(String),
    #[error("no answer in time")]
    Late,
}

/// Opens sessions, one server after the other.
#[derive(Debug)]
pub struct Dialer {
    name: &'static str,
    servers: Servers,
    current: Option<Server>,
    login: Login,
    tls: Option<Arc<ClientConfig>>,
    attempts: u32,
}

impl Dialer {
    /// Reads what is configured; nothing is connected yet. The server shows the name of the connection.
    pub async fn new(settings: &NatsSettings, name: &'static str) -> Result<Self, NatsError> {
        let failed = |reason: String| NatsError::Connect {
            url: settings.url.clone(),
            reason,
        };
        let servers =
            Servers::parse(settings.url.expose()).map_err(|error| failed(error.to_string()))?;
        let login = Login::load(settings.credentials_file.as_deref()).await;
        let login = login.map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            name,
            servers,
            current: None,
            login,
            tls: None,
            attempts: 0,
        })
    }

    /// Tries servers until one of them opens a session that answers are heard on.
    pub async fn dial(&mut self, inbox: &[u8]) -> Session {
        loop {
            sleep(PAUSE * self.attempts.min(PAUSES_MAX)).await;
            self.attempts = self.attempts.saturating_add(1);
            let Some(server) = self.servers.next(rand::random::<u16>().into()).cloned() else {
                continue;
            };
            let opened = timeout(CONNECT_TIMEOUT, self.open(&server, inbox)).await;
            let opened = opened.unwrap_or(Err(DialError::Late));
            self.servers.tried(&server, opened.is_ok());
            match opened {
                Ok(session) => {
                    self.attempts = 0;
                    self.add_known(&server, &session.info);
                    self.current = Some(server);
                    return session;
                }
                Err(error @ (DialError::Refused(_) | DialError::Login(_) | DialError::Name(_))) => {
                    tracing::warn!(?server, %error, "NATS refuses the connection");
                }
                Err(error) => tracing::debug!(?server, %error, "cannot connect to NATS"),
            }
        }
    }

    /// Learns of further servers from the one we are connected to.
    pub fn learn(&mut self, info: &Info) {
        if let Some(server) = self.current.clone() {
            self.add_known(&server, info);
        }
    }

    fn add_known(&mut self, server: &Server, info: &Info) {
        self.servers.add(server, &info.connect_urls);
    }

    async fn open(&mut self, server: &Server, inbox: &[u8]) -> Result<Session, DialError> {
        let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
        stream.set_nodelay(true)?;
        let mut session = Session {
            io: Box::new(stream),
            received: Vec::new(),
            info: Info::default(),
        };
        session.info = session.info().await?;
        if server.tls || session.info.tls_required {
            // What came before the handshake in clear text is nobody's word.
            session.received.clear();
            let name = ServerName::try_from(server.host.clone());
            let name = name.map_err(|_| DialError::Name(server.host.clone()))?;
            session.io = Box::new(
                TlsConnector::from(self.tls()?)
                    .connect(name, session.io)
                    .await?,
            );
        }
        let mut hello = self.login.connect(server, &session.info.nonce, self.name)?;
        hello.extend_from_slice(b"SUB ");
        hello.extend_from_slice(inbox);
        hello.extend_from_slice(format!("* {ANSWERS}\r\nPING\r\n").as_bytes());
        session.io.write_all(&hello).await?;
        session.io.flush().await?;
        session.welcomed().await?;
        Ok(session)
    }

    /// Trusts what the system trusts; read once, when it is first needed.
    fn tls(&mut self) -> Result<Arc<ClientConfig>, std::io::Error> {
        if let Some(tls) = &self.tls {
            return Ok(tls.clone());
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(self.tls.insert(Arc::new(config)).clone())
    }
}

impl Session {
    async fn info(&mut self) -> Result<Info, DialError> {
        self.until(|operation| match operation {
            Operation::Info(json) => {
                Some(serde_json::from_slice(json).map_err(|_| ProtocolError::Unknown.into()))
            }
            _ => Some(Err(ProtocolError::Unknown.into())),
        })
        .await
    }

    async fn welcomed(&mut self) -> Result<(), DialError> {
        self.until(|operation| match operation {
            Operation::Pong => Some(Ok(())),
            Operation::Error(words) => Some(Err(DialError::Refused(
                String::from_utf8_lossy(words).into_owned(),
            ))),
            _ => None,
        })
        .await
    }

    /// Reads operations until one of them is what is waited for.
    async fn until<T>(
        &mut self,
        mut judge: impl FnMut(Operation<'_>) -> Option<Result<T, DialError>>,
    ) -> Result<T, DialError> {
        loop {
            while let Some((operation, taken)) = protocol::read(&self.received)? {
                let judged = judge(operation);
                self.received.drain(..taken);
                if let Some(judged) = judged {
                    return judged;
                }
            }
            if self.received.len() > LINE_BYTES_MAX {
                return Err(ProtocolError::TooLong.into());
            }
            if self.io.read_buf(&mut self.received).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}
