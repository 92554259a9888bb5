//! `ackline top`: the pools and their tenants, live, in the manner of htop.
//!
//! What is on the screen is a value; keys change it and drawing reads it, both without a terminal. Only
//! [`run`] touches one.

mod draw;
mod screen;
mod turn;

use super::Outcome;
use super::pools::NOBODY;
use super::status_client::{StatusClient, StatusClientSettings};
use ackline_runtime::settings::Concurrency;
use draw::View;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::layout::Rect;
use ratatui::widgets::Widget;
use screen::{Action, Screen};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

/// How often the terminal is asked for keys.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// How often the screen is drawn without a key.
const DRAW_INTERVAL: Duration = Duration::from_millis(500);
/// Keys read and not handled.
const KEYS_MAX: usize = 64;

/// Arguments of `ackline top`.
#[derive(Debug, clap::Args)]
pub struct TopArguments {
    /// Print one screen as text and end
    #[arg(long)]
    once: bool,
    /// Columns of that screen
    #[arg(long, default_value_t = 100, requires = "once", value_parser = clap::value_parser!(u16).range(40..=400))]
    columns: u16,
    /// Rows of that screen
    #[arg(long, default_value_t = 24, requires = "once", value_parser = clap::value_parser!(u16).range(10..=200))]
    rows: u16,
    /// Who turns things by keys, for the audit
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
}

/// Shows the screen until `q`, or once.
pub async fn run(
    arguments: &TopArguments,
    settings: &StatusClientSettings,
    colour: bool,
) -> Outcome {
    let mut status_client = match StatusClient::connect(&settings.nats).await {
        Ok(status_client) => status_client,
        Err(outcome) => return outcome,
    };
    let mut screen = Screen::new(settings.targets.clone(), settings.tenant_jobs, colour);
    if arguments.once {
        status_client.hear_all().await;
        let (instances, pools) = status_client.look();
        if instances == 0 {
            return Outcome::failed(NOBODY);
        }
        screen.update(instances, pools);
        let out = print(&screen, Rect::new(0, 0, arguments.columns, arguments.rows));
        return Outcome {
            out,
            ..Outcome::default()
        };
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Outcome::failed(
            "error: this is no terminal; `ackline top --once` prints one screen as text\n",
        );
    }
    match show(
        &mut status_client,
        &mut screen,
        &arguments.by,
        &settings.concurrency,
    )
    .await
    {
        Ok(()) => Outcome::default(),
        Err(error) => Outcome::failed(format!("error: the terminal cannot be used: {error}\n")),
    }
}

async fn show(
    status_client: &mut StatusClient,
    screen: &mut Screen,
    by: &str,
    configured: &Concurrency,
) -> std::io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let shown = follow(&mut terminal, status_client, screen, by, configured).await;
    ratatui::try_restore()?;
    shown
}

async fn follow(
    terminal: &mut ratatui::DefaultTerminal,
    status_client: &mut StatusClient,
    screen: &mut Screen,
    by: &str,
    configured: &Concurrency,
) -> std::io::Result<()> {
    let (sender, mut keys) = mpsc::channel(KEYS_MAX);
    // The thread ends with the channel, within one wait for a key.
    std::thread::spawn(move || read_keys(&sender));
    let mut redraw = interval(DRAW_INTERVAL);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = status_client.hear() => continue,
            _ = redraw.tick() => {}
            key = keys.recv() => match key {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => match screen.press(key) {
                    Action::Stay => {}
                    Action::Quit => return Ok(()),
                    Action::Turn(wanted) => {
                        let by = format!("top:{by}");
                        let turned = turn::turn(status_client.client(), &wanted, &by, configured).await;
                        screen.message = Some(turned.unwrap_or_else(|error| error.to_string()));
                    }
                },
                // A resize, or the terminal: drawing takes the size that it has now.
                Some(_) => {}
                None => return Ok(()),
            },
        }
        let (instances, pools) = status_client.look();
        screen.update(instances, pools);
        terminal.draw(|frame| frame.render_widget(View(screen), frame.area()))?;
    }
}

fn read_keys(keys: &mpsc::Sender<Event>) {
    while !keys.is_closed() {
        match event::poll(KEY_WAIT) {
            Ok(false) => {}
            Ok(true) => match event::read() {
                Ok(event) => {
                    if keys.blocking_send(event).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            },
            Err(_) => return,
        }
    }
}

/// The screen as text, without trailing blanks.
fn print(screen: &Screen, area: Rect) -> String {
    let mut buffer = Buffer::empty(area);
    View(screen).render(area, &mut buffer);
    let mut text = String::new();
    for row in area.rows() {
        let line: String = row
            .columns()
            .filter_map(|cell| buffer.cell(cell.as_position()))
            .map(|cell| cell.symbol())
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    format!("{}\n", text.trim_end())
}

#[cfg(test)]
mod tests;
