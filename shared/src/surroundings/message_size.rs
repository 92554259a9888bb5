//! Whether nats-server takes the longest message: an update as long as a body may be, with its headers.

/// What subject and headers may take beside a payload: those of a dead letter, of what waits in SPILL and of a replay.
const HEADERS_BYTES_MAX: usize = 32 << 10;

/// What is wrong with the server's `max_payload`, if anything is.
pub fn problem(message_bytes_max: usize, body_bytes_max: usize) -> Option<String> {
    let needed = body_bytes_max + HEADERS_BYTES_MAX;
    (message_bytes_max < needed).then(|| {
        let megabytes = needed.div_ceil(1 << 20).max(8);
        format!(
            "nats-server takes messages of {message_bytes_max} bytes, and an update may have {needed} with its headers: \
             longer ones get 503 until it takes them; set `max_payload: {megabytes}MB` in its configuration and reload it"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_count_too() {
        assert_eq!(problem(8 << 20, 4 << 20), None);
        assert!(
            problem(1 << 20, 4 << 20)
                .unwrap()
                .contains("`max_payload: 8MB`")
        );
        assert!(
            problem(8 << 20, 8 << 20)
                .unwrap()
                .contains("`max_payload: 9MB`")
        );
    }
}
