//! The screen drawn without a terminal, and what keys make of it.

use super::draw::View;
use super::screen::{Action, Focus, Screen};
use super::turn::{Turn, Way};
use super::*;
use ackline_fleet::fixture::{snapshot, status};
use ackline_fleet::fleet::{Fleet, PoolSum};
use ackline_fleet::scaling::Targets;
use ackline_runtime::dead_class::DeadClass;
use ackline_runtime::status::dead::OpenDead;
use ackline_runtime::status::held::{Drain, OpenBreaker, SpillCounts, Turned};
use ackline_runtime::status::{LaneLag, Load, PoolStatus, TenantStatus};
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::Pool;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::{Color, Modifier};
use std::path::Path;
use tokio::time::Instant;

fn tenant(name: &str, rate: f64, load: Load) -> TenantStatus {
    TenantStatus {
        rate,
        load,
        ..TenantStatus::of(TenantId::new(name).unwrap())
    }
}

fn pools() -> Vec<PoolSum> {
    let mut flows = status(Pool::Flows, 0..4);
    flows.rates.read = 123.4;
    flows.rates.webhooks = 60.0;
    flows.rates.finished = 122.0;
    flows.load.running = 3;
    flows.history = (0..60).map(|n| 100 + (n % 7) * 10).collect();
    flows.service.record(Duration::from_millis(12));
    flows.tenants = vec![tenant(
        "acme",
        100.0,
        Load {
            running: 3,
            ..Load::default()
        },
    )];
    let mut relay = status(Pool::Relay, 0..4);
    relay.load = Load {
        queued: 90,
        running: 8,
        waiting: 2,
    };
    relay.rates.finished = 64.2;
    relay.rates.read = 64.0;
    relay.rates.webhooks = 64.0;
    relay.lanes = vec![
        LaneLag {
            lane: "msg".into(),
            unread: 12_000,
            in_work: 100,
            oldest_ms: 42_000,
            partition: Some(1),
        },
        LaneLag {
            lane: "sts".into(),
            unread: 10,
            in_work: 0,
            oldest_ms: 900,
            partition: Some(2),
        },
    ];
    relay.service.record(Duration::from_millis(1100));
    relay.history = (0..60).collect();
    relay.tenants = vec![
        tenant(
            "acme",
            10.0,
            Load {
                queued: 30,
                running: 3,
                waiting: 2,
            },
        ),
        tenant(
            "globex",
            30.0,
            Load {
                queued: 31,
                running: 3,
                waiting: 0,
            },
        ),
        tenant(
            "initech",
            24.0,
            Load {
                queued: 29,
                running: 2,
                waiting: 0,
            },
        ),
    ];
    let paused = PoolStatus {
        paused: true,
        ..status(Pool::Crm, 0..4)
    };
    let mut fleet = Fleet::default();
    fleet.hear(
        snapshot("one", 1, vec![flows, relay, paused]),
        Instant::now(),
    );
    fleet.pools()
}

fn screen(colour: bool) -> Screen {
    let mut screen = Screen::new(
        Targets {
            drain: Duration::from_secs(30),
            min: 1,
            max: 16,
        },
        16,
        colour,
    );
    screen.update(1, pools());
    screen
}

fn press(screen: &mut Screen, keys: &[KeyCode]) -> Action {
    let mut action = Action::Stay;
    for key in keys {
        action = screen.press(KeyEvent::from(*key));
        let (instances, pools) = (screen.instances, pools());
        screen.update(instances, pools);
    }
    action
}

fn draw(screen: &Screen, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| frame.render_widget(View(screen), frame.area()))
        .unwrap();
    terminal
}

#[test]
fn a_small_terminal_shows_pools_words_and_tenants() {
    let mut screen = screen(true);
    press(&mut screen, &[KeyCode::Down]);
    for (width, height) in [(80, 24), (120, 24)] {
        assert_golden(
            &format!("{width}x{height}.txt"),
            &print(&screen, Rect::new(0, 0, width, height)),
        );
    }
}

/// Compares with what is kept; `ACKLINE_UPDATE_GOLDEN=1` keeps what is drawn.
fn assert_golden(name: &str, drawn: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/top/golden")
        .join(name);
    if std::env::var_os("ACKLINE_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, drawn).unwrap();
    }
    assert_eq!(drawn, std::fs::read_to_string(&path).unwrap(), "{drawn}");
}

#[test]
fn what_lag_does_not_show_is_on_the_screen() {
    let mut relay = status(Pool::Relay, 0..4);
    let turned = |paused| Turned {
        paused,
        draining: !paused,
        ..Turned::default()
    };
    let held = |name, turned, drain| TenantStatus {
        turned: Some(turned),
        drain,
        ..tenant(name, 0.0, Load::default())
    };
    relay.tenants = vec![
        tenant(
            "busy",
            90.0,
            Load {
                queued: 50,
                ..Load::default()
            },
        ),
        TenantStatus {
            lines: SpillCounts {
                moved: 1200,
                parked: 4,
            },
            ..held("acme", turned(true), None)
        },
        held(
            "globex",
            turned(false),
            Some(Drain {
                left: 12,
                is_read: true,
            }),
        ),
    ];
    relay.tenants_held = 2;
    relay.lines = SpillCounts {
        moved: 1200,
        parked: 4,
    };
    relay.breakers = vec![OpenBreaker {
        downstream: "relay.acme.bot".into(),
        open_ms: 540_000,
        next_ms: 31_000,
    }];
    relay.breakers_open = 1;
    relay.slow = vec!["relay.acme.ai".into()];
    relay.tenants[1].dead_hour = 2;
    let crm = PoolStatus {
        paused: true,
        ..status(Pool::Crm, 0..4)
    };
    let mut fleet = Fleet::default();
    let dead = OpenDead {
        pool: "relay".to_owned(),
        open: 12,
        last_hour: 2,
        oldest_ms: Some(10_800_000),
        reasons: [(DeadClass::GaveUp, 2), (DeadClass::Refused, 10)].into(),
        more: false,
    };
    let mut reported = snapshot("one", 1, vec![status(Pool::Flows, 0..4), relay, crm]);
    reported.dead = Some(vec![dead]);
    fleet.hear(reported, Instant::now());
    let mut screen = screen(true);
    screen.update(1, fleet.pools());
    let notices = "relay: 1 breakers open, 2 held, 1200 spilled, 4 waiting, 2 dead in the last hour   crm: paused";
    let unselected = print(&screen, Rect::new(0, 0, 100, 30));
    assert!(
        unselected.lines().nth(1).unwrap().starts_with(notices),
        "{unselected}"
    );
    screen.press(KeyEvent::from(KeyCode::Down));
    let shown = print(&screen, Rect::new(0, 0, 110, 30));
    assert_golden("notices.txt", &shown);
    let rows: Vec<&str> = shown
        .lines()
        .skip_while(|line| !line.starts_with("TENANT"))
        .skip(1)
        .collect();
    assert!(
        rows[0].starts_with("acme") && rows[0].ends_with("1204      2 paused"),
        "{shown}"
    );
    assert!(
        rows[1].starts_with("globex") && rows[1].ends_with("draining, 12 left"),
        "{shown}"
    );
    assert!(
        rows[2].starts_with("busy"),
        "who is held comes first: {shown}"
    );
}

#[test]
fn a_webhook_counts_once_however_many_pools_read_it() {
    let header = print(&screen(false), Rect::new(0, 0, 80, 24));
    assert!(
        header.starts_with("ackline  1 process   in 64.0/s   out 186/s "),
        "{header}"
    );
    let mut screen = screen(false);
    screen
        .pools
        .iter_mut()
        .for_each(|pool| pool.rates.webhooks = 0.0);
    let older = print(&screen, Rect::new(0, 0, 80, 24));
    assert!(
        older.starts_with("ackline  1 process   in 123/s "),
        "{older}"
    );
}

#[test]
fn any_size_can_be_drawn() {
    let mut screen = screen(true);
    for help in [false, true] {
        screen.help = help;
        for (width, height) in [(1, 1), (10, 3), (40, 10), (79, 23), (200, 60)] {
            draw(&screen, width, height);
        }
    }
    screen.update(0, Vec::new());
    draw(&screen, 80, 24);
}

#[test]
fn without_colour_the_selection_is_still_seen() {
    let coloured = |screen: &Screen| {
        let terminal = draw(screen, 100, 24);
        let buffer = terminal.backend().buffer().clone();
        let has_colour = buffer
            .content()
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        let has_selection = buffer
            .content()
            .iter()
            .any(|cell| cell.modifier.contains(Modifier::REVERSED));
        (has_colour, has_selection)
    };
    assert_eq!(coloured(&screen(true)), (true, true));
    assert_eq!(coloured(&screen(false)), (false, true));
}

#[test]
fn keys_turn_the_selected_pool_or_tenant_and_pausing_needs_a_yes() {
    let mut screen = screen(true);
    let pool = |way| {
        Action::Turn(Turn {
            pool: Pool::Flows,
            tenant: None,
            way,
        })
    };
    assert_eq!(
        press(&mut screen, &[KeyCode::Char('+')]),
        pool(Way::Jobs(9))
    );
    assert_eq!(
        press(&mut screen, &[KeyCode::Char('-')]),
        pool(Way::Jobs(7))
    );
    assert_eq!(press(&mut screen, &[KeyCode::Char('p')]), Action::Stay);
    assert!(
        print(&screen, Rect::new(0, 0, 80, 24)).contains("pause flows, or let it go on? y for yes")
    );
    assert_eq!(press(&mut screen, &[KeyCode::Char('n')]), Action::Stay);
    assert_eq!(press(&mut screen, &[KeyCode::Char('y')]), Action::Stay);
    assert_eq!(
        press(&mut screen, &[KeyCode::Char('p'), KeyCode::Char('y')]),
        pool(Way::Pause)
    );
    let acme = Some(TenantId::new("acme").unwrap());
    let tenant = Action::Turn(Turn {
        pool: Pool::Flows,
        tenant: acme,
        way: Way::Jobs(17),
    });
    assert_eq!(
        press(&mut screen, &[KeyCode::Tab, KeyCode::Char('+')]),
        tenant
    );
}

#[test]
fn keys_select_order_explain_and_quit() {
    let mut screen = screen(true);
    assert_eq!(screen.selected_pool().unwrap().pool, Pool::Flows);
    press(
        &mut screen,
        &[KeyCode::Down, KeyCode::Down, KeyCode::Down, KeyCode::Up],
    );
    assert_eq!(screen.selected_pool().unwrap().pool, Pool::Relay);
    press(&mut screen, &[KeyCode::Tab, KeyCode::Down]);
    assert_eq!(
        (screen.focus, screen.selected_tenant()),
        (Focus::Tenants, 1)
    );
    press(&mut screen, &[KeyCode::Char('s')]);
    let tenants = &screen.selected_pool().unwrap().tenants;
    assert_eq!(
        tenants
            .iter()
            .map(|tenant| tenant.tenant.as_str())
            .collect::<Vec<_>>(),
        ["globex", "initech", "acme"]
    );
    assert_eq!(
        tenants[screen.selected_tenant()].tenant.as_str(),
        "initech",
        "who is selected stays selected"
    );
    press(&mut screen, &[KeyCode::Char('?')]);
    assert!(print(&screen, Rect::new(0, 0, 80, 24)).contains("this help"));
    assert_eq!(press(&mut screen, &[KeyCode::Char('x')]), Action::Stay);
    assert!(!screen.help);
    assert_eq!(press(&mut screen, &[KeyCode::Char('q')]), Action::Quit);
}
