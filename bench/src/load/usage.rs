//! CPU time and memory of processes and their children, from /proc.

use std::collections::BTreeSet;
use std::time::Duration;

/// Linux reports CPU time to user space in hundredths of a second on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// What a process has used so far, with its children.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user and kernel.
    pub cpu: Duration,
    pub resident_bytes: u64,
}

impl Usage {
    /// Reads a process and everything it started; one that ended counts nothing.
    pub fn of(pid: u32) -> Self {
        let mut sum = Self::default();
        for pid in family(pid) {
            if let Some(stat) = read(pid, "stat").as_deref().and_then(parse_stat) {
                sum.cpu += stat.cpu;
            }
            sum.resident_bytes += read(pid, "status")
                .as_deref()
                .and_then(resident_bytes)
                .unwrap_or(0);
        }
        sum
    }

    /// CPU time in threads of this process.
    pub fn own_cpu() -> Duration {
        read(std::process::id(), "stat")
            .as_deref()
            .and_then(parse_stat)
            .map_or(Duration::ZERO, |stat| stat.cpu)
    }

    /// Resident memory in megabytes (2^20 bytes).
    pub fn resident_mb(&self) -> f64 {
        super::tally::count(self.resident_bytes) / f64::from(1 << 20)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    cpu: Duration,
}

fn read(pid: u32, file: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
}

/// A process and all its descendants.
fn family(root: u32) -> BTreeSet<u32> {
    let mut family = BTreeSet::from([root]);
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return family;
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids
        .filter_map(|pid| Some((pid, parse_stat(&read(pid, "stat")?)?.parent)))
        .collect();
    loop {
        let known = family.len();
        family.extend(
            parents
                .iter()
                .filter(|(_, parent)| family.contains(parent))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if family.len() == known {
            return family;
        }
    }
}

/// Reads `/proc/<pid>/stat`; the name in parentheses may hold anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<u32>().ok();
    Some(Stat {
        parent: number(1)?,
        cpu: TICK * (number(11)?.checked_add(number(12)?)?),
    })
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c) S 7 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 1 1 1 1";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                parent: 7,
                cpu: Duration::from_secs(2)
            })
        );
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(Usage::of(std::process::id()).resident_mb() > 1.0);
        assert_eq!(resident_bytes("VmRSS:\t   2048 kB\n"), Some(2 << 20));
    }
}
