//! Evaluates a compiled expression under one budget of steps and bytes.

use super::{EvaluationError, Node, Operator};
use crate::fold::fold;
use crate::limits::json_bytes;
use crate::value::{self, Scope, is_true, number_of, text_of};
use serde_json::Value;
use std::borrow::Cow;
use std::cmp::Ordering;

const STEPS_MAX: usize = 10_000;
const BYTES_MAX: usize = 128 * 1024;

pub(super) fn evaluate(node: &Node, scope: &Scope<'_>) -> Result<Value, EvaluationError> {
    let mut budget = Budget {
        steps: STEPS_MAX,
        bytes: BYTES_MAX,
    };
    run(node, scope, &mut budget).map(Cow::into_owned)
}

/// What is left of an evaluation's allowance.
pub(super) struct Budget {
    steps: usize,
    bytes: usize,
}

impl Budget {
    fn step(&mut self, steps: usize) -> Result<(), EvaluationError> {
        self.steps = self
            .steps
            .checked_sub(steps)
            .ok_or(EvaluationError::Budget)?;
        Ok(())
    }

    /// Charges for work that reads or makes so many bytes.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), EvaluationError> {
        self.bytes = self
            .bytes
            .checked_sub(bytes)
            .ok_or(EvaluationError::Budget)?;
        Ok(())
    }
}

/// Recursion here is as deep as the tree, which the parser bounds by its number of nodes.
fn run<'v>(
    node: &'v Node,
    scope: &Scope<'v>,
    budget: &mut Budget,
) -> Result<Cow<'v, Value>, EvaluationError> {
    budget.step(1)?;
    Ok(match node {
        Node::Value(value) => Cow::Borrowed(value),
        Node::Path(path) => Cow::Borrowed(scope.get(path)),
        Node::List(nodes) => {
            let mut list = Vec::new();
            for node in nodes {
                let value = run(node, scope, budget)?;
                budget.charge(json_bytes(value.as_ref()))?;
                list.push(value.into_owned());
            }
            Cow::Owned(Value::Array(list))
        }
        Node::Not(node) => Cow::Owned(Value::Bool(!is_true(run(node, scope, budget)?.as_ref()))),
        Node::Negate(node) => {
            let value = run(node, scope, budget)?;
            let number = number_of(&value).ok_or_else(|| types("-", &[&value]))?;
            Cow::Owned(value::number(-number))
        }
        Node::Binary(Operator::Or, left, right) => {
            let yes = is_true(run(left, scope, budget)?.as_ref())
                || is_true(run(right, scope, budget)?.as_ref());
            Cow::Owned(Value::Bool(yes))
        }
        Node::Binary(Operator::And, left, right) => {
            let yes = is_true(run(left, scope, budget)?.as_ref())
                && is_true(run(right, scope, budget)?.as_ref());
            Cow::Owned(Value::Bool(yes))
        }
        Node::Binary(operator, left, right) => {
            let left = run(left, scope, budget)?;
            let right = run(right, scope, budget)?;
            Cow::Owned(binary(*operator, &left, &right, budget)?)
        }
        Node::Matches(node, regex) => {
            let value = run(node, scope, budget)?;
            let text = text_of(&value);
            budget.charge(text.len())?;
            Cow::Owned(Value::Bool(regex.is_match(&text)))
        }
        Node::Call(super::Function::If, nodes) => match nodes.as_slice() {
            [condition, yes, no] => {
                let holds = is_true(run(condition, scope, budget)?.as_ref());
                return run(if holds { yes } else { no }, scope, budget);
            }
            _ => Cow::Owned(Value::Null),
        },
        Node::Call(function, nodes) => {
            let mut values = Vec::with_capacity(nodes.len());
            for node in nodes {
                values.push(run(node, scope, budget)?);
            }
            for value in &values {
                budget.charge(json_bytes(value.as_ref()))?;
            }
            Cow::Owned(function.call(&values)?)
        }
    })
}

fn binary(
    operator: Operator,
    left: &Value,
    right: &Value,
    budget: &mut Budget,
) -> Result<Value, EvaluationError> {
    let symbol = operator.symbol();
    let wrong = || types(symbol, &[left, right]);
    budget.charge(json_bytes(left).saturating_add(json_bytes(right)))?;
    Ok(match operator {
        Operator::Equal => Value::Bool(equal(left, right)),
        Operator::NotEqual => Value::Bool(!equal(left, right)),
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            let order = compare(left, right).ok_or_else(wrong)?;
            Value::Bool(match operator {
                Operator::Less => order == Ordering::Less,
                Operator::LessOrEqual => order != Ordering::Greater,
                Operator::Greater => order == Ordering::Greater,
                _ => order != Ordering::Less,
            })
        }
        Operator::Contains => Value::Bool(contains(left, right).ok_or_else(wrong)?),
        Operator::In => Value::Bool(contains(right, left).ok_or_else(wrong)?),
        Operator::Add => add(left, right).ok_or_else(wrong)?,
        Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Remainder => {
            let (Some(a), Some(b)) = (number_of(left), number_of(right)) else {
                return Err(wrong());
            };
            finite(
                symbol,
                match operator {
                    Operator::Subtract => a - b,
                    Operator::Multiply => a * b,
                    Operator::Divide => a / b,
                    _ => a % b,
                },
            )?
        }
        Operator::Or | Operator::And => Value::Null,
    })
}

/// Numbers add, lists follow one another, everything else joins as text; a number and a text that spells
/// one add.
fn add(left: &Value, right: &Value) -> Option<Value> {
    match (left, right) {
        (Value::Array(a), Value::Array(b)) => {
            Some(Value::Array(a.iter().chain(b).cloned().collect()))
        }
        (Value::Number(_), _) | (_, Value::Number(_)) if numbers(left, right).is_some() => {
            let (a, b) = numbers(left, right)?;
            (a + b).is_finite().then(|| value::number(a + b))
        }
        (Value::String(_), Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null)
        | (Value::Number(_) | Value::Bool(_) | Value::Null, Value::String(_)) => Some(
            Value::String(format!("{}{}", text_of(left), text_of(right))),
        ),
        _ => None,
    }
}

/// Equality by type, but a number equals the text that spells it.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(_), Value::String(_))
        | (Value::String(_), Value::Number(_))
        | (Value::Number(_), Value::Number(_)) => numbers(left, right).is_some_and(|(a, b)| a == b),
        _ => left == right,
    }
}

fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::String(a), Value::String(b)) => Some(match numbers(left, right) {
            Some((a, b)) => a.partial_cmp(&b)?,
            None => a.cmp(b),
        }),
        _ => numbers(left, right).and_then(|(a, b)| a.partial_cmp(&b)),
    }
}

/// A text contains a text without regard to case and accents; a list contains an equal element.
fn contains(whole: &Value, part: &Value) -> Option<bool> {
    match (whole, part) {
        (Value::String(whole), Value::String(_) | Value::Number(_)) => {
            Some(fold(whole).contains(&fold(&text_of(part))))
        }
        (Value::Array(list), part) => Some(list.iter().any(|element| equal(element, part))),
        (Value::Null, _) => Some(false),
        _ => None,
    }
}

fn numbers(left: &Value, right: &Value) -> Option<(f64, f64)> {
    Some((number_of(left)?, number_of(right)?))
}

/// Makes a number value, or the error of an operation that left the numbers.
pub(super) fn finite(symbol: &'static str, number: f64) -> Result<Value, EvaluationError> {
    if number.is_finite() {
        Ok(value::number(number))
    } else {
        Err(EvaluationError::NotANumber(symbol))
    }
}

/// The error of an operation on values it does not take.
pub(super) fn types(symbol: &'static str, values: &[&Value]) -> EvaluationError {
    let names: Vec<&str> = values
        .iter()
        .map(|value| match value {
            Value::Null => "null",
            Value::Bool(_) => "a yes or no",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        })
        .collect();
    EvaluationError::Types(symbol, names.join(" and "))
}
