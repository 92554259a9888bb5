//! Reads as much of an HTTP/1.1 answer as a load generator needs: its status and where it ends.

/// What the bytes received so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Partial,
    /// An answer that ends after `bytes`.
    Complete {
        status: u16,
        /// Its length with head and body.
        bytes: usize,
        /// Whether the server closes the connection after it.
        close: bool,
    },
    Broken,
}

/// Longest answer that is read; anything longer is no acknowledgement.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Reads the answer at the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Answer {
    let Some(head_end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > ANSWER_BYTES_MAX {
            Answer::Broken
        } else {
            Answer::Partial
        };
    };
    let Some(Ok(head)) = bytes.get(..head_end).map(std::str::from_utf8) else {
        return Answer::Broken;
    };
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let Some(status) = status.and_then(|rest| rest.get(..3)?.parse().ok()) else {
        return Answer::Broken;
    };
    let (mut length, mut chunked, mut close) = (0, false, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            match value.parse::<usize>() {
                Ok(bytes) => length = bytes,
                Err(_) => return Answer::Broken,
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("connection") {
            close = value.eq_ignore_ascii_case("close");
        }
    }
    let body_start = head_end + 4;
    let body = bytes.get(body_start..).unwrap_or_default();
    let body_bytes = if chunked {
        chunked_end(body)
    } else {
        (body.len() >= length).then_some(length)
    };
    match body_bytes {
        Some(body_bytes) => Answer::Complete {
            status,
            bytes: body_start + body_bytes,
            close,
        },
        None if bytes.len() > ANSWER_BYTES_MAX => Answer::Broken,
        None => Answer::Partial,
    }
}

/// Where a chunked body without trailers ends.
fn chunked_end(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = body.get(at..)?;
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(rest.get(..line)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        at = at
            .checked_add(line + 2)?
            .checked_add(size)?
            .checked_add(2)?;
        if size == 0 {
            return (body.len() >= at).then_some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_partial_until_its_last_byte() {
        for whole in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ] {
            for cut in 0..whole.len() {
                assert_eq!(
                    parse(&whole.as_bytes()[..cut]),
                    Answer::Partial,
                    "{cut} of {whole:?}"
                );
            }
            let next = format!("{whole}HTTP/1.1 503");
            let expected = Answer::Complete {
                status: 200,
                bytes: whole.len(),
                close: false,
            };
            assert_eq!(parse(next.as_bytes()), expected, "{whole:?}");
        }
    }

    #[test]
    fn a_refusal_that_closes_says_so() {
        let text =
            "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(
            parse(text.as_bytes()),
            Answer::Complete {
                status: 503,
                bytes: text.len(),
                close: true
            }
        );
    }

    #[test]
    fn what_is_not_http_is_broken() {
        assert_eq!(parse(b"-ERR unknown\r\n\r\n"), Answer::Broken);
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n"),
            Answer::Broken
        );
        assert_eq!(parse(&vec![b'x'; ANSWER_BYTES_MAX + 1]), Answer::Broken);
    }
}
