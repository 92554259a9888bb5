//! How long functions are: finds each `fn` with a body, past strings and comments.

/// What a scanner meets that is code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'t> {
    Word(&'t str),
    Sign(char),
}

/// A function whose end is still to come.
struct Open {
    line: usize,
    /// Braces that are open around its body; nothing until the body begins.
    depth: Option<usize>,
    /// Brackets open in its head.
    brackets: usize,
}

/// The lengths of all functions with a body, in lines from `fn` to the closing brace.
pub fn lengths(text: &str) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut depth = 0;
    let mut after_fn = None;
    for (line, token) in tokens(text) {
        if let Some(line) = after_fn.take()
            && matches!(token, Token::Word(_))
        {
            open.push(Open {
                line,
                depth: None,
                brackets: 0,
            });
            continue;
        }
        let head = open.last_mut().filter(|function| function.depth.is_none());
        match (token, head) {
            (Token::Word("fn"), _) => after_fn = Some(line),
            (Token::Sign('(' | '['), Some(head)) => head.brackets += 1,
            (Token::Sign(')' | ']'), Some(head)) => {
                head.brackets = head.brackets.saturating_sub(1);
            }
            // Declared without a body.
            (Token::Sign(';'), Some(head)) if head.brackets == 0 => drop(open.pop()),
            (Token::Sign('{'), head) => {
                if let Some(head) = head.filter(|head| head.brackets == 0) {
                    head.depth = Some(depth);
                }
                depth += 1;
            }
            (Token::Sign('}'), _) => {
                depth = depth.saturating_sub(1);
                if let Some(function) = open.pop_if(|function| function.depth == Some(depth)) {
                    lengths.push(line - function.line + 1);
                }
            }
            _ => {}
        }
    }
    lengths
}

/// The value below which 95 of a hundred lie; 0 of none.
pub fn percentile_95(lengths: &[usize]) -> usize {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * 95).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// Words and signs with their lines.
fn tokens(text: &str) -> Vec<(usize, Token<'_>)> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let (length, token) = next(rest, first);
        let (taken, after) = rest.split_at(length);
        if let Some(token) = token {
            found.push((line, token));
        }
        line += taken.matches('\n').count();
        rest = after;
    }
    found
}

/// How many bytes come next, and what of code they are.
fn next(rest: &str, first: char) -> (usize, Option<Token<'_>>) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), None);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), None);
    }
    if let Some(length) = raw_text(rest) {
        return (length, None);
    }
    if first == '"' {
        return (quoted(rest, '"'), None);
    }
    if first == '\'' {
        return (character(rest), None);
    }
    if is_of_a_word(first) {
        let length = rest.find(|c| !is_of_a_word(c)).unwrap_or(rest.len());
        let word = rest.split_at(length).0;
        // The b of a text of bytes.
        let is_prefix = matches!(word, "b" | "c") && rest.split_at(length).1.starts_with('"');
        return (length, (!is_prefix).then_some(Token::Word(word)));
    }
    let sign = (!first.is_whitespace()).then_some(Token::Sign(first));
    (first.len_utf8(), sign)
}

fn is_of_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(here) = rest.get(at..) {
        if here.is_empty() {
            break;
        }
        if here.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#` and the like, where one stands.
fn raw_text(rest: &str) -> Option<usize> {
    let start = ["br", "cr", "r"]
        .into_iter()
        .find(|start| rest.starts_with(start))?;
    let after = rest.strip_prefix(start)?;
    let body = after.trim_start_matches('#');
    let hashes = after.len() - body.len();
    let body = body.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let opened = rest.len() - body.len();
    Some(
        body.find(&end)
            .map_or(rest.len(), |at| opened + at + end.len()),
    )
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// A character in quotes, or the quote alone of a lifetime.
fn character(rest: &str) -> usize {
    let mut inner = rest.chars().skip(1);
    match (inner.next(), inner.next()) {
        (Some('\\'), _) => quoted(rest, '\''),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_as_long_as_its_lines() {
        assert_eq!(
            lengths("fn a() {}\nfn b(\n) -> [u8; 2] {\n  c()\n}"),
            [1, 4]
        );
        assert_eq!(lengths("fn a() {\n  fn b() {\n  }\n}"), [2, 4]);
        assert_eq!(
            lengths("trait T { fn a(&self);\n fn b() {\n} }\nlet c: fn(u8) = d;"),
            [2]
        );
    }

    #[test]
    fn braces_in_texts_and_comments_do_not_count() {
        let body = r####"fn a<'l>(x: &'l str) {
            let _ = ("}", '}', '\'', r#"}"}"#, b"}", "\"}");
            // }
            /* } /* } */ fn b() { */
            if x == 'l' {}
        }"####;
        assert_eq!(lengths(body), [6]);
    }

    #[test]
    fn the_95th_percentile_is_a_value_that_occurs() {
        assert_eq!(percentile_95(&(1..=100).collect::<Vec<_>>()), 95);
        assert_eq!((percentile_95(&[7]), percentile_95(&[])), (7, 0));
    }
}
