//! What the lines of a pool keep count of, where only chance would show it in a running pool.

use super::*;
use crate::testing::platform;
use ackline_shared::config::Reader;
use std::iter::empty;

#[tokio::test]
async fn a_copy_that_came_into_its_line_twice_is_finished_twice() {
    let (platform, _server) = platform(&[]).await;
    let settings = PoolSettings::read(&mut Reader::load(None, empty()), Pool::Relay);
    let mut spill = Spill::new(Pool::Relay, &[], platform.log.context().clone(), &settings);
    let tenant = TenantId::new("acme").unwrap();
    let line = SpillLine { partition: Partition(1), lane: "msg".to_owned(), tenant, conversation: None };
    let line = Arc::new(line);
    spill.enter(&line).loaded([4, 5]);
    let place = Place { partition: Partition(1), stream: subjects::UPDATES, sequence: 9 };
    spill.copied.insert(place);
    for sequence in [4, 5] {
        spill.not_taken(place, Origin { line: line.clone(), sequence });
    }
    assert!(spill.lines[&line].has_unfinished());
    assert!(spill.has_copy(&place), "its original may be acknowledged");
    spill.finished_at(&place);
    assert!(!spill.has_copy(&place));
    assert!(!spill.lines[&line].has_unfinished());
}
