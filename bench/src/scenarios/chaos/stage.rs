//! The installation of a round: three worker processes, and targets of which some are closed, broken or slow.

use super::super::workers::feed::serial_in;
use super::super::workers::{Crew, Plan, phone, tenant};
use crate::faulty::{Behind, Mode, Note, Refusal, Target};
use ackline_shared::subjects::Pool;
use anyhow::Result;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

pub const PROCESSES: usize = 3;
/// Tenants; each has a bot, an existing bot and an endpoint.
pub const TENANTS: usize = 40;
const POOLS: &str = "flows,relay,events,replies";
/// Fewer answers a second than its tenant gets messages.
const SLOW: Duration = Duration::from_secs(2);

/// Answers every message with one text.
const FLOW: &str = r#"{"format":1,"name":"Echo","entry":[{"on":"any"}],"start":"answer","variables":{},
"nodes":{"answer":{"kind":"message.text","body":"You said: {{message.text}}","exits":{}}}}"#;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ACCEPTED: &str =
    r#"{"messaging_product":"whatsapp","contacts":[],"messages":[{"id":"wamid.accepted"}]}"#;
const OVERLOADED: &str = r#"{"error":{"message":"Service temporarily unavailable","type":"OAuthException","code":2,"fbtrace_id":"bench"}}"#;

/// What is wrong with a tenant's targets during the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Its existing bot's port is closed.
    Closed,
    Unavailable,
    /// Its existing bot takes 2 s to answer.
    Slow,
    /// The Graph API is overloaded, for its number.
    Overloaded,
    None,
}

impl Trouble {
    fn of(tenant: usize) -> Self {
        match tenant % 10 {
            0 => Self::Closed,
            1 => Self::Unavailable,
            2 => Self::Slow,
            3 => Self::Overloaded,
            _ => Self::None,
        }
    }
}

#[derive(Debug)]
pub struct Stage {
    pub crew: Crew,
    bots: Target,
    closed: Target,
    endpoints: Target,
    graph: Target,
}

impl Stage {
    /// Starts everything; all targets work.
    pub async fn start(root: &Path) -> Result<Self> {
        let tenants = || (0..TENANTS).map(tenant).collect::<Vec<_>>();
        let own = |parts| Target::start(Behind::Nobody("{}"), parts, serial_in);
        let (bots, closed, endpoints) = (
            own(tenants()).await?,
            own(tenants()).await?,
            own(tenants()).await?,
        );
        let phones = (0..TENANTS).map(phone).collect();
        let graph = Target::start(Behind::Nobody(ACCEPTED), phones, serial_in).await?;
        let mut further = String::new();
        for number in 0..TENANTS {
            let bot = if Trouble::of(number) == Trouble::Closed {
                &closed
            } else {
                &bots
            };
            further.push_str(&declared(number, bot, &endpoints));
        }
        let plan = Plan {
            tenants: TENANTS,
            pools: POOLS,
            flow: Some(FLOW),
            further,
            settings: format!(
                "[meta]\ngraph_url = \"http://{}\"\n\n[pools]\ntenant_in_flight_max = 64\n",
                graph.address()
            ),
            ..Plan::default()
        };
        let mut crew = Crew::prepare(root, plan).await?;
        for place in 0..PROCESSES {
            crew.hire(place).await?;
        }
        Ok(Self {
            crew,
            bots,
            closed,
            endpoints,
            graph,
        })
    }

    /// Closes, breaks and slows down what is to be in trouble.
    pub async fn break_targets(&self) -> Result<()> {
        self.closed.refuse().await?;
        let overloaded = Mode::Answers(Refusal {
            body: OVERLOADED,
            ..Refusal::plain(503)
        });
        for number in 0..TENANTS {
            match Trouble::of(number) {
                Trouble::Unavailable => self
                    .endpoints
                    .set(Some(number), Mode::Answers(Refusal::plain(503))),
                Trouble::Slow => self.bots.set(Some(number), Mode::Slow(SLOW)),
                Trouble::Overloaded => self.graph.set(Some(number), overloaded),
                Trouble::Closed | Trouble::None => {}
            }
        }
        Ok(())
    }

    pub async fn mend_targets(&self) -> Result<()> {
        self.closed.listen().await?;
        for number in 0..TENANTS {
            for target in [&self.bots, &self.endpoints, &self.graph] {
                target.set(Some(number), Mode::Works);
            }
        }
        Ok(())
    }

    /// What the targets of a pool were asked so far; flows have none.
    pub fn notes(&self, pool: Pool) -> Vec<Note> {
        match pool {
            Pool::Relay => {
                let mut notes = self.bots.notes();
                notes.extend(self.closed.notes());
                notes
            }
            Pool::Events => self.endpoints.notes(),
            Pool::Replies => self.graph.notes(),
            _ => Vec::new(),
        }
    }
}

fn declared(number: usize, bot: &Target, endpoints: &Target) -> String {
    let owner = tenant(number);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n[[relays]]\nid = \"existing\"\ntenant = \"{owner}\"\nurl = \"http://{}/{owner}\"\n\n\
         [[endpoints]]\nid = \"own\"\ntenant = \"{owner}\"\nurl = \"http://{}/{owner}\"\nsecrets = [\"{SECRET}\"]\n\
         events = [\"message.received\"]\n",
        bot.address(),
        endpoints.address(),
    );
    text
}
