//! Reads what a NATS server says: one operation at a time, out of the bytes received so far, copying nothing.
//!
//! Everything is bounded; what is longer, or no operation at all, is an error after which the connection ends.

/// Longest line; that of INFO lists every server of a cluster.
pub const LINE_BYTES_MAX: usize = 64 << 10;
/// Longest message: the most that a server is advised to take. Answers of JetStream have some hundred bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// `INFO`: about itself, in JSON.
    Info(&'a [u8]),
    /// `MSG` or `HMSG`: a message on one of our subscriptions.
    Message(Message<'a>),
    /// `PING`
    Ping,
    /// `PONG`
    Pong,
    /// `+OK`
    Ok,
    /// `-ERR`: what is wrong.
    Error(&'a [u8]),
}

/// A message as it is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Where it was published.
    pub subject: &'a [u8],
    /// Which of our subscriptions brings it.
    pub subscription: &'a [u8],
    /// Where an answer would go; empty when none is wanted.
    pub reply: &'a [u8],
    /// Its block of headers; empty without any.
    pub headers: &'a [u8],
    /// What it carries.
    pub payload: &'a [u8],
}

/// The bytes are not the protocol, or more than it may say at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A line or a message is too long.
    #[error("the server says more at once than it may")]
    TooLong,
    /// No operation we know.
    #[error("the server does not speak the NATS protocol")]
    Unknown,
}

/// Reads the first operation and how many bytes it takes; `None` when it is not whole yet.
pub fn read(bytes: &[u8]) -> Result<Option<(Operation<'_>, usize)>, ProtocolError> {
    let Some(end) = bytes
        .iter()
        .take(LINE_BYTES_MAX)
        .position(|byte| *byte == b'\n')
    else {
        return if bytes.len() >= LINE_BYTES_MAX {
            Err(ProtocolError::TooLong)
        } else {
            Ok(None)
        };
    };
    let line = bytes.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (name, rest) = match line.iter().position(|byte| is_space(*byte)) {
        Some(at) => (
            line.get(..at).unwrap_or_default(),
            line.get(at + 1..).unwrap_or_default(),
        ),
        None => (line, &[][..]),
    };
    let operation = match name {
        b"MSG" => return message(bytes, end + 1, rest, false),
        b"HMSG" => return message(bytes, end + 1, rest, true),
        b"PING" => Operation::Ping,
        b"PONG" => Operation::Pong,
        b"+OK" => Operation::Ok,
        b"-ERR" => Operation::Error(rest),
        b"INFO" => Operation::Info(rest),
        _ => return Err(ProtocolError::Unknown),
    };
    Ok(Some((operation, end + 1)))
}

/// `MSG <subject> <sid> [reply] <size>`, or `HMSG <subject> <sid> [reply] <headers> <size>`.
fn message<'a>(
    bytes: &'a [u8],
    start: usize,
    line: &'a [u8],
    with_headers: bool,
) -> Result<Option<(Operation<'a>, usize)>, ProtocolError> {
    let mut words = line
        .split(|byte| is_space(*byte))
        .filter(|word| !word.is_empty());
    let subject = words.next().ok_or(ProtocolError::Unknown)?;
    let size = size(words.next_back())?;
    let headers = if with_headers {
        self::size(words.next_back())?
    } else {
        0
    };
    let subscription = words.next().ok_or(ProtocolError::Unknown)?;
    let reply = words.next().unwrap_or_default();
    if words.next().is_some() || headers > size {
        return Err(ProtocolError::Unknown);
    }
    let Some(body) = bytes.get(start..start + size) else {
        return Ok(None);
    };
    match bytes.get(start + size..start + size + 2) {
        None => Ok(None),
        Some(b"\r\n") => {
            let (headers, payload) = body
                .split_at_checked(headers)
                .ok_or(ProtocolError::Unknown)?;
            let message = Message {
                subject,
                subscription,
                reply,
                headers,
                payload,
            };
            Ok(Some((Operation::Message(message), start + size + 2)))
        }
        Some(_) => Err(ProtocolError::Unknown),
    }
}

fn size(word: Option<&[u8]>) -> Result<usize, ProtocolError> {
    let word = word
        .filter(|word| word.len() <= 9)
        .ok_or(ProtocolError::Unknown)?;
    let size = word.iter().try_fold(0_usize, |size, byte| {
        byte.is_ascii_digit()
            .then(|| size * 10 + usize::from(byte - b'0'))
            .ok_or(ProtocolError::Unknown)
    })?;
    if size > MESSAGE_BYTES_MAX {
        Err(ProtocolError::TooLong)
    } else {
        Ok(size)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Operation<'_> {
        let (operation, taken) = read(text.as_bytes()).unwrap().unwrap();
        assert_eq!(taken, text.len());
        operation
    }

    #[test]
    fn every_operation_is_read() {
        assert_eq!(whole("PING\r\n"), Operation::Ping);
        assert_eq!(whole("PONG\r\n"), Operation::Pong);
        assert_eq!(whole("+OK\r\n"), Operation::Ok);
        assert_eq!(
            whole("-ERR 'Stale Connection'\r\n"),
            Operation::Error(b"'Stale Connection'")
        );
        assert_eq!(
            whole("INFO {\"a\": 1} \r\n"),
            Operation::Info(b"{\"a\": 1} ")
        );
        let plain = Message {
            subject: b"a.b",
            subscription: b"1",
            reply: b"",
            headers: b"",
            payload: b"x\r\ny",
        };
        assert_eq!(
            whole("MSG a.b 1 4\r\nx\r\ny\r\n"),
            Operation::Message(plain)
        );
        let asking = Message {
            reply: b"re.ply",
            ..plain
        };
        assert_eq!(
            whole("MSG a.b 1 re.ply 4\r\nx\r\ny\r\n"),
            Operation::Message(asking)
        );
        let headed = Message {
            headers: b"NATS/1.0 503\r\n\r\n",
            payload: b"",
            ..plain
        };
        assert_eq!(
            whole("HMSG a.b 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"),
            Operation::Message(headed)
        );
    }

    #[test]
    fn what_is_no_operation_is_an_error() {
        for text in [
            "HTTP/1.1 200 OK\r\n",
            "\r\n",
            "MSG\r\n",
            "MSG a 4\r\n",
            "MSG a 1 x\r\n",
            "MSG a 1 b c 4\r\n",
        ] {
            assert_eq!(read(text.as_bytes()), Err(ProtocolError::Unknown), "{text}");
        }
        for text in [
            "HMSG a 1 5 4\r\nabcd\r\n",
            "MSG a 1 1\r\nabcd\r\n",
            "MSG a 1 99999999999999999999\r\n",
        ] {
            assert_eq!(read(text.as_bytes()), Err(ProtocolError::Unknown), "{text}");
        }
        assert_eq!(read(b"MSG a 1 9999999\r\n"), Err(ProtocolError::TooLong));
        assert_eq!(
            read(&vec![b'I'; LINE_BYTES_MAX]),
            Err(ProtocolError::TooLong)
        );
    }

    fn operations() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let message = (
            prop::collection::vec(any::<u8>(), 0..40),
            prop::collection::vec(any::<u8>(), 0..40),
        )
            .prop_map(|(headers, payload)| {
                let total = headers.len() + payload.len();
                let line = match headers.as_slice() {
                    [] => format!("MSG in.box.1-0 1 {total}\r\n"),
                    headers => format!("HMSG in.box.1-0 1 {} {total}\r\n", headers.len()),
                };
                [line.into_bytes(), headers, payload, b"\r\n".to_vec()].concat()
            });
        let others = prop::sample::select(vec![
            "PING\r\n",
            "PONG\r\n",
            "+OK\r\n",
            "-ERR 'x'\r\n",
            "INFO {}\r\n",
        ]);
        prop::collection::vec(
            prop_oneof![message, others.prop_map(|text| text.as_bytes().to_vec())],
            0..8,
        )
    }

    proptest! {
        /// Whatever pieces the bytes come in, the same operations come out, each with its own bytes.
        #[test]
        fn operations_are_the_same_in_any_pieces(operations in operations(), piece in 1..50_usize) {
            let bytes = operations.concat();
            let (mut held, mut found) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(piece) {
                held.extend_from_slice(piece);
                while let Some((operation, taken)) = read(&held).unwrap() {
                    if let Operation::Message(Message { headers, payload, .. }) = operation {
                        let body = [headers, payload].concat();
                        prop_assert_eq!(held.get(taken - 2 - body.len()..taken - 2), Some(body.as_slice()));
                    }
                    found.push(held.drain(..taken).collect::<Vec<_>>());
                }
            }
            prop_assert!(held.is_empty());
            prop_assert_eq!(found, operations);
        }

        /// Any bytes are read, refused or waited for, and what is read was there.
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200), start in prop::sample::select(vec!["", "MSG ", "HMSG a 1 ", "INFO "])) {
            let bytes = [start.as_bytes(), &bytes].concat();
            if let Ok(Some((_, taken))) = read(&bytes) {
                prop_assert!(taken > 0 && taken <= bytes.len());
            }
        }
    }
}
