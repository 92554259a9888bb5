//! SVG plots: lines over a number, and bars.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 48.0;
const COLOURS: [&str; 6] = [
    "#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a",
];

/// A line with its name.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Draws lines; marks are vertical lines with a word.
pub fn lines(title: &str, x: &str, y: &str, series: &[Series], marks: &[(f64, String)]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let x_max = points().map(|point| point.0).fold(1e-9, f64::max);
    let y_max = points().map(|point| point.1).fold(1e-9, f64::max);
    let place = |(px, py): (f64, f64)| {
        (
            LEFT + px / x_max * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - py / y_max * (HEIGHT - TOP - BOTTOM),
        )
    };
    let mut svg = frame(title, x, y, y_max);
    for tick in 0..=4 {
        let value = x_max * f64::from(tick) / 4.0;
        let (px, py) = place((value, 0.0));
        text(&mut svg, px, py + 18.0, "middle", &short(value));
    }
    for (at, word) in marks {
        let (px, bottom) = place((*at, 0.0));
        let _ = write!(
            svg,
            r##"<line x1="{px:.1}" x2="{px:.1}" y1="{TOP}" y2="{bottom:.1}" stroke="#999" stroke-dasharray="4 3"/>"##
        );
        text(&mut svg, px + 3.0, TOP + 12.0, "start", word);
    }
    for ((series, colour), row) in series.iter().zip(COLOURS.iter().cycle()).zip(0u32..) {
        let path: Vec<_> = series
            .points
            .iter()
            .map(|&point| place(point))
            .map(|(px, py)| format!("{px:.1},{py:.1}"))
            .collect();
        let _ = write!(
            svg,
            r#"<polyline fill="none" stroke="{colour}" stroke-width="2" points="{}"/>"#,
            path.join(" ")
        );
        let y = TOP + 14.0 + f64::from(row) * 16.0;
        let _ = write!(
            svg,
            r#"<rect x="{}" y="{}" width="10" height="10" fill="{colour}"/>"#,
            WIDTH - 190.0,
            y - 9.0
        );
        text(&mut svg, WIDTH - 175.0, y, "start", &series.name);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Draws horizontal bars, the longest across the whole width.
pub fn bars(title: &str, unit: &str, bars: &[(String, f64)]) -> String {
    let most = bars.iter().map(|bar| bar.1).fold(1e-9, f64::max);
    let height = TOP + 28.0 * super::super::load::tally::count(bars.len() as u64) + 24.0;
    let mut svg = open(title, height);
    for ((name, value), row) in bars.iter().zip(0u32..) {
        let y = TOP + 28.0 * f64::from(row);
        let width = (value / most * (WIDTH - 330.0)).max(1.0);
        text(&mut svg, 210.0, y + 15.0, "end", name);
        let _ = write!(
            svg,
            r#"<rect x="220" y="{y:.1}" width="{width:.1}" height="20" fill="{}"/>"#,
            COLOURS.first().copied().unwrap_or_default()
        );
        text(
            &mut svg,
            226.0 + width,
            y + 15.0,
            "start",
            &format!("{} {unit}", short(*value)),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn open(title: &str, height: f64) -> String {
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>"##
    );
    let _ = write!(
        svg,
        r#"<text x="12" y="24" font-size="15" font-weight="bold">{}</text>"#,
        escaped(title)
    );
    svg
}

fn frame(title: &str, x: &str, y: &str, y_max: f64) -> String {
    let mut svg = open(title, HEIGHT);
    for tick in 0..=4 {
        let at = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * f64::from(tick) / 4.0;
        let _ = write!(
            svg,
            r##"<line x1="{LEFT}" x2="{}" y1="{at:.1}" y2="{at:.1}" stroke="#ddd"/>"##,
            WIDTH - RIGHT
        );
        text(
            &mut svg,
            LEFT - 6.0,
            at + 4.0,
            "end",
            &short(y_max * f64::from(tick) / 4.0),
        );
    }
    text(&mut svg, WIDTH / 2.0, HEIGHT - 10.0, "middle", x);
    text(&mut svg, 12.0, 38.0, "start", y);
    svg
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = write!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
        escaped(words)
    );
}

fn escaped(words: &str) -> String {
    words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn short(value: f64) -> String {
    super::statistics::number(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_a_plot_are_escaped_and_the_largest_value_is_at_the_top() {
        let series = Series {
            name: "a < b".into(),
            points: vec![(0.0, 0.0), (10.0, 5.0)],
        };
        let svg = lines("R&D", "s", "n", &[series], &[(5.0, "kill".into())]);
        assert!(svg.contains("R&amp;D") && svg.contains("a &lt; b") && svg.contains("kill"));
        assert!(
            svg.contains(&format!("{:.1},{TOP:.1}", WIDTH - RIGHT)),
            "{svg}"
        );
    }

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        let svg = bars(
            "t",
            "rps",
            &[("ours".into(), 200.0), ("theirs".into(), 100.0)],
        );
        assert!(
            svg.contains(r#"width="390.0""#) && svg.contains(r#"width="195.0""#),
            "{svg}"
        );
    }
}
