//! What a conversation's record has no room for, in the stream FINISHED.

use super::platform::platform;
use ackline_engine::finished::{BLOCK_MARKS, Finished};
use ackline_runtime::older::Older;
use ackline_shared::subjects::FINISHED;

fn block(from: usize) -> Vec<u8> {
    let mut finished = Finished::default();
    (from..from + BLOCK_MARKS * 2).for_each(|number| finished.add(&format!("wamid.{number}")));
    finished.full_block().unwrap().to_vec()
}

#[tokio::test]
async fn what_was_appended_is_found_by_whoever_reads_it() {
    let (platform, _server) = platform(&[]).await;
    let ours = Older::new(platform.log.context().clone());
    assert_eq!(
        ours.has("relay.acme.x", 0, "wamid.0").await,
        Ok(false),
        "nothing is asked without blocks"
    );
    ours.append("relay.acme.x", 0, &block(0)).await.unwrap();
    ours.append("relay.acme.x", 0, &block(0)).await.unwrap();
    assert_eq!(ours.has("relay.acme.x", 1, "wamid.0").await, Ok(true));
    ours.append("relay.acme.x", 1, &block(BLOCK_MARKS))
        .await
        .unwrap();
    let theirs = Older::new(platform.log.context().clone());
    for older in [&ours, &theirs] {
        for number in 0..BLOCK_MARKS * 2 {
            assert_eq!(
                older
                    .has("relay.acme.x", 2, &format!("wamid.{number}"))
                    .await,
                Ok(true),
                "{number}"
            );
        }
        assert_eq!(older.has("relay.acme.x", 2, "wamid.9999").await, Ok(false));
        assert_eq!(
            older.has("relay.acme.y", 1, "wamid.0").await,
            Ok(false),
            "another conversation's"
        );
    }
    // Somebody else had the conversation in between.
    theirs
        .append("relay.acme.x", 2, &block(BLOCK_MARKS * 2))
        .await
        .unwrap();
    assert_eq!(
        ours.has("relay.acme.x", 3, &format!("wamid.{}", BLOCK_MARKS * 2))
            .await,
        Ok(true)
    );
    let info = platform
        .log
        .context()
        .get_stream(FINISHED)
        .await
        .unwrap()
        .get_info()
        .await
        .unwrap();
    assert_eq!(
        info.state.messages, 3,
        "a block appended twice is stored once"
    );
    let each = info.state.bytes / u64::try_from(3 * BLOCK_MARKS).unwrap();
    assert!(each <= 8, "{each} bytes an update on disk");
}
