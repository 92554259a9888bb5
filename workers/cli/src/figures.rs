//! Figures as people read them in narrow columns.

use ackline_fleet::fleet::PoolSum;
use std::time::Duration;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A count: exact up to 9,999, then in thousands, millions and so on.
pub fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..1_000_000 => format!("{}k", n / 1_000),
        1_000_000..1_000_000_000 => format!("{}M", n / 1_000_000),
        _ => format!("{}G", n / 1_000_000_000),
    }
}

/// A rate: one digit behind the point while it is small.
pub fn rate(per_second: f64) -> String {
    if per_second < 0.05 {
        "-".to_owned()
    } else if per_second < 100.0 {
        format!("{per_second:.1}")
    } else {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive and rounded"
        )]
        count(per_second.round() as u64)
    }
}

/// An age; `-` for none.
pub fn age(age: Duration) -> String {
    match age.as_secs() {
        0 if age.is_zero() => "-".to_owned(),
        0 => format!("{}ms", age.as_millis()),
        s @ 1..120 => format!("{s}s"),
        s @ 120..7_200 => format!("{}m", s / 60),
        s @ 7_200..172_800 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

/// The open dead letters of a pool; `-` while nobody has counted them.
pub fn open_dead(pool: &PoolSum) -> String {
    pool.dead
        .as_ref()
        .map_or_else(|| "-".to_owned(), |dead| count(dead.open))
}

/// A time of work in milliseconds; `-` for none.
pub fn time(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.1}ms"),
        Some(ms) if ms < 1_000.0 => format!("{ms:.0}ms"),
        Some(ms) if ms < 100_000.0 => format!("{:.1}s", ms / 1_000.0),
        Some(ms) => format!("{:.0}s", ms / 1_000.0),
    }
}

/// All values as at most `width` bars, each the most of its share, the latest at the right; nothing is a blank.
pub fn bars(values: &[u32], width: usize) -> String {
    let share = values.len().div_ceil(width.max(1)).max(1);
    let values: Vec<u32> = values
        .rchunks(share)
        .rev()
        .map(|chunk| chunk.iter().copied().max().unwrap_or_default())
        .collect();
    let most = values.iter().copied().max().unwrap_or_default().max(1);
    let bar = |value: &u32| match value {
        0 => ' ',
        value => {
            let step = u64::from(*value) * 7 / u64::from(most);
            usize::try_from(step)
                .ok()
                .and_then(|step| BARS.get(step))
                .copied()
                .unwrap_or('█')
        }
    };
    let drawn: String = values.iter().map(bar).collect();
    format!("{drawn:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fit_into_narrow_columns() {
        assert_eq!(
            [9_999, 10_000, 1_234_567, u64::MAX].map(count),
            ["9999", "10k", "1M", "18446744073G"]
        );
        assert_eq!(
            [0.0, 0.1, 99.94, 120.4, 20_400.0].map(rate),
            ["-", "0.1", "99.9", "120", "20k"]
        );
        assert_eq!(
            [0, 900, 61_000, 600_000, 10_800_000, 259_200_000]
                .map(Duration::from_millis)
                .map(age),
            ["-", "900ms", "61s", "10m", "3h", "3d"]
        );
        assert_eq!(
            [None, Some(1.24), Some(250.0), Some(2_540.0)].map(time),
            ["-", "1.2ms", "250ms", "2.5s"]
        );
    }

    #[test]
    fn bars_show_the_latest_at_the_right() {
        assert_eq!(bars(&[0, 1, 4, 8], 6), "   ▁▄█");
        assert_eq!(bars(&[2, 0, 2, 7], 2), "▃█");
        assert_eq!(bars(&[1, 1, 8], 2), "▁█");
        assert_eq!(bars(&[], 3), "   ");
    }
}
