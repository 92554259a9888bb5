//! What is on the screen, and what each key changes: no terminal, no clock.

use super::turn::{Turn, Way};
use ackline_fleet::fleet::PoolSum;
use ackline_fleet::scaling::Targets;
use ackline_runtime::status::TenantStatus;
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::Pool;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key asks the program to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Stay,
    Quit,
    /// Turn a pool or a tenant.
    Turn(Turn),
}

/// Which table the arrows move in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    Pools,
    /// The tenants of the selected pool.
    Tenants,
}

/// What rows are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortOrder {
    /// As they are listed everywhere; tenants by what they have to do.
    Usual,
    Rate,
    Waiting,
}

impl SortOrder {
    /// Its name on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Rate => "rate",
            Self::Waiting => "waiting",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Screen {
    pub instances: usize,
    pub pools: Vec<PoolSum>,
    pub focus: Focus,
    /// What rows are ordered by.
    pub order: SortOrder,
    /// Whether the keys are explained.
    pub help: bool,
    pub colour: bool,
    /// For the number of wanted workers.
    pub targets: Targets,
    /// The last thing to say about a key.
    pub message: Option<String>,
    /// Jobs of one tenant at once in each process, as configured.
    tenant_jobs: u32,
    /// What waits for a yes.
    asked: Option<Turn>,
    pool: Option<Pool>,
    tenant: Option<TenantId>,
}

impl Screen {
    pub fn new(targets: Targets, tenant_jobs: u32, colour: bool) -> Self {
        Self {
            instances: 0,
            pools: Vec::new(),
            focus: Focus::Pools,
            order: SortOrder::Usual,
            help: false,
            colour,
            targets,
            message: None,
            tenant_jobs,
            asked: None,
            pool: None,
            tenant: None,
        }
    }

    /// Takes fresh figures; what is selected stays selected while it exists.
    pub fn update(&mut self, instances: usize, mut pools: Vec<PoolSum>) {
        match self.order {
            SortOrder::Usual => {}
            SortOrder::Rate => {
                pools.sort_by(|one, two| two.rates.read.total_cmp(&one.rates.read));
                pools.iter_mut().for_each(|pool| {
                    pool.tenants
                        .sort_by(|one, two| two.rate.total_cmp(&one.rate))
                });
            }
            SortOrder::Waiting => {
                pools.sort_by_key(|pool| std::cmp::Reverse(pool.unfinished()));
                let waiting = |tenant: &TenantStatus| std::cmp::Reverse(tenant.unfinished());
                pools
                    .iter_mut()
                    .for_each(|pool| pool.tenants.sort_by_key(waiting));
            }
        }
        (self.instances, self.pools) = (instances, pools);
        if !self.pools.iter().any(|pool| Some(pool.pool) == self.pool) {
            self.pool = self.pools.first().map(|pool| pool.pool);
        }
    }

    pub fn selected_pool(&self) -> Option<&PoolSum> {
        self.pools.iter().find(|pool| Some(pool.pool) == self.pool)
    }

    /// The row of the selected tenant among the pool's.
    pub fn selected_tenant(&self) -> usize {
        let tenants = self.selected_pool().map_or(&[][..], |pool| &pool.tenants);
        tenants
            .iter()
            .position(|tenant| Some(&tenant.tenant) == self.tenant.as_ref())
            .unwrap_or_default()
    }

    /// Does what a key asks for.
    pub fn press(&mut self, key: KeyEvent) -> Action {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        self.message = None;
        if let Some(turn) = self.asked.take() {
            return if key.code == KeyCode::Char('y') {
                Action::Turn(turn)
            } else {
                Action::Stay
            };
        }
        match key.code {
            KeyCode::Char('c') if control => return Action::Quit,
            KeyCode::Char('q') => return Action::Quit,
            _ if self.help => self.help = false,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Esc => self.focus = Focus::Pools,
            KeyCode::Tab | KeyCode::Enter => self.focus = self.other_focus(),
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::Char('p') => self.ask_to_pause(),
            KeyCode::Char('+' | '=') => return self.turn_jobs(1),
            KeyCode::Char('-') => return self.turn_jobs(-1),
            KeyCode::Char('s') => {
                self.order = match self.order {
                    SortOrder::Usual => SortOrder::Rate,
                    SortOrder::Rate => SortOrder::Waiting,
                    SortOrder::Waiting => SortOrder::Usual,
                }
            }
            _ => {}
        }
        Action::Stay
    }

    fn ask_to_pause(&mut self) {
        if let Some(turn) = self.turn_of(Way::Pause) {
            let what = turn.tenant.as_ref().map_or_else(
                || turn.pool.to_string(),
                |tenant| format!("{tenant} in {}", turn.pool),
            );
            self.message = Some(format!("pause {what}, or let it go on? y for yes"));
            self.asked = Some(turn);
        }
    }

    /// A tenth more or fewer jobs at once, at least one.
    fn turn_jobs(&mut self, by: i64) -> Action {
        let now = match self.focus {
            Focus::Tenants => self.tenant_jobs,
            Focus::Pools => {
                let each = |pool: &PoolSum| {
                    pool.concurrency / u64::try_from(pool.working().max(1)).unwrap_or(1)
                };
                self.selected_pool()
                    .map(each)
                    .and_then(|jobs| u32::try_from(jobs).ok())
                    .unwrap_or_default()
            }
        };
        let step = i64::from((now / 10).max(1)) * by;
        let jobs = u32::try_from((i64::from(now) + step).max(1)).unwrap_or(now);
        if self.focus == Focus::Tenants {
            self.tenant_jobs = jobs;
        }
        self.turn_of(Way::Jobs(jobs))
            .map_or(Action::Stay, Action::Turn)
    }

    fn turn_of(&self, way: Way) -> Option<Turn> {
        let pool = self.selected_pool()?;
        let tenant = match self.focus {
            Focus::Pools => None,
            Focus::Tenants => Some(pool.tenants.get(self.selected_tenant())?.tenant.clone()),
        };
        Some(Turn {
            pool: pool.pool,
            tenant,
            way,
        })
    }

    fn other_focus(&self) -> Focus {
        match self.focus {
            Focus::Pools => Focus::Tenants,
            Focus::Tenants => Focus::Pools,
        }
    }

    fn go(&mut self, by: isize) {
        match self.focus {
            Focus::Pools => {
                let at = self
                    .pools
                    .iter()
                    .position(|pool| Some(pool.pool) == self.pool)
                    .unwrap_or_default();
                let next = self.pools.get(moved(at, by, self.pools.len()));
                self.pool = next.map(|pool| pool.pool).or(self.pool);
                self.tenant = None;
            }
            Focus::Tenants => {
                let at = self.selected_tenant();
                let tenants = self.selected_pool().map_or(&[][..], |pool| &pool.tenants);
                self.tenant = tenants
                    .get(moved(at, by, tenants.len()))
                    .map(|tenant| tenant.tenant.clone());
            }
        }
    }
}

fn moved(at: usize, by: isize, length: usize) -> usize {
    at.saturating_add_signed(by).min(length.saturating_sub(1))
}
