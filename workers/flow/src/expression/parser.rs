//! Builds the tree by precedence climbing; depth and size are counted on the way, never afterwards.

use super::function::Function;
use super::lexer::{Lexed, Token};
use super::{DEPTH_MAX, ExpressionError, NODES_MAX, Node, Operator, PATTERNS_MAX, compile_regex};
use crate::value::Path;
use serde_json::Value;

const PATTERN_WRONG: &str = "the pattern of `matches` is not a regular expression this engine takes; \
                             look-around and back-references are not supported";

pub(super) fn parse(tokens: &[Lexed]) -> Result<Node, ExpressionError> {
    let mut parser = Parser {
        tokens,
        next: 0,
        depth: 0,
        nodes: 0,
        patterns: 0,
    };
    let node = parser.binary(0)?;
    match parser.peek() {
        None => Ok(node),
        Some(_) => Err(parser.unexpected("an operator or the end")),
    }
}

struct Parser<'t> {
    tokens: &'t [Lexed],
    next: usize,
    depth: usize,
    nodes: usize,
    patterns: usize,
}

impl Parser<'_> {
    /// Parses operands joined by operators that bind at least as tightly as `least`.
    fn binary(&mut self, least: u8) -> Result<Node, ExpressionError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ExpressionError::TooDeep);
        }
        let mut left = self.operand()?;
        let mut compared = false;
        while let Some(operator) = self.peek_operator() {
            let binding = binding(operator);
            if binding < least {
                break;
            }
            if binding == COMPARISON && compared {
                return Err(self.unexpected("`and` between two comparisons"));
            }
            compared = binding == COMPARISON;
            self.next += 1;
            let right = self.binary(binding + 1)?;
            left = self.node(Node::Binary(operator, Box::new(left), Box::new(right)))?;
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operand(&mut self) -> Result<Node, ExpressionError> {
        let Some(token) = self.peek().cloned() else {
            return Err(self.unexpected("a value"));
        };
        match token {
            Token::Number(number) => self.leaf(Node::Value(crate::value::number(number))),
            Token::Text(text) => self.leaf(Node::Value(Value::String(text))),
            Token::Symbol("(") => {
                self.next += 1;
                let node = self.binary(0)?;
                self.expect(")")?;
                Ok(node)
            }
            Token::Symbol("[") => {
                self.next += 1;
                let nodes = self.list("]")?;
                self.node(Node::List(nodes))
            }
            Token::Symbol("-") => {
                self.next += 1;
                let node = self.binary(UNARY)?;
                self.node(Node::Negate(Box::new(node)))
            }
            Token::Word(word) => self.word(&word),
            Token::Symbol(_) => Err(self.unexpected("a value")),
        }
    }

    fn word(&mut self, word: &str) -> Result<Node, ExpressionError> {
        match word {
            "not" => {
                self.next += 1;
                // Binds looser than a comparison: `not a == b` is `not (a == b)`.
                let node = self.binary(COMPARISON)?;
                self.node(Node::Not(Box::new(node)))
            }
            "true" => self.leaf(Node::Value(Value::Bool(true))),
            "false" => self.leaf(Node::Value(Value::Bool(false))),
            "null" => self.leaf(Node::Value(Value::Null)),
            "and" | "or" | "in" | "contains" => Err(self.unexpected("a value")),
            name if self
                .tokens
                .get(self.next + 1)
                .is_some_and(|t| t.token == Token::Symbol("(")) =>
            {
                self.call(name)
            }
            path => match Path::parse(path) {
                Some(path) => self.leaf(Node::Path(path)),
                None => Err(self.unexpected("a name such as `order.status`")),
            },
        }
    }

    fn call(&mut self, name: &str) -> Result<Node, ExpressionError> {
        self.next += 2;
        let mut arguments = self.list(")")?;
        if name == "matches" {
            return match (arguments.pop(), arguments.pop(), arguments.is_empty()) {
                (Some(Node::Value(Value::String(pattern))), Some(text), true) => {
                    self.patterns += 1;
                    if self.patterns > PATTERNS_MAX {
                        return Err(ExpressionError::TooLarge);
                    }
                    let regex = compile_regex(&pattern);
                    let regex = regex.map_err(|_| function_error(PATTERN_WRONG))?;
                    self.node(Node::Matches(Box::new(text), regex))
                }
                _ => Err(function_error(
                    "`matches` takes a text and a quoted pattern",
                )),
            };
        }
        let function = Function::find(name, arguments.len()).map_err(ExpressionError::Function)?;
        self.node(Node::Call(function, arguments))
    }

    /// Parses values up to `close`, whose opening bracket is already taken.
    fn list(&mut self, close: &'static str) -> Result<Vec<Node>, ExpressionError> {
        let mut nodes = Vec::new();
        if self.peek() == Some(&Token::Symbol(close)) {
            self.next += 1;
            return Ok(nodes);
        }
        loop {
            nodes.push(self.binary(0)?);
            if self.peek() == Some(&Token::Symbol(",")) {
                self.next += 1;
            } else {
                self.expect(close)?;
                return Ok(nodes);
            }
        }
    }

    fn leaf(&mut self, node: Node) -> Result<Node, ExpressionError> {
        self.next += 1;
        self.node(node)
    }

    fn node(&mut self, node: Node) -> Result<Node, ExpressionError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            Err(ExpressionError::TooLarge)
        } else {
            Ok(node)
        }
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), ExpressionError> {
        if self.peek() == Some(&Token::Symbol(symbol)) {
            self.next += 1;
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{symbol}`")))
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|lexed| &lexed.token)
    }

    fn peek_operator(&self) -> Option<Operator> {
        Some(match self.peek()? {
            Token::Word(word) => match word.as_str() {
                "or" => Operator::Or,
                "and" => Operator::And,
                "in" => Operator::In,
                "contains" => Operator::Contains,
                _ => return None,
            },
            Token::Symbol(symbol) => match *symbol {
                "==" => Operator::Equal,
                "!=" => Operator::NotEqual,
                "<" => Operator::Less,
                "<=" => Operator::LessOrEqual,
                ">" => Operator::Greater,
                ">=" => Operator::GreaterOrEqual,
                "+" => Operator::Add,
                "-" => Operator::Subtract,
                "*" => Operator::Multiply,
                "/" => Operator::Divide,
                "%" => Operator::Remainder,
                _ => return None,
            },
            Token::Number(_) | Token::Text(_) => return None,
        })
    }

    fn unexpected(&self, wanted: &str) -> ExpressionError {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(Token::Number(number)) => format!("`{number}`"),
            Some(Token::Text(_)) => "a text".to_owned(),
            Some(Token::Word(word)) => format!("`{}`", crate::limits::cut_bytes(word, 80)),
            Some(Token::Symbol(symbol)) => format!("`{symbol}`"),
        };
        let last = self.tokens.last().map_or(1, |lexed| lexed.at + 1);
        let at = self.tokens.get(self.next).map_or(last, |lexed| lexed.at);
        ExpressionError::Unexpected {
            at,
            wanted: format!("expected {wanted}"),
            found,
        }
    }
}

const COMPARISON: u8 = 3;
const UNARY: u8 = 6;

fn binding(operator: Operator) -> u8 {
    match operator {
        Operator::Or => 1,
        Operator::And => 2,
        Operator::Equal
        | Operator::NotEqual
        | Operator::Less
        | Operator::LessOrEqual
        | Operator::Greater
        | Operator::GreaterOrEqual
        | Operator::In
        | Operator::Contains => COMPARISON,
        Operator::Add | Operator::Subtract => 4,
        Operator::Multiply | Operator::Divide | Operator::Remainder => 5,
    }
}

fn function_error(text: &str) -> ExpressionError {
    ExpressionError::Function(text.to_owned())
}
