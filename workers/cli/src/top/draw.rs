//! Draws the screen: totals, the pools, and what there is to say about the selected one.

use super::screen::{Focus, Screen};
use crate::figures::{age, bars, count, open_dead, rate, time};
use ackline_fleet::diagnosis::Condition;
use ackline_fleet::fleet::PoolSum;
use ackline_fleet::notices::{notice_counts, state};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Row, StatefulWidget, Table, TableState, Widget, Wrap};

pub struct View<'a>(pub &'a Screen);

const KEYS: &str = "arrows select  tab tenants  s sort  p pause  +/- jobs  ? help  q quit";

impl Widget for View<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let screen = self.0;
        let pools = u16::try_from(screen.pools.len())
            .unwrap_or(u16::MAX)
            .saturating_add(1)
            .clamp(2, 8);
        let notices = notices(screen);
        let words = words(screen);
        let [header, table, reported, tenants, keys] = Layout::vertical([
            Constraint::Length(if notices.is_empty() { 2 } else { 3 }),
            Constraint::Length(pools),
            Constraint::Length(height(&words, area.width)),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(area);
        draw_header(screen, &notices, header, buffer);
        draw_pools(screen, table, buffer);
        Paragraph::new(words)
            .wrap(Wrap { trim: false })
            .render(reported, buffer);
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
        if self.colour {
            Style::new().fg(Color::DarkGray)
        } else {
            Style::new()
        }
    }

    fn heading(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn of(&self, condition: Condition) -> Style {
        let colour = match condition {
            Condition::Healthy => Color::Green,
            Condition::Paused | Condition::CatchingUp => Color::Yellow,
            Condition::Stuck
            | Condition::Unowned
            | Condition::DownstreamSlow
            | Condition::TenantNoisy
            | Condition::WorkersTooFew => Color::Red,
        };
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }
}

/// What no pool's lag shows, pool by pool.
fn notices(screen: &Screen) -> String {
    let of_pool = |pool: &PoolSum| Some(format!("{}: {}", pool.pool, notice_counts(pool)?));
    screen
        .pools
        .iter()
        .filter_map(of_pool)
        .collect::<Vec<_>>()
        .join("   ")
}

/// How many rows the lines take when the long ones are broken; a word more or less does not matter.
fn height(lines: &[Line<'_>], width: u16) -> u16 {
    let rows = |line: &Line<'_>| line.width().div_ceil(usize::from(width.max(1))).max(1);
    u16::try_from(lines.iter().map(rows).sum::<usize>())
        .unwrap_or(u16::MAX)
        .min(WORDS_ROWS_MAX)
}

fn draw_header(screen: &Screen, notices: &str, area: Rect, buffer: &mut Buffer) {
    let sum = |of: fn(&PoolSum) -> f64| rate(screen.pools.iter().map(of).sum());
    let lag: u64 = screen.pools.iter().map(PoolSum::lag_messages).sum();
    let oldest = screen
        .pools
        .iter()
        .map(PoolSum::lag)
        .max()
        .unwrap_or_default();
    let healthy = screen
        .pools
        .iter()
        .filter(|pool| pool.diagnosis().condition == Condition::Healthy)
        .count();
    let totals = format!(
        "ackline  {} process{}   in {}/s   out {}/s   lag {} ({})   {healthy}/{} pools healthy",
        screen.instances,
        if screen.instances == 1 { "" } else { "es" },
        rate(webhooks(&screen.pools)),
        sum(|pool| pool.rates.finished),
        count(lag),
        age(oldest),
        screen.pools.len(),
    );
    let style = if screen.colour {
        screen.heading().fg(Color::Yellow)
    } else {
        screen.heading()
    };
    let lines = vec![
        Line::styled(totals, screen.heading()),
        Line::styled(notices, style),
    ];
    Paragraph::new(lines).render(area, buffer);
}

/// What Meta sends, each once: every pool reads it for itself, and the one that reads all of it reads most. Processes
/// that do not tell it apart count what we wrote down, too.
fn webhooks(pools: &[PoolSum]) -> f64 {
    let most = |of: fn(&PoolSum) -> f64| pools.iter().map(of).fold(0.0, f64::max);
    let webhooks = most(|pool| pool.rates.webhooks);
    if webhooks > 0.0 {
        webhooks
    } else {
        most(|pool| pool.rates.read)
    }
}

/// A column: its title, its width, and what it shows.
type Column = (&'static str, u16, fn(&Screen, &PoolSum) -> String);

/// The columns behind name and verdict, the most needed first; the last ones go when the terminal is narrow.
const COLUMNS: [Column; 11] = [
    ("LAG", 6, |_, pool| count(pool.lag_messages())),
    ("OLDEST", 6, |_, pool| age(pool.lag())),
    ("WAIT", 4, |_, pool| count(pool.waiting())),
    ("DLQ", 4, |_, pool| open_dead(pool)),
    ("OUT/S", 6, |_, pool| rate(pool.rates.finished)),
    ("RUN/MAX", 8, |_, pool| pool.jobs()),
    ("P99", 6, |_, pool| time(pool.service.quantile_ms(0.99))),
    ("IN/S", 6, |_, pool| rate(pool.rates.read)),
    ("SPILLS", 6, |_, pool| count(pool.lines.total())),
    ("P50", 6, |_, pool| time(pool.service.quantile_ms(0.5))),
    ("WANT", 4, |screen, pool| {
        pool.wanted(&screen.targets).to_string()
    }),
];
const NAME_WIDTH: u16 = 8;
const VERDICT_WIDTH: u16 = 15;
const BARS_WIDTH_MIN: u16 = 12;
const BARS_WIDTH_MAX: u16 = 60;
/// Rows that the words about the selected pool may take.
const WORDS_ROWS_MAX: u16 = 12;
/// Stuck updates of the selected pool that are named.
const STUCK_ROWS: usize = 2;
/// Room for `paused`, `draining, 1234 left` and what else was turned of a tenant.
const STATE_WIDTH: u16 = 18;
/// Downstreams of the selected pool that are named.
const DOWNSTREAMS_MAX: usize = 3;

fn draw_pools(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let mut left = area
        .width
        .saturating_sub(NAME_WIDTH + VERDICT_WIDTH + 2 + BARS_WIDTH_MIN);
    let columns: Vec<&Column> = COLUMNS
        .iter()
        .take_while(|(_, width, _)| {
            let fits = left > *width;
            left = left.saturating_sub(*width + 1);
            fits
        })
        .collect();
    let bars_width = (left + BARS_WIDTH_MIN).min(BARS_WIDTH_MAX);
    let mut widths = vec![
        Constraint::Length(NAME_WIDTH),
        Constraint::Length(VERDICT_WIDTH),
    ];
    widths.extend(
        columns
            .iter()
            .map(|(_, width, _)| Constraint::Length(*width)),
    );
    widths.push(Constraint::Length(bars_width));
    let right = |text: String| Line::from(text).right_aligned();
    let mut titles = vec![Line::from("POOL"), Line::from("VERDICT")];
    titles.extend(
        columns
            .iter()
            .map(|(title, _, _)| right((*title).to_owned())),
    );
    titles.push(Line::from("LAST MINUTE"));
    let row = |pool: &PoolSum| {
        let condition = pool.diagnosis().condition;
        let mut cells = vec![
            Line::from(pool.pool.as_str()),
            Line::styled(verdict(condition), screen.of(condition)),
        ];
        cells.extend(columns.iter().map(|(_, _, show)| right(show(screen, pool))));
        cells.push(Line::from(bars(&pool.history, usize::from(bars_width))));
        Row::new(cells)
    };
    let table = Table::new(screen.pools.iter().map(row), widths)
        .header(Row::new(titles).style(screen.heading()))
        .row_highlight_style(highlight(screen.focus == Focus::Pools));
    let selected = screen
        .selected_pool()
        .and_then(|selected| screen.pools.iter().position(|pool| pool == selected));
    StatefulWidget::render(
        table,
        area,
        buffer,
        &mut TableState::default().with_selected(selected),
    );
}

fn verdict(condition: Condition) -> String {
    condition.as_str().replace('_', " ")
}

/// Whoever has the arrows is reversed, whoever was selected before is underlined: both work without colour.
fn highlight(has_focus: bool) -> Style {
    Style::new().add_modifier(if has_focus {
        Modifier::REVERSED
    } else {
        Modifier::UNDERLINED
    })
}

fn words(screen: &Screen) -> Vec<Line<'static>> {
    let Some(pool) = screen.selected_pool() else {
        return vec![
            Line::default(),
            Line::from("no workers process speaks yet; start `ackline-workers`"),
            Line::default(),
            Line::default(),
        ];
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
    let mut lines = vec![
        Line::default(),
        Line::from(vec![
            Span::styled(format!("{}: ", pool.pool), screen.heading()),
            Span::styled(diagnosis.words, screen.of(diagnosis.condition)),
        ]),
        Line::from(format!(
            "lanes: {}",
            if lanes.is_empty() {
                "-".to_owned()
            } else {
                lanes.join("  ")
            }
        )),
        Line::from(owners),
    ];
    lines.extend(pool.stuck.iter().take(STUCK_ROWS).map(|stuck| {
        let words = format!("stuck for {}: {stuck}", age(stuck.since()));
        Line::styled(words, screen.of(Condition::Stuck))
    }));
    if let Some(dead) = pool.dead.as_ref().filter(|dead| dead.open > 0) {
        lines.push(Line::from(format!(
            "dead letters: {}{} open ({}), the oldest {}, {} in the last hour",
            count(dead.open),
            if dead.more { " or more" } else { "" },
            dead.reasons_in_words(),
            age(dead.oldest().unwrap_or_default()),
            count(dead.last_hour)
        )));
    }
    if pool.lines.total() > 0 {
        lines.push(Line::from(format!(
            "spill queues: {} of tenants larger than their share, {} of conversations that wait",
            count(pool.lines.moved),
            count(pool.lines.parked)
        )));
    }
    for breaker in pool.breakers.iter().take(DOWNSTREAMS_MAX) {
        let next = std::time::Duration::from_millis(breaker.next_ms);
        lines.push(Line::from(format!(
            "circuit breaker open: {} for {}, asked again in {}",
            breaker.downstream,
            age(breaker.open()),
            age(next)
        )));
    }
    for name in pool.slow.iter().take(DOWNSTREAMS_MAX) {
        lines.push(Line::from(format!(
            "slow: {name}, half of its last requests timed out"
        )));
    }
    lines
}

fn draw_tenants(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let Some(pool) = screen.selected_pool() else {
        return;
    };
    let right = |text: String| Line::from(text).right_aligned();
    let mut titles = vec![Line::from(format!("TENANT (by {})", screen.order.as_str()))];
    titles.extend(
        ["IN/S", "QUEUED", "RUNNING", "WAIT", "SPILLS", "DLQ/H"]
            .map(|title| right(title.to_owned())),
    );
    titles.push(Line::from("STATE"));
    let rows = pool.tenants.iter().map(|tenant| {
        Row::new([
            Line::from(tenant.tenant.to_string()),
            right(rate(tenant.rate)),
            right(count(tenant.load.queued)),
            right(count(tenant.load.running)),
            right(count(tenant.backlog().waiting)),
            right(count(tenant.lines.total())),
            right(count(tenant.dead_hour)),
            Line::styled(
                state(tenant.turned.as_ref(), tenant.drain.as_ref()),
                if tenant.is_held() {
                    screen.of(Condition::Paused)
                } else {
                    Style::new()
                },
            ),
        ])
    });
    let widths = [
        Constraint::Min(20),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(STATE_WIDTH),
    ];
    let area = Rect {
        y: area.y + area.height.min(1),
        height: area.height.saturating_sub(1),
        ..area
    };
    let has_focus = screen.focus == Focus::Tenants;
    let table = Table::new(rows, widths)
        .header(Row::new(titles).style(screen.heading()))
        .row_highlight_style(highlight(true));
    let selected = has_focus.then(|| screen.selected_tenant());
    StatefulWidget::render(
        table,
        area,
        buffer,
        &mut TableState::default().with_selected(selected),
    );
}

const HELP: [&str; 16] = [
    "up, down   select a pool or a tenant",
    "tab        go to the tenants of the pool, and back",
    "s          order by usual, rate, waiting",
    "p          pause the selected pool or tenant, or let it go on",
    "+, -       more or fewer jobs at once, in each process",
    "?          this help",
    "q          quit",
    "",
    "In the first line, in counts each webhook once, out what pools end.",
    "LAG can be worked on, in the streams and in spill queues, OLDEST is the",
    "age of the oldest of it, WANT the processes that the pool needs.",
    "WAIT waits for a target or its time; SPILLS is outside the streams:",
    "tenants larger than their share, conversations that wait long;",
    "DLQ is the open dead letters, neither replayed nor discarded,",
    "DLQ/H what was given up of a tenant in the last hour.",
    "P50 and P99 are of the time of one attempt, lately.",
];

fn draw_help(area: Rect, buffer: &mut Buffer) {
    let height = u16::try_from(HELP.len())
        .unwrap_or(u16::MAX)
        .saturating_add(2)
        .min(area.height);
    let width = 66.min(area.width);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(place, buffer);
    let block = ratatui::widgets::Block::bordered().title(" keys ");
    Paragraph::new(HELP.map(Line::from).to_vec())
        .block(block)
        .render(place, buffer);
}
