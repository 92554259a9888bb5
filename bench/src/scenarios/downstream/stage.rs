//! An installation with every target of its cells: declared, started, broken and mended.

use super::super::workers::crew::token;
use super::super::workers::feed::serial_in;
use super::super::workers::{Crew, Plan, phone, second_phone, tenant};
use super::cell::{Cell, Fault, Kind, Outage};
use crate::faulty::{Behind, Mode, Note, Target};
use crate::meta::{self, Ladder, Limits, Number};
use crate::sink::{self, ChatwootOptions};
use ackline_shared::secret::Secret;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

/// Sends a person's words back, with the id that stands in them.
const FLOW: &str = r#"{"format":1,"name":"Echo","entry":[{"on":"any"}],"start":"answer","variables":{},
"nodes":{"answer":{"kind":"message.text","body":"You said: {{message.text}}","exits":{}}}}"#;
const POOLS: &str = "flows,replies,relay,crm,events";
const CRM_TOKEN: &str = "bench-chatwoot-token";
const INBOX: &str = "bench-inbox";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Which of a cell's two targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Failing,
    Healthy,
}

#[derive(Debug)]
pub struct Stage {
    /// Its cells; each is a tenant of the same number.
    pub cells: Vec<Cell>,
    pub crew: Crew,
    /// Each cell's own target; the Graph API's cells have none.
    failing: Vec<Option<Target>>,
    /// Healthy relays and endpoints, a part of the path for each cell.
    healthy: Target,
    healthy_crm: Target,
    graph: Target,
    // Behind the targets.
    _simulator: meta::Running,
    _helpdesks: [sink::Running; 2],
}

impl Stage {
    /// Starts everything, with one worker process.
    pub async fn start(root: &Path, cells: Vec<Cell>, outage: &Outage) -> Result<Self> {
        let simulator = meta::start(meta_options(cells.len())).await?;
        let helpdesks = [
            sink::start(helpdesk()).await?,
            sink::start(helpdesk()).await?,
        ];
        let mut failing = Vec::with_capacity(cells.len());
        for cell in &cells {
            failing.push(match cell.kind {
                Kind::Graph => None,
                Kind::Crm => Some(
                    Target::start(Behind::Program(helpdesks[0].addr), vec![], serial_in).await?,
                ),
                Kind::Relay | Kind::Endpoint => {
                    Some(Target::start(Behind::Nobody("{}"), vec![], serial_in).await?)
                }
            });
        }
        let healthy = Target::start(
            Behind::Nobody("{}"),
            (0..cells.len()).map(tenant).collect(),
            serial_in,
        )
        .await?;
        let healthy_crm =
            Target::start(Behind::Program(helpdesks[1].addr), vec![], serial_in).await?;
        let numbers = (0..cells.len())
            .map(phone)
            .chain((0..cells.len()).map(second_phone));
        let graph = Target::start(
            Behind::Program(simulator.addr),
            numbers.collect(),
            serial_in,
        )
        .await?;
        let mut further = String::new();
        for (number, (cell, target)) in cells.iter().zip(&failing).enumerate() {
            let own = target.as_ref().map_or(graph.address(), Target::address);
            further.push_str(&declared(
                number,
                *cell,
                own,
                healthy.address(),
                healthy_crm.address(),
            ));
        }
        let plan = Plan {
            tenants: cells.len(),
            pools: POOLS,
            further,
            files: vec![("echo.json", FLOW)],
            settings: format!(
                "[meta]\ngraph_url = \"http://{}\"\n\n{}",
                graph.address(),
                outage.settings()
            ),
            ..Plan::default()
        };
        let mut crew = Crew::prepare(root, plan).await?;
        crew.hire(0).await?;
        Ok(Self {
            cells,
            crew,
            failing,
            healthy,
            healthy_crm,
            graph,
            _simulator: simulator,
            _helpdesks: helpdesks,
        })
    }

    /// Makes every cell's target fail in its way.
    pub async fn break_targets(&self, outage: &Outage) -> Result<()> {
        for (number, cell) in self.cells.iter().enumerate() {
            let (target, part) = self.target(number)?;
            match cell.fault.mode(cell.kind, outage.retry_after()) {
                Some(mode) => target.set(part, mode),
                None => target.refuse().await?,
            }
        }
        Ok(())
    }

    pub async fn mend_targets(&self) -> Result<()> {
        for (number, cell) in self.cells.iter().enumerate() {
            let (target, part) = self.target(number)?;
            match cell.fault {
                Fault::Refused => target.listen().await?,
                _ => target.set(part, Mode::Works),
            }
        }
        Ok(())
    }

    /// The target of a cell that fails, with the part that it is told apart by.
    fn target(&self, number: usize) -> Result<(&Target, Option<usize>)> {
        match self.failing.get(number).context("no such cell")? {
            Some(target) => Ok((target, None)),
            None => Ok((&self.graph, Some(number))),
        }
    }

    /// What each cell's failing target was asked so far.
    pub fn failing_notes(&self) -> Vec<Vec<Note>> {
        let graph = self.graph.notes();
        let of_number = |number| {
            graph
                .iter()
                .filter(move |note| note.part == Some(number))
                .copied()
                .collect()
        };
        let targets = self.failing.iter().enumerate();
        targets
            .map(|(number, target)| {
                target
                    .as_ref()
                    .map_or_else(|| of_number(number), Target::notes)
            })
            .collect()
    }

    /// What the healthy targets were asked so far.
    pub fn healthy_notes(&self) -> Vec<Note> {
        let mut notes = self.healthy.notes();
        notes.extend(self.healthy_crm.notes());
        let second = |note: &Note| note.part.is_some_and(|part| part >= self.cells.len());
        notes.extend(self.graph.notes().into_iter().filter(second));
        notes
    }
}

fn meta_options(cells: usize) -> meta::Options {
    let number = |tenant: usize, phone: String| Number::new(&phone, &format!("W{tenant}"));
    let numbers =
        (0..cells).flat_map(|cell| [number(cell, phone(cell)), number(cell, second_phone(cell))]);
    meta::Options {
        tokens: (0..cells).map(|cell| Secret::new(token(cell))).collect(),
        numbers: numbers.collect(),
        pacing: Limits {
            mps: 0,
            pair_burst: 0,
            ..Limits::default()
        },
        ladder: Ladder {
            enabled: false,
            ..Ladder::default()
        },
        journal_entries_max: 1_000,
        ..meta::Options::default()
    }
}

fn helpdesk() -> sink::Options {
    let chatwoot = ChatwootOptions {
        account_id: 1,
        inbox_id: 1,
        inbox_identifier: INBOX.to_owned(),
        access_token: Secret::new(CRM_TOKEN.to_owned()),
        webhook_url: None,
        webhook_secret: None,
    };
    sink::Options {
        chatwoot: Some(chatwoot),
        journal_entries_max: 1_000,
        ..sink::Options::default()
    }
}

/// What a cell's tenant has besides its first number.
fn declared(
    number: usize,
    cell: Cell,
    failing: SocketAddr,
    healthy: SocketAddr,
    healthy_crm: SocketAddr,
) -> String {
    let owner = tenant(number);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match cell.kind {
        Kind::Relay => {
            let relay = |id: &str, url: String| {
                format!("\n[[relays]]\nid = \"{id}\"\ntenant = \"{owner}\"\nurl = \"{url}\"\n")
            };
            write!(
                text,
                "{}{}",
                relay("failing", format!("http://{failing}/bot")),
                relay("healthy", format!("http://{healthy}/{owner}"))
            )
        }
        Kind::Endpoint => {
            let endpoint = |id: &str, url: String| {
                format!(
                    "\n[[endpoints]]\nid = \"{id}\"\ntenant = \"{owner}\"\nurl = \"{url}\"\nsecrets = [\"{SECRET}\"]\n\
                     events = [\"message.received\"]\n"
                )
            };
            write!(
                text,
                "{}{}",
                endpoint("failing", format!("http://{failing}/hook")),
                endpoint("healthy", format!("http://{healthy}/{owner}"))
            )
        }
        Kind::Crm => {
            let link = |id: &str, address: SocketAddr| {
                format!(
                    "\n[[crm_links]]\nid = \"{id}\"\ntenant = \"{owner}\"\nkind = \"chatwoot\"\nurl = \"http://{address}\"\n\
                     account_id = 1\ninbox_id = 1\ninbox_identifier = \"{INBOX}\"\naccess_token = \"{CRM_TOKEN}\"\n\
                     hook_token = \"bench-hook-token-0123456789-{owner}-{id}\"\n"
                )
            };
            write!(
                text,
                "{}{}",
                link("failing", failing),
                link("healthy", healthy_crm)
            )
        }
        Kind::Graph => write!(text, "{}", declared_numbers(number, cell, healthy)),
    };
    text
}

/// A bot on each number; where both numbers fail, a relay takes the healthy one's part.
fn declared_numbers(number: usize, cell: Cell, healthy: SocketAddr) -> String {
    let (owner, first, second) = (tenant(number), phone(number), second_phone(number));
    let bot = |id: &str, phone: &str| {
        format!(
            "\n[[bots]]\nid = \"{id}\"\ntenant = \"{owner}\"\nname = \"Bot\"\nphone_numbers = [\"{phone}\"]\nflows = [\"echo\"]\n"
        )
    };
    let mut text = format!(
        "\n[[flows]]\nid = \"echo\"\ntenant = \"{owner}\"\ndefinition_file = \"echo.json\"\n{}",
        bot("failing", &first)
    );
    let _ = if cell.is_apart() {
        write!(
            text,
            "\n[[phone_numbers]]\nid = \"{second}\"\ntenant = \"{owner}\"\napp = \"main\"\nwaba_id = \"W{number}\"\n\
             access_token = \"{}\"\n{}",
            token(number),
            bot("healthy", &second)
        )
    } else {
        write!(
            text,
            "\n[[relays]]\nid = \"healthy\"\ntenant = \"{owner}\"\nurl = \"http://{healthy}/{owner}\"\n"
        )
    };
    text
}
