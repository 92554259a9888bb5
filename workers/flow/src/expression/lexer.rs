//! Splits an expression's source into tokens.

use super::ExpressionError;
use crate::value::is_name_char;
use std::iter::Peekable;
use std::str::CharIndices;

/// A token and which character of the source it starts at, from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lexed {
    pub token: Token,
    pub at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Number(f64),
    Text(String),
    /// A name, a dotted path or a keyword.
    Word(String),
    /// An operator or a bracket.
    Symbol(&'static str),
}

const SYMBOLS: [&str; 16] = [
    "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "(", ")", "[", "]", ",",
];

pub(super) fn lex(source: &str) -> Result<Vec<Lexed>, ExpressionError> {
    let mut tokens = Vec::new();
    let mut chars = source.char_indices().peekable();
    let mut at = 0;
    let mut consumed = 0;
    while let Some(&(start, c)) = chars.peek() {
        // Positions are counted once along the way, so that lexing stays linear.
        at += source
            .get(consumed..start)
            .unwrap_or_default()
            .chars()
            .count();
        consumed = start;
        if c.is_whitespace() {
            chars.next();
            continue;
        }
        let rest = source.get(start..).unwrap_or_default();
        let token = if c.is_ascii_digit() {
            lex_number(source, &mut chars, at)?
        } else if c == '"' || c == '\'' {
            lex_text(&mut chars, at)?
        } else if c.is_alphabetic() || c == '_' {
            Token::Word(take_while(source, &mut chars, |c| is_name_char(c) || c == '.').to_owned())
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            let end = start + symbol.len();
            while chars.next_if(|(at, _)| *at < end).is_some() {}
            Token::Symbol(symbol)
        } else {
            return Err(unexpected(
                at,
                "an operator, a name, a number or a text",
                format!("`{c}`"),
            ));
        };
        tokens.push(Lexed { token, at: at + 1 });
    }
    Ok(tokens)
}

fn lex_number(
    source: &str,
    chars: &mut Peekable<CharIndices<'_>>,
    at: usize,
) -> Result<Token, ExpressionError> {
    let text = take_while(source, chars, |c| is_name_char(c) || c == '.');
    match text.parse() {
        Ok(number) => Ok(Token::Number(number)),
        Err(_) => Err(unexpected(
            at,
            "a number such as 12 or 0.5",
            format!("`{text}`"),
        )),
    }
}

fn lex_text(chars: &mut Peekable<CharIndices<'_>>, at: usize) -> Result<Token, ExpressionError> {
    let quote = chars.next().map(|(_, c)| c);
    let mut text = String::new();
    while let Some((_, c)) = chars.next() {
        match c {
            c if Some(c) == quote => return Ok(Token::Text(text)),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(c @ ('\\' | '"' | '\'')) => text.push(c),
                // A regular expression's `\d` stays as it is written.
                Some(c) => text.extend(['\\', c]),
                None => {}
            },
            c => text.push(c),
        }
    }
    Err(unexpected(
        at,
        "a quote that closes the text",
        "the end".to_owned(),
    ))
}

fn take_while<'s>(
    source: &'s str,
    chars: &mut Peekable<CharIndices<'_>>,
    wanted: impl Fn(char) -> bool,
) -> &'s str {
    let start = chars.peek().map_or(source.len(), |(at, _)| *at);
    while chars.next_if(|(_, c)| wanted(*c)).is_some() {}
    let end = chars.peek().map_or(source.len(), |(at, _)| *at);
    source.get(start..end).unwrap_or_default()
}

fn unexpected(at: usize, wanted: &str, found: String) -> ExpressionError {
    ExpressionError::Unexpected {
        at: at + 1,
        wanted: format!("expected {wanted}"),
        found,
    }
}
