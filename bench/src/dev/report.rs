//! What is printed at the end: where to look around, or how a check came out.

use super::ledger::Balance;
use super::stage::{ACME, Stage};
use crate::processes::our_binary;
use comfy_table::{ContentArrangement, Table};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// One situation and what came of it.
#[derive(Debug)]
pub struct Row {
    pub situation: &'static str,
    /// What was checked, or what went wrong.
    pub outcome: Result<String, String>,
    pub took: Duration,
}

/// All situations and the account.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The situations, in the order they were played.
    pub rows: Vec<Row>,
    /// The account of what was acknowledged.
    pub balance: Balance,
    /// What kept the check from ending.
    pub broken: Option<String>,
}

impl Outcome {
    /// A check that could not be carried out.
    pub fn broken(reason: String) -> Self {
        Self {
            broken: Some(reason),
            ..Self::default()
        }
    }

    /// Whether everything is as it should be.
    pub fn is_ok(&self) -> bool {
        self.broken.is_none()
            && self.failed().is_empty()
            && self.balance.lost.is_empty()
            && self.balance.duplicated.is_empty()
    }

    fn failed(&self) -> Vec<&'static str> {
        self.rows
            .iter()
            .filter(|row| row.outcome.is_err())
            .map(|row| row.situation)
            .collect()
    }

    /// The situations as a table, and below it everything that is off.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        if table.width().is_none() {
            table.set_width(140);
        }
        table.set_header(["situation", "", "checked", "ms"]);
        for row in &self.rows {
            let (mark, said) = match &row.outcome {
                Ok(checked) => ("✓", checked),
                Err(wrong) => ("✗", wrong),
            };
            table.add_row([row.situation, mark, said, &row.took.as_millis().to_string()]);
        }
        let mut text = if self.rows.is_empty() {
            String::new()
        } else {
            format!("{table}\n")
        };
        let lost = self
            .balance
            .lost
            .iter()
            .map(|what| format!("lost: {what}\n"));
        let duplicated = self
            .balance
            .duplicated
            .iter()
            .map(|what| format!("duplicated: {what}\n"));
        let broken = self
            .broken
            .iter()
            .map(|what| format!("could not go on: {what}\n"));
        text.extend(lost.chain(duplicated).chain(broken));
        text
    }

    /// The figures in one line.
    pub fn json(&self) -> String {
        let figures = json!({
            "ok": self.is_ok(), "acked": self.balance.acked, "replied": self.balance.replied,
            "lost": self.balance.lost.len(), "duplicated": self.balance.duplicated.len(),
            "situations": self.rows.len(), "failed": self.failed(), "error": self.broken,
        });
        figures.to_string()
    }
}

/// Where to look around in a running installation.
pub fn addresses(stage: &Stage) -> String {
    let plan = stage.plan();
    let key = stage
        .declared()
        .api_key(ACME)
        .map(|key| key.expose().clone())
        .unwrap_or_default();
    let (api, simulator, sink) = (
        plan.ports.api.url(),
        plan.ports.simulator.url(),
        plan.ports.sink.url(),
    );
    let settings = stage.settings();
    let ackline = our_binary("ackline").map_or_else(
        |_| "ackline".to_owned(),
        |command| relative(Path::new(command.get_program()), &plan.root),
    );
    let lines = [
        "It is all up. Ctrl-C ends it; the data stays in .run/ for the next time.".to_owned(),
        String::new(),
        format!("  webhook          {}", stage.webhook_url()),
        format!("  API              {api}/openapi.json"),
        format!("    conversations  curl -H 'Authorization: Bearer {key}' {api}/v1/conversations"),
        format!(
            "    send           curl -H 'Authorization: Bearer {key}' -H 'content-type: application/json' \\"
        ),
        format!(
            "                     -d '{}' {api}/v1/messages",
            r#"{"to":{"phone":"491511234567"},"content":{"type":"text","body":"Hello"}}"#
        ),
        format!(
            "  write to the bot curl -d '{}' {simulator}/_sim/messages",
            r#"{"from":"491511234567","text":"Hi"}"#
        ),
        format!("  what Meta saw    curl {simulator}/_sim/journal?kind=message"),
        format!("  what came out    curl {sink}/_sink/journal"),
        format!(
            "  what to mend     {ackline} doctor --config {}",
            relative(&settings, &plan.root)
        ),
        format!(
            "  logs             {}",
            relative(&plan.data.join("logs"), &plan.root)
        ),
    ];
    lines.join("\n")
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn row(outcome: Result<String, String>) -> Row {
        Row {
            situation: "a duplicate delivery",
            outcome,
            took: Duration::from_millis(12),
        }
    }

    #[test]
    fn a_good_check_says_so_in_one_line() {
        let balance = Balance {
            acked: 3,
            replied: 2,
            ..Balance::default()
        };
        let outcome = Outcome {
            rows: vec![row(Ok("one reply".into()))],
            balance,
            broken: None,
        };
        let json: Value = serde_json::from_str(&outcome.json()).unwrap();
        assert_eq!(
            (&json["ok"], &json["acked"], &json["situations"]),
            (&json!(true), &json!(3), &json!(1))
        );
        assert!(outcome.table().contains("one reply"));
    }

    #[test]
    fn a_failed_situation_a_loss_and_a_breakdown_each_make_it_not_ok() {
        let failed = Outcome {
            rows: vec![row(Err("two replies".into()))],
            ..Outcome::default()
        };
        let lost = Balance {
            lost: vec!["a is not in the log".into()],
            ..Balance::default()
        };
        let lost = Outcome {
            balance: lost,
            ..Outcome::default()
        };
        let broken = Outcome::broken("no nats-server".into());
        for (outcome, word) in [
            (failed, "two replies"),
            (lost, "lost: a"),
            (broken, "no nats-server"),
        ] {
            let json: Value = serde_json::from_str(&outcome.json()).unwrap();
            assert_eq!(json["ok"], false);
            assert!(outcome.table().contains(word));
        }
    }
}
