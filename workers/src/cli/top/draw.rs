//! Draws the screen: totals, the pools, and what there is to say about the selected one.

use super::screen::{Focus, Screen};
use crate::cli::figures::{age, bars, count, rate, time};
use crate::core::status::diagnosis::Condition;
use crate::core::status::fleet::PoolSum;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Row, StatefulWidget, Table, TableState, Widget};

/// The screen, drawn.
pub struct View<'a>(pub &'a Screen);

const KEYS: &str = "arrows select  tab tenants  s sort  p pause  +/- jobs  ? help  q quit";

impl Widget for View<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let screen = self.0;
        let pools = u16::try_from(screen.pools.len()).unwrap_or(u16::MAX).saturating_add(1).clamp(2, 8);
        let [header, table, words, tenants, keys] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(pools),
            Constraint::Length(4),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(area);
        draw_header(screen, header, buffer);
        draw_pools(screen, table, buffer);
        draw_words(screen, words, buffer);
        draw_tenants(screen, tenants, buffer);
        match &screen.message {
            Some(message) => Line::styled(message.as_str(), screen.heading()).render(keys, buffer),
            None => Line::styled(KEYS, screen.dim()).render(keys, buffer),
        }
        if screen.help {
            draw_help(area, buffer);
        }
    }
}

impl Screen {
    fn dim(&self) -> Style {
        if self.colour { Style::new().fg(Color::DarkGray) } else { Style::new() }
    }

    fn heading(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn of(&self, condition: Condition) -> Style {
        let colour = match condition {
            Condition::Healthy => Color::Green,
            Condition::Paused | Condition::CatchingUp => Color::Yellow,
            Condition::Unowned
            | Condition::DownstreamSlow
            | Condition::TenantNoisy
            | Condition::WorkersTooFew => Color::Red,
        };
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }
}

fn draw_header(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let sum = |of: fn(&PoolSum) -> f64| rate(screen.pools.iter().map(of).sum());
    let lag: u64 = screen.pools.iter().map(PoolSum::lag_messages).sum();
    let oldest = screen.pools.iter().map(PoolSum::lag).max().unwrap_or_default();
    let healthy = screen.pools.iter().filter(|pool| pool.diagnosis().condition == Condition::Healthy).count();
    let totals = format!(
        "ackline  {} process{}   in {}/s   out {}/s   lag {} ({})   {healthy} of {} pools healthy",
        screen.instances,
        if screen.instances == 1 { "" } else { "es" },
        sum(|pool| pool.rates.read),
        sum(|pool| pool.rates.finished),
        count(lag),
        age(oldest),
        screen.pools.len(),
    );
    Line::styled(totals, screen.heading()).render(area, buffer);
}

/// A column: its title, its width, and what it shows.
type Column = (&'static str, u16, fn(&Screen, &PoolSum) -> String);

/// The columns behind name and verdict, the most needed first; the last ones go when the terminal is narrow.
const COLUMNS: [Column; 9] = [
    ("LAG", 6, |_, pool| count(pool.lag_messages())),
    ("OLDEST", 6, |_, pool| age(pool.lag())),
    ("OUT/S", 6, |_, pool| rate(pool.rates.finished)),
    ("RUN/MAX", 8, |_, pool| pool.jobs()),
    ("P99", 6, |_, pool| time(pool.service.quantile_ms(0.99))),
    ("IN/S", 6, |_, pool| rate(pool.rates.read)),
    ("RETRY", 6, |_, pool| count(pool.load.waiting)),
    ("P50", 6, |_, pool| time(pool.service.quantile_ms(0.5))),
    ("WANT", 4, |screen, pool| pool.wanted(&screen.targets).to_string()),
];
const NAME_WIDTH: u16 = 8;
const VERDICT_WIDTH: u16 = 15;
const BARS_WIDTH_MIN: u16 = 12;
const BARS_WIDTH_MAX: u16 = 60;

fn draw_pools(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let mut left = area.width.saturating_sub(NAME_WIDTH + VERDICT_WIDTH + 2 + BARS_WIDTH_MIN);
    let columns: Vec<&Column> = COLUMNS
        .iter()
        .take_while(|(_, width, _)| {
            let fits = left > *width;
            left = left.saturating_sub(*width + 1);
            fits
        })
        .collect();
    let bars_width = (left + BARS_WIDTH_MIN).min(BARS_WIDTH_MAX);
    let mut widths = vec![Constraint::Length(NAME_WIDTH), Constraint::Length(VERDICT_WIDTH)];
    widths.extend(columns.iter().map(|(_, width, _)| Constraint::Length(*width)));
    widths.push(Constraint::Length(bars_width));
    let right = |text: String| Line::from(text).right_aligned();
    let mut titles = vec![Line::from("POOL"), Line::from("VERDICT")];
    titles.extend(columns.iter().map(|(title, _, _)| right((*title).to_owned())));
    titles.push(Line::from("LAST MINUTE"));
    let row = |pool: &PoolSum| {
        let condition = pool.diagnosis().condition;
        let mut cells =
            vec![Line::from(pool.pool.as_str()), Line::styled(verdict(condition), screen.of(condition))];
        cells.extend(columns.iter().map(|(_, _, show)| right(show(screen, pool))));
        cells.push(Line::from(bars(&pool.history, usize::from(bars_width))));
        Row::new(cells)
    };
    let table = Table::new(screen.pools.iter().map(row), widths)
        .header(Row::new(titles).style(screen.heading()))
        .row_highlight_style(highlight(screen.focus == Focus::Pools));
    let selected =
        screen.selected_pool().and_then(|selected| screen.pools.iter().position(|pool| pool == selected));
    StatefulWidget::render(table, area, buffer, &mut TableState::default().with_selected(selected));
}

fn verdict(condition: Condition) -> String {
    condition.as_str().replace('_', " ")
}

/// Whoever has the arrows is reversed, whoever was selected before is underlined: both work without colour.
fn highlight(has_focus: bool) -> Style {
    Style::new().add_modifier(if has_focus { Modifier::REVERSED } else { Modifier::UNDERLINED })
}

fn draw_words(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let Some(pool) = screen.selected_pool() else {
        Paragraph::new("\nno workers process speaks yet; start `ackline-workers`").render(area, buffer);
        return;
    };
    let diagnosis = pool.diagnosis();
    let lanes: Vec<String> = pool
        .lanes
        .iter()
        .map(|lane| {
            format!(
                "{} {} ({})",
                lane.lane,
                count(lane.messages()),
                age(std::time::Duration::from_millis(lane.oldest_ms))
            )
        })
        .collect();
    let owners = format!(
        "{} working, {} wanted; {} of {} partitions owned; {} owner changes",
        pool.working(),
        pool.wanted(&screen.targets),
        pool.partitions.saturating_sub(pool.unowned),
        pool.partitions,
        pool.owner_changes
    );
    let lines = vec![
        Line::default(),
        Line::from(vec![
            Span::styled(format!("{}: ", pool.pool), screen.heading()),
            Span::styled(diagnosis.words, screen.of(diagnosis.condition)),
        ]),
        Line::from(format!("lanes: {}", if lanes.is_empty() { "-".to_owned() } else { lanes.join("  ") })),
        Line::from(owners),
    ];
    Paragraph::new(lines).render(area, buffer);
}

fn draw_tenants(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let Some(pool) = screen.selected_pool() else { return };
    let right = |text: String| Line::from(text).right_aligned();
    let mut titles = vec![Line::from(format!("TENANT (by {})", screen.order.as_str()))];
    titles.extend(["IN/S", "QUEUED", "RUNNING", "RETRY"].map(|title| right(title.to_owned())));
    let rows = pool.tenants.iter().map(|tenant| {
        Row::new([
            Line::from(tenant.tenant.to_string()),
            right(rate(tenant.rate)),
            right(count(tenant.load.queued)),
            right(count(tenant.load.running)),
            right(count(tenant.load.waiting)),
        ])
    });
    let widths = [
        Constraint::Min(20),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
    ];
    let area = Rect { y: area.y + area.height.min(1), height: area.height.saturating_sub(1), ..area };
    let has_focus = screen.focus == Focus::Tenants;
    let table = Table::new(rows, widths)
        .header(Row::new(titles).style(screen.heading()))
        .row_highlight_style(highlight(true));
    let selected = has_focus.then(|| screen.selected_tenant());
    StatefulWidget::render(table, area, buffer, &mut TableState::default().with_selected(selected));
}

const HELP: [&str; 12] = [
    "up, down   select a pool or a tenant",
    "tab        go to the tenants of the pool, and back",
    "s          order by usual, rate, waiting",
    "p          pause the selected pool or tenant, or let it go on",
    "+, -       more or fewer jobs at once, in each process",
    "?          this help",
    "q          quit",
    "",
    "LAG is what is not finished in the streams, OLDEST the age of",
    "the oldest of it, WANT the processes that the pool needs.",
    "RETRY waits for another attempt; P50 and P99 are of the time",
    "of one attempt over the last half minute.",
];

fn draw_help(area: Rect, buffer: &mut Buffer) {
    let height = u16::try_from(HELP.len()).unwrap_or(u16::MAX).saturating_add(2).min(area.height);
    let width = 66.min(area.width);
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(place, buffer);
    let block = ratatui::widgets::Block::bordered().title(" keys ");
    Paragraph::new(HELP.map(Line::from).to_vec()).block(block).render(place, buffer);
}
