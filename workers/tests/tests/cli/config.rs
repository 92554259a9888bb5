//! Declaring a part of an installation, and taking parts out of it.

use super::{Terminal, demo};
use ackline_cli::agree::Person;
use ackline_cli::{EXIT_FAILED, EXIT_OK};
use ackline_shared::config::EXIT_CONFIG;

/// Says always the same, and keeps what was shown and asked.
struct Says(bool, String);

impl Person for Says {
    fn show(&mut self, text: &str) {
        self.1.push_str(text);
    }

    fn answer(&mut self, question: &str) -> Option<bool> {
        self.1.push_str(question);
        Some(self.0)
    }
}

impl Terminal {
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

const INITECH: &str = "[[tenants]]\nid = 'initech'\nname = 'Initech'\n[[phone_numbers]]\nid = '900'\ntenant = 'initech'\napp = 'main'\nwaba_id = '9'\naccess_token = 'demo-access-token'\n[[endpoints]]\nid = 'e'\ntenant = 'initech'\nurl = 'https://initech.example/hooks'\nsecrets = ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw']\n";

#[tokio::test]
async fn a_file_declares_one_tenant_and_refers_to_what_another_declared() {
    let terminal = Terminal::open();
    let file = terminal.file("initech.toml", INITECH);
    let alone = terminal.ask(&["apply", &file]).await;
    assert_eq!(alone.code, EXIT_CONFIG);
    assert!(
        alone
            .err
            .contains("there is no app main in this file or among what is stored"),
        "{alone:?}"
    );
    terminal.ask(&["apply", demo().to_str().unwrap()]).await;
    let first = terminal.ask(&["apply", &file]).await;
    assert_eq!((first.code, first.err.as_str()), (EXIT_OK, ""), "{first:?}");
    assert!(
        first.out.ends_with("added 4, changed 0, removed 0\n"),
        "nothing of others is told: {first:?}"
    );

    let pruned = INITECH.split("[[endpoints]]").next().unwrap();
    let file = terminal.file("initech.toml", pruned);
    let mut person = Says(false, String::new());
    let refused = terminal
        .ask_somebody(&["apply", &file, "--prune"], &mut person)
        .await;
    assert_eq!(
        (refused.code, refused.err.as_str()),
        (EXIT_FAILED, "nothing was changed\n")
    );
    assert_eq!(
        person.1, "- endpoint initech/e\nRemove these 1?",
        "all of it and nothing of others"
    );
    let mut person = Says(true, String::new());
    let done = terminal
        .ask_somebody(&["apply", &file, "--prune"], &mut person)
        .await;
    assert_eq!(
        (done.code, done.out.as_str()),
        (
            EXIT_OK,
            "- endpoint initech/e\nadded 0, changed 0, removed 1\n"
        )
    );

    let gone = terminal.file("gone.toml", "owns = { tenants = ['initech'] }");
    let done = terminal.ask(&["apply", &gone, "--prune", "--yes"]).await;
    assert_eq!(
        done.out,
        "- phone number 900\n- tenant initech\n- data key of initech\nadded 0, changed 0, removed 3\n"
    );
    assert_eq!(
        terminal.ask(&["apply", &gone, "--prune"]).await.out,
        "nothing to change\n"
    );
    let whole = terminal.file("whole.toml", "owns = { installation = true }");
    let needed = terminal.ask(&["apply", &whole, "--prune", "--yes"]).await;
    assert_eq!(needed.code, EXIT_CONFIG);
    assert!(
        needed
            .err
            .contains("app main is not declared and --prune would remove it"),
        "{needed:?}"
    );
}

#[tokio::test]
async fn a_part_is_deleted_when_nothing_needs_it_and_somebody_agrees() {
    let terminal = Terminal::open();
    terminal.ask(&["apply", demo().to_str().unwrap()]).await;
    let used = terminal.ask(&["delete", "app", "main", "--yes"]).await;
    assert_eq!((used.code, used.out.as_str()), (EXIT_FAILED, ""));
    assert!(
        used.err
            .starts_with("error: app main is used by phone number "),
        "{used:?}"
    );
    let relay = ["delete", "relay", "existing-bot", "--tenant", "globex"];
    assert_eq!(
        terminal.ask(&relay).await.code,
        EXIT_CONFIG,
        "nobody can be asked"
    );
    let mut person = Says(false, String::new());
    terminal.ask_somebody(&relay, &mut person).await;
    assert!(
        person.1.starts_with("- relay globex/existing-bot\n    ")
            && person.1.ends_with("Delete it?"),
        "{}",
        person.1
    );
    assert!(person.1.contains("    url: \"http"), "{}", person.1);
    let mut person = Says(true, String::new());
    let done = terminal.ask_somebody(&relay, &mut person).await;
    assert_eq!(
        (done.code, done.out.as_str()),
        (EXIT_OK, "deleted relay globex/existing-bot\n")
    );
    let again = terminal.ask(&relay).await;
    assert_eq!(
        (again.code, again.err.as_str()),
        (
            EXIT_FAILED,
            "error: there is no relay globex/existing-bot\n"
        )
    );
    let tenant = terminal.ask(&["delete", "tenant", "globex", "--yes"]).await;
    assert!(
        tenant.err.contains("phone number"),
        "what it owns is named: {tenant:?}"
    );
    terminal
        .ask(&["apply", &terminal.file("x.toml", INITECH)])
        .await;
    terminal
        .ask(&["delete", "endpoint", "e", "--tenant", "initech", "--yes"])
        .await;
    terminal
        .ask(&["delete", "phone-number", "900", "--yes"])
        .await;
    let tenant = terminal
        .ask(&["delete", "tenant", "initech", "--yes", "--json"])
        .await;
    let report: serde_json::Value = serde_json::from_str(&tenant.out).unwrap();
    assert_eq!(report["deleted"][1]["name"], "of initech", "{tenant:?}");
}

#[tokio::test]
async fn a_file_that_declares_too_much_is_refused_with_every_limit_and_mistake() {
    let mut terminal = Terminal::open();
    terminal.set("ACKLINE_LIMITS_FLOWS_MAX", "1");
    terminal.set("ACKLINE_LIMITS_TENANT_BYTES_MAX", "1KiB");
    let wrong = terminal.document(
        "(demo)\"\nbrand = \"ackline\"",
        "(demo)\"\nbrand = \"nowhere\"",
    );
    let outcome = terminal.ask(&["apply", &wrong]).await;
    assert_eq!(outcome.code, EXIT_CONFIG);
    for part in [
        "there is no brand nowhere",
        "limits.tenant_bytes_max",
        "nothing was changed",
    ] {
        assert!(outcome.err.contains(part), "{part} in {outcome:?}");
    }
}
