//! The files an installation starts from: settings, nats-server's configuration, the master key.

use super::ports::Ports;
use ackline_shared::vault::VaultKey;
use anyhow::{Context, Result};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The directory of what nats-server stores.
pub const NATS_STORE: &str = "nats";

/// Where an installation's files are.
#[derive(Debug, Clone)]
pub struct Files {
    data: PathBuf,
}

impl Files {
    pub fn prepare(data: &Path) -> Result<Self> {
        for dir in ["logs", NATS_STORE] {
            let dir = data.join(dir);
            std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        }
        Ok(Self {
            data: std::fs::canonicalize(data)?,
        })
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The settings of our programs.
    pub fn settings(&self) -> PathBuf {
        self.data.join("ackline.toml")
    }

    pub fn nats(&self) -> PathBuf {
        self.data.join("nats-server.conf")
    }

    fn master_key(&self) -> PathBuf {
        self.data.join("master.key")
    }

    /// Writes all of them; a master key that is there stays, or nothing sealed with it would open again.
    pub fn write(&self, ports: &Ports, impatient: bool) -> Result<()> {
        let key = self.master_key();
        if !key.exists() {
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&key);
            let mut file = made.with_context(|| format!("creating {}", key.display()))?;
            writeln!(file, "{}", VaultKey::generate().to_base64().expose())?;
        }
        write(&self.settings(), &settings(&self.data, ports, impatient))?;
        write(&self.nats(), &nats_server(&self.data, ports))
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// A path or URL as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn settings(data: &Path, ports: &Ports, impatient: bool) -> String {
    let path = |name: &str| data.join(name).display().to_string();
    let mut text = format!(
        "# Written at every start; what to change permanently belongs in a file of your own.\n\
         [nats]\nurl = {nats}\nmonitor_url = {monitor}\ndurability = \"synced\"\nstream_bytes_max = \"256MiB\"\nsession_bytes_max = \"256MiB\"\n\n\
         [secrets]\nmaster_key_file = {key}\n\n\
         [ingress]\nlisten = {ingress}\nprivate_listen = {ingress_private}\n\n\
         [meta]\ngraph_url = {graph}\n\n\
         # The simulators are on this machine; without this entry tenants' URLs may not point here.\n\
         [egress]\nallow = [\"127.0.0.1\"]\n\n\
         [journal]\nurl = {journal}\n\n\
         [api]\nlisten = {api}\nprivate_listen = {api_private}\npublic_url = {public}\n",
        nats = quoted(&format!("nats://{}", ports.nats.address())),
        monitor = quoted(&ports.nats_monitor.url()),
        key = quoted(&path("master.key")),
        ingress = quoted(&ports.ingress.address().to_string()),
        ingress_private = quoted(&ports.ingress_private.address().to_string()),
        graph = quoted(&ports.simulator.url()),
        journal = quoted(&format!("sqlite://{}", path("journal.db"))),
        api = quoted(&ports.api.address().to_string()),
        api_private = quoted(&ports.api_private.address().to_string()),
        public = quoted(&ports.api.url()),
    );
    if impatient {
        for pool in ["replies", "relay", "crm", "events"] {
            text.push_str(&format!("\n[pools.{pool}]\nbackoff_initial = \"200ms\"\n"));
        }
    }
    text
}

fn nats_server(data: &Path, ports: &Ports) -> String {
    format!(
        "server_name: ackline\nhost: 127.0.0.1\nport: {}\nhttp: \"{}\"\nmax_payload: 8MB\n\
         jetstream {{\n  store_dir: \"{}\"\n  sync_interval: always\n}}\n",
        ports.nats.number,
        ports.nats_monitor.address(),
        data.join(NATS_STORE).display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::config::Reader;
    use ackline_shared::nats::{Durability, NatsSettings};
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn the_settings_are_ones_our_programs_accept() {
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports::free().await.unwrap();
        let files = Files::prepare(dir.path()).unwrap();
        files.write(&ports, true).unwrap();
        let mut reader = Reader::load(Some(&files.settings()), []);
        let nats = NatsSettings::read(&mut reader);
        assert_eq!(reader.address("ingress.listen"), ports.ingress.address());
        reader.finish().unwrap();
        assert_eq!(nats.durability, Durability::Synced);
        assert_eq!(
            nats.url.to_string(),
            format!("nats://{}", ports.nats.address())
        );
    }

    #[tokio::test]
    async fn the_master_key_is_private_and_stays_over_starts() {
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports::free().await.unwrap();
        let files = Files::prepare(dir.path()).unwrap();
        files.write(&ports, false).unwrap();
        let key = std::fs::read_to_string(files.master_key()).unwrap();
        assert!(VaultKey::from_base64(&key).is_ok());
        assert_eq!(
            std::fs::metadata(files.master_key())
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        files.write(&ports, false).unwrap();
        assert_eq!(std::fs::read_to_string(files.master_key()).unwrap(), key);
    }
}
