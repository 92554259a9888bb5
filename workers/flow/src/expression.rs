//! Expressions: typed conditions and computations that tenants write, compiled once.
//!
//! Nothing a tenant can write or a person can send makes one expensive: the source, its nesting and its
//! size are bounded when it is compiled; steps and bytes are bounded when it is evaluated. There are no
//! loops, no assignments and no user functions.

mod evaluator;
mod function;
mod lexer;
mod parser;

use super::value::{Path, Scope, is_true};
use function::Function;
use regex::{Regex, RegexBuilder};
use serde_json::Value;

/// Bytes of a source.
pub const SOURCE_BYTES_MAX: usize = 4 * 1024;
/// Levels of nesting.
pub const DEPTH_MAX: usize = 32;
/// Bytes a compiled regular expression may take.
const REGEX_BYTES_MAX: usize = 256 * 1024;
/// Regular expressions of one expression.
const PATTERNS_MAX: usize = 8;
/// Nodes of a compiled expression.
pub const NODES_MAX: usize = 512;

/// Why an expression does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// The source is larger than the limit.
    #[error("the expression is longer than {SOURCE_BYTES_MAX} bytes; split it into several")]
    TooLong,
    /// It nests deeper than the limit.
    #[error("the expression nests deeper than {DEPTH_MAX} levels; split it into several")]
    TooDeep,
    /// It has more nodes than the limit.
    #[error(
        "the expression has more than {NODES_MAX} parts or {PATTERNS_MAX} patterns; split it into several"
    )]
    TooLarge,
    /// Something else was expected at this place.
    #[error("at character {at}: {wanted}, found {found}")]
    Unexpected {
        /// Which character of the source, from 1.
        at: usize,
        /// What would be right there.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A function is unknown or wrongly used.
    #[error("{0}")]
    Function(String),
}

/// Why an evaluation has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// The operands do not fit the operator.
    #[error("`{0}` cannot be applied to {1}")]
    Types(&'static str, String),
    /// The result is not a finite number.
    #[error("the result of `{0}` is not a number")]
    NotANumber(&'static str),
    /// The budget of steps or bytes is used up.
    #[error("the expression takes too much work")]
    Budget,
}

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Expression(Node);

#[derive(Debug, Clone)]
enum Node {
    Value(Value),
    Path(Path),
    List(Vec<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
    Matches(Box<Node>, Regex),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Contains,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    fn symbol(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Contains => "contains",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }
}

impl Default for Expression {
    /// The expression that is null.
    fn default() -> Self {
        Self(Node::Value(Value::Null))
    }
}

impl Expression {
    /// Compiles a source text.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(ExpressionError::TooLong);
        }
        parser::parse(&lexer::lex(source)?).map(Self)
    }

    /// Evaluates to a value within the budget.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, EvaluationError> {
        evaluator::evaluate(&self.0, scope)
    }

    /// Evaluates to yes or no.
    pub fn holds(&self, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
        self.evaluate(scope).map(|value| is_true(&value))
    }

    /// The first segments of the paths it reads, and how many regular expressions it holds.
    pub fn contents(&self) -> (Vec<&str>, usize) {
        let mut open = vec![&self.0];
        let mut roots = Vec::new();
        let mut patterns = 0;
        while let Some(node) = open.pop() {
            match node {
                Node::Value(_) => {}
                Node::Path(path) => roots.push(path.root()),
                Node::List(nodes) | Node::Call(_, nodes) => open.extend(nodes),
                Node::Not(node) | Node::Negate(node) => open.push(node),
                Node::Matches(node, _) => {
                    patterns += 1;
                    open.push(node);
                }
                Node::Binary(_, left, right) => open.extend([left.as_ref(), right.as_ref()]),
            }
        }
        (roots, patterns)
    }
}

/// Compiles a regular expression of bounded size; matching is linear in the text.
pub fn compile_regex(source: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(source)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::{Duration, Instant};

    fn evaluate(source: &str) -> Result<Value, EvaluationError> {
        let variables = json!({
            "n": 3, "text": "Caf\u{e9} crème", "list": [1, "two", true], "count": "12", "empty": "",
            "big": "x".repeat(30_000), "order": {"status": "shipped", "items": [{"price": 2.5}]}
        });
        Expression::compile(source)
            .unwrap_or_else(|e| panic!("{source}: {e}"))
            .evaluate(&Scope {
                variables: variables.as_object().unwrap(),
                contact: &json!({"name": "Ana"}),
                message: &Value::Null,
                run: &Value::Null,
                now: &json!(0),
            })
    }

    #[test]
    fn expressions_have_the_values_one_expects() {
        for (source, wanted) in [
            ("1 + 2 * 3", json!(7)),
            ("(1 + 2) * 3", json!(9)),
            ("-2 - -3", json!(1)),
            ("7 % 4 / 2", json!(1.5)),
            ("'a' + \"b\" + 1", json!("ab1")),
            ("[1] + [2, n]", json!([1, 2, 3])),
            ("n >= 3 and n < 4", json!(true)),
            ("not n == 4", json!(true)),
            ("false or null or 'x'", json!(true)),
            ("order.items.0.price * 2", json!(5)),
            ("count + 1", json!(13)),
            ("count > 9", json!(true)),
            ("n == '3'", json!(true)),
            ("missing == null", json!(true)),
            ("text contains 'CAFE'", json!(true)),
            ("'two' in list", json!(true)),
            ("4 in list", json!(false)),
            ("order.status in ['shipped', 'paid']", json!(true)),
            ("len(text)", json!(10)),
            ("upper('a') + lower('B')", json!("Ab")),
            ("round(2.567, 2)", json!(2.57)),
            ("min(3, 1, 2) + max(3, 1)", json!(4)),
            ("if(n > 2, 'many', 1 / 0)", json!("many")),
            ("default(empty, 'none')", json!("none")),
            ("matches('AB-12', '^[A-Z]+-[0-9]+$')", json!(true)),
            ("starts_with(text, 'CAFE')", json!(true)),
            ("number('x')", json!(null)),
            ("text(1.50)", json!("1.5")),
            ("first(list) + len(list)", json!(4)),
            ("join(['a', 'b'], '-')", json!("a-b")),
            ("contact.name == 'Ana'", json!(true)),
        ] {
            assert_eq!(evaluate(source), Ok(wanted), "{source}");
        }
    }

    #[test]
    fn what_has_no_value_says_why() {
        assert_eq!(evaluate("1 / 0"), Err(EvaluationError::NotANumber("/")));
        assert_eq!(
            evaluate("1e308 * 10"),
            Err(EvaluationError::NotANumber("*"))
        );
        for source in [
            "1 - 'x'",
            "null < 1",
            "[1] < [2]",
            "-text",
            "order + 1",
            "1 contains 2",
        ] {
            assert!(
                matches!(evaluate(source), Err(EvaluationError::Types(..))),
                "{source}"
            );
        }
    }

    #[test]
    fn what_does_not_compile_says_where() {
        for source in [
            "",
            "1 +",
            "(1",
            "1)",
            "a b",
            "1 == ",
            "'open",
            "a.",
            "1 2",
            "[1,",
            "f(1)",
            "len()",
            "len(1,2)",
            "a = 1",
            "&",
            "matches(a, b)",
            "matches(a, '(')",
            "1..2",
            "not",
            "and",
            "a.b..c",
            "1 < 2 < 3",
        ] {
            assert!(Expression::compile(source).is_err(), "{source:?}");
        }
        let error = Expression::compile("n + * 2").unwrap_err().to_string();
        assert!(error.starts_with("at character 5: "), "{error}");
    }

    #[test]
    fn hostile_sources_are_refused_quickly() {
        let started = Instant::now();
        for piece in [
            "(",
            "not ",
            "-",
            "[",
            "1+",
            "a.",
            "len(",
            "'",
            "{{",
            "\u{1f600}",
            "if(1,",
            "and ",
            "1 in ",
        ] {
            for count in [100, 1_000, 100_000] {
                for tail in ["", "1"] {
                    let source = piece.repeat(count) + tail;
                    if let Ok(expression) = Expression::compile(&source) {
                        assert!(source.len() <= SOURCE_BYTES_MAX);
                        drop(expression);
                    }
                }
            }
        }
        for (open, close) in [("(", ")"), ("[", "]"), ("not (", ")"), ("len(", ")")] {
            let nest = |levels: usize| open.repeat(levels) + "1" + &close.repeat(levels);
            assert!(Expression::compile(&nest(10)).is_ok());
            assert_eq!(
                Expression::compile(&nest(200)).err(),
                Some(ExpressionError::TooDeep),
                "{open}"
            );
        }
        assert_eq!(
            Expression::compile(&("1".to_owned() + &"+1".repeat(600))).err(),
            Some(ExpressionError::TooLarge)
        );
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn growth_runs_into_the_budget() {
        let doubling = format!("{}big{}", "(".repeat(20), " + big)".repeat(20));
        assert_eq!(evaluate(&doubling), Err(EvaluationError::Budget));
        let lists = format!("[{}]", vec!["big"; 100].join(","));
        assert_eq!(evaluate(&lists), Err(EvaluationError::Budget));
        let uppers = format!("[{}]", vec!["upper(big)"; 100].join(","));
        assert_eq!(evaluate(&uppers), Err(EvaluationError::Budget));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]
        #[test]
        fn no_source_panics(
            source in "(\\(|\\)|not |and |or | in | contains |a|b\\.c|[0-9.]{1,3}|'x'|\\+|-|\\*|/|<|==|,|\\[|\\]|len\\(|\\PC){0,40}"
        ) {
            if let Ok(expression) = Expression::compile(&source) {
                let _ = expression.evaluate(&Scope {
                    variables: &Default::default(), contact: &Value::Null, message: &Value::Null,
                    run: &Value::Null, now: &Value::Null,
                });
            }
        }
    }
}
