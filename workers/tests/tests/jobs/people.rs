//! Who is who in the CRM: one thread a person over spellings and new ids, one of its own for a group, and what was sent from
//! the Business app.

use super::crm::{NUMBER, Stand, work};
use super::replies::command;
use ackline_message::{Content, Recipient, Record, SendCommand};
use ackline_runtime::job::Work;
use ackline_shared::envelope::Family;
use ackline_shared::subjects::Class;
use serde_json::{Value, json};

/// A message or an echo as Meta sends it.
fn update(array: &str, wamid: &str, members: &Value) -> Work {
    let mut message = json!({"id": wamid, "type": "text", "text": {"body": wamid}});
    let fields = message.as_object_mut().unwrap();
    fields.extend(members.as_object().unwrap().clone());
    let value = json!({"metadata": {"phone_number_id": NUMBER}, array: [message]});
    let change = json!({"field": "messages", "value": value});
    let envelope = json!({"entry": [{"id": "W", "changes": [change]}]});
    work(Family::Update(Class::Message), "message.text", &envelope)
}

fn said(wamid: &str, members: &Value) -> Work {
    update("messages", wamid, members)
}

/// A message of ours to a number, and whom Meta says it went to.
fn sent(wamid: &str, phone: &str, known_as: Option<Recipient>) -> Work {
    let command = SendCommand {
        to: Recipient {
            user_id: None,
            phone: Some(phone.into()),
        },
        content: Content::Text {
            body: wamid.into(),
            preview_url: false,
        },
        ..command()
    };
    let record = Record::ReplySent {
        command: Box::new(command),
        wamid: wamid.into(),
        attempts: 1,
        known_as,
    };
    let record = serde_json::to_value(record).unwrap();
    work(Family::Record, Record::REPLY_SENT, &record)
}

impl Stand {
    /// The threads that messages stand in, in their order.
    fn threads(&self) -> Vec<u64> {
        let transcript = self.fake.transcript();
        transcript.iter().map(|(thread, ..)| *thread).collect()
    }
}

#[tokio::test]
async fn a_person_in_two_spellings_has_one_thread_whoever_wrote_first() {
    let stand = Stand::new().await;
    stand.done(&sent("wamid.1", "+5521987654321", None)).await;
    let answer = json!({"from": "552187654321", "from_user_id": "BR.1"});
    stand.done(&said("wamid.2", &answer)).await;
    stand.done(&sent("wamid.3", "552187654321", None)).await;
    let by_user = json!({"from_user_id": "BR.1"});
    stand.done(&said("wamid.4", &by_user)).await;
    let threads = stand.threads();
    assert_eq!(threads.len(), 4);
    assert!(
        threads.iter().all(|thread| *thread == threads[0]),
        "{threads:?}"
    );
    assert_eq!(stand.fake.memory().contacts.len(), 1);
}

#[tokio::test]
async fn whoever_has_other_ids_keeps_their_thread() {
    let stand = Stand::new().await;
    let old = json!({"from": "49151", "from_user_id": "DE.1"});
    stand.done(&said("wamid.1", &old)).await;
    let change = json!({"from": "49151", "type": "system", "system": {"type": "user_changed_number", "body": "changed",
        "wa_id": "49159", "user_id": "DE.9", "previous_user_id": "DE.1"}});
    stand.done(&said("wamid.2", &change)).await;
    let new = json!({"from": "49159", "from_user_id": "DE.9"});
    stand.done(&said("wamid.3", &new)).await;
    // Meta knows whom we wrote to by another number and by a user id.
    let known_as = Recipient {
        user_id: Some("US.7".into()),
        phone: Some("4930".into()),
    };
    stand.done(&sent("wamid.4", "4977", Some(known_as))).await;
    stand.done(&said("wamid.5", &json!({"from": "4930"}))).await;
    stand
        .done(&said("wamid.6", &json!({"from_user_id": "US.7"})))
        .await;
    let threads = stand.threads();
    assert_eq!(threads[..3], [threads[0]; 3]);
    assert_eq!(threads[3..], [threads[3]; 3]);
    assert_ne!(threads[0], threads[3]);
}

#[tokio::test]
async fn a_group_has_a_thread_of_its_own_and_the_business_app_writes_into_the_persons() {
    let stand = Stand::new().await;
    stand
        .done(&said("wamid.1", &json!({"from": "49151"})))
        .await;
    let in_group = |from: &str| json!({"from": from, "group_id": "Y2FwaV9ncm91cDo"});
    stand.done(&said("wamid.2", &in_group("49151"))).await;
    stand.done(&said("wamid.3", &in_group("49152"))).await;
    let echo = json!({"from": "1555", "to": "49151", "text": {"body": "from the phone"}});
    stand
        .done(&update("message_echoes", "wamid.4", &echo))
        .await;
    let threads = stand.threads();
    assert_eq!((threads[1], threads[3]), (threads[2], threads[0]));
    assert_ne!(threads[0], threads[1]);
    let (_, kind, content, source) = &stand.fake.transcript()[3];
    assert_eq!(
        (kind.as_str(), content.as_str(), source.as_str()),
        ("outgoing", "from the phone", "wamid.4")
    );
}
