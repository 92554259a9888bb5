//! Medians and spreads of repeated measurements.

/// Repeated measurements of one figure.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
        self.0.sort_by(f64::total_cmp);
    }

    /// Adds the measurements of others.
    pub fn extend(&mut self, others: &Self) {
        others.0.iter().for_each(|sample| self.push(*sample));
    }

    /// The middle one; of two, their mean.
    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        let at = |place: usize| self.0.get(place).copied().unwrap_or(f64::NAN);
        if self.0.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(at(middle - 1), at(middle))
        } else {
            at(middle)
        }
    }

    pub fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    /// The median with the range beside it, when there is one.
    pub fn shown(&self) -> String {
        match (self.0.first(), self.0.last()) {
            (Some(least), Some(most)) if self.0.len() > 1 => {
                format!(
                    "{} ({} – {})",
                    number(self.median()),
                    number(*least),
                    number(*most)
                )
            }
            _ => number(self.median()),
        }
    }
}

/// A number as a table shows it.
pub fn number(figure: f64) -> String {
    if figure.is_nan() {
        "–".to_owned()
    } else {
        super::rounded(figure).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_shown_with_its_range() {
        let mut samples = Samples::default();
        assert_eq!(samples.shown(), "–");
        for sample in [3.0, 1.0, 20_000.4] {
            samples.push(sample);
        }
        assert_eq!(samples.shown(), "3 (1 – 20000)");
        samples.push(4.0);
        assert!((samples.median() - 3.5).abs() < 1e-9);
    }
}
