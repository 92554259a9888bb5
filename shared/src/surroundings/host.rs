//! What the machine gives a process: file descriptors, and room on its disks.

use super::Room;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::Path;

/// How many files and sockets a process may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// How many it may.
    pub limit: u64,
    /// How many it needs at most.
    pub needed: u64,
}

impl Descriptors {
    /// Raises the limit to what is needed, as far as the process may.
    pub fn raise(needed: u64) -> Self {
        let found = getrlimit(Resource::Nofile);
        let current = found.current.unwrap_or(u64::MAX);
        let wanted = found.maximum.map_or(needed, |maximum| needed.min(maximum));
        if wanted > current {
            let raised = Rlimit {
                current: Some(wanted),
                maximum: found.maximum,
            };
            if let Err(error) = setrlimit(Resource::Nofile, raised) {
                tracing::warn!(%error, wanted, "the limit of open files cannot be raised");
            }
        }
        Self {
            limit: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            needed,
        }
    }

    /// What is wrong with it, if anything is; a setting decides how many are needed.
    pub fn problem(&self, setting: &str) -> Option<String> {
        let Self { limit, needed } = self;
        (limit < needed).then(|| {
            format!(
                "this process may open {limit} files and sockets and may need {needed}: connections are refused then; raise \
                 its limit (`ulimit -n`, LimitNOFILE= in systemd) or lower {setting}"
            )
        })
    }
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that a process without privileges may still write.
    pub free: u64,
}

impl Disk {
    /// The file system of a directory, or of the nearest one above that is there; `None` when it does not tell.
    pub fn of(directory: &Path) -> Option<Self> {
        let there = directory.ancestors().find(|directory| directory.exists());
        let there = there
            .filter(|there| !there.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let reported = rustix::fs::statvfs(there).ok()?;
        Some(Self {
            free: reported.f_bavail.saturating_mul(reported.f_frsize),
        })
    }

    /// What is wrong with it, if anything is.
    pub fn problem(&self, room: &Room) -> Option<String> {
        let (free, needed, setting) = (self.free >> 20, room.needed >> 20, room.setting);
        (self.free < room.needed).then(|| {
            format!(
                "the disk of {} ({setting}) has {free} MiB free, and {needed} MiB should be: nothing more is written there when \
                 it is full; make room or move it",
                room.directory.display()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_be_and_never_lowered() {
        let before = Descriptors::raise(0);
        assert_eq!(Descriptors::raise(before.limit).problem("x"), None);
        assert_eq!(Descriptors::raise(1).limit, before.limit);
        let reported = Descriptors {
            limit: 1024,
            needed: 4096,
        }
        .problem("ingress.connections_max")
        .unwrap();
        assert!(
            reported.contains("1024") && reported.contains("ingress.connections_max"),
            "{reported}"
        );
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_on_the_disk_of_the_one_above() {
        let directory = std::env::temp_dir();
        let below = directory.join("not-there").join("yet");
        assert!(Disk::of(&directory).unwrap().free > 0);
        assert!(Disk::of(&below).is_some() && Disk::of(Path::new("relative/journal")).is_some());
    }
}
