//! Reads the block of headers of a message: a line with the version and perhaps a status, then `Name: value` lines.

const VERSION: &[u8] = b"NATS/1.0";

/// A block of headers; one that is none has no status and no values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a>(pub &'a [u8]);

impl<'a> Headers<'a> {
    /// The status, if there is one.
    pub fn status(self) -> Option<u16> {
        let line = self
            .0
            .split(|byte| *byte == b'\r')
            .next()?
            .strip_prefix(VERSION)?;
        let digits = line.strip_prefix(b" ")?.get(..3)?;
        if !matches!(line.get(4), None | Some(b' ')) || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The first value of this name, which is written as given.
    pub fn get(self, name: &str) -> Option<&'a str> {
        let lines = self
            .0
            .strip_prefix(VERSION)?
            .split(|byte| *byte == b'\n')
            .skip(1);
        let mut values =
            lines.filter_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"));
        values
            .next()
            .and_then(|value| std::str::from_utf8(value).ok())
            .map(str::trim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_status_and_values_are_found() {
        let block = Headers(
            b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 12\r\nA:b: c \r\nNo\r\n\r\n",
        );
        assert_eq!(block.status(), Some(100));
        assert_eq!(block.get("Nats-Last-Consumer"), Some("12"));
        assert_eq!(
            (block.get("A"), block.get("No"), block.get("Nats-Last")),
            (Some("b: c"), None, None)
        );
        let plain = Headers(b"NATS/1.0\r\nA: 1\r\nA: 2\r\n\r\n");
        assert_eq!((plain.status(), plain.get("A")), (None, Some("1")));
        assert_eq!(Headers(b"NATS/1.0 503\r\n\r\n").status(), Some(503));
        for none in [
            "",
            "NATS/1.0 5031\r\n\r\n",
            "NATS/1.0 x03\r\n\r\n",
            "NATS/2.0 503\r\nA: 1\r\n\r\n",
        ] {
            let block = Headers(none.as_bytes());
            assert_eq!((block.status(), block.get("A")), (None, None), "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..80), start in prop::sample::select(vec!["", "NATS/1.0", "NATS/1.0 "])) {
            let block = [start.as_bytes(), &bytes].concat();
            let headers = Headers(&block);
            let _any = (headers.status(), headers.get("A"));
        }
    }
}
