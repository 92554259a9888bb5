//! The functions an expression may call. Each works on values already charged to the budget and gives
//! one of about their size.

use super::EvaluationError;
use super::evaluator::{finite, types};
use crate::fold::fold;
use crate::limits::cut_bytes;
use crate::value::{self, is_true, join, number_of, text_of};
use serde_json::Value;
use std::borrow::Cow;
use unicode_segmentation::UnicodeSegmentation;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    If,
    Len,
    Upper,
    Lower,
    Trim,
    Number,
    Text,
    Round,
    Floor,
    Ceil,
    Abs,
    Min,
    Max,
    StartsWith,
    EndsWith,
    Default,
    First,
    Last,
    Join,
}

/// Name, function, fewest and most arguments.
const TABLE: [(&str, Function, usize, usize); 19] = [
    ("if", Function::If, 3, 3),
    ("len", Function::Len, 1, 1),
    ("upper", Function::Upper, 1, 1),
    ("lower", Function::Lower, 1, 1),
    ("trim", Function::Trim, 1, 1),
    ("number", Function::Number, 1, 1),
    ("text", Function::Text, 1, 1),
    ("round", Function::Round, 1, 2),
    ("floor", Function::Floor, 1, 1),
    ("ceil", Function::Ceil, 1, 1),
    ("abs", Function::Abs, 1, 1),
    ("min", Function::Min, 1, 16),
    ("max", Function::Max, 1, 16),
    ("starts_with", Function::StartsWith, 2, 2),
    ("ends_with", Function::EndsWith, 2, 2),
    ("default", Function::Default, 2, 2),
    ("first", Function::First, 1, 1),
    ("last", Function::Last, 1, 1),
    ("join", Function::Join, 2, 2),
];

impl Function {
    /// Finds a function that takes so many arguments.
    pub(super) fn find(name: &str, arguments: usize) -> Result<Self, String> {
        let Some((_, function, fewest, most)) = TABLE.iter().find(|row| row.0 == name) else {
            let names: Vec<&str> = TABLE.iter().map(|row| row.0).collect();
            let name = cut_bytes(name, 40);
            return Err(format!(
                "`{name}` is not a function; there are {} and matches",
                names.join(", ")
            ));
        };
        if (*fewest..=*most).contains(&arguments) {
            return Ok(*function);
        }
        let wanted = if fewest == most {
            fewest.to_string()
        } else {
            format!("{fewest} to {most}")
        };
        Err(format!(
            "`{name}` takes {wanted} arguments, not {arguments}"
        ))
    }

    /// Calls the function; a missing argument counts as null.
    pub(super) fn call(self, values: &[Cow<'_, Value>]) -> Result<Value, EvaluationError> {
        let at = |index: usize| values.get(index).map_or(&Value::Null, AsRef::as_ref);
        let (a, b) = (at(0), at(1));
        let numeric = |name: &'static str| number_of(a).ok_or_else(|| types(name, &[a]));
        Ok(match self {
            // Evaluated lazily, before its arguments.
            Self::If => Value::Null,
            Self::Len => Value::from(match a {
                Value::Array(list) => list.len(),
                Value::Object(map) => map.len(),
                other => text_of(other).graphemes(true).count(),
            }),
            Self::Upper => Value::String(text_of(a).to_uppercase()),
            Self::Lower => Value::String(text_of(a).to_lowercase()),
            Self::Trim => Value::String(text_of(a).trim().to_owned()),
            Self::Number => number_of(a).map_or(Value::Null, value::number),
            Self::Text => Value::String(text_of(a).into_owned()),
            Self::Round => {
                let digits = number_of(b).unwrap_or(0.0).clamp(0.0, 9.0);
                let scale = 10f64.powi(digits as i32);
                let number = numeric("round")?;
                let scaled = (number * scale).round() / scale;
                finite("round", if scaled.is_finite() { scaled } else { number })?
            }
            Self::Floor => finite("floor", numeric("floor")?.floor())?,
            Self::Ceil => finite("ceil", numeric("ceil")?.ceil())?,
            Self::Abs => finite("abs", numeric("abs")?.abs())?,
            Self::Min => extreme("min", values, f64::min)?,
            Self::Max => extreme("max", values, f64::max)?,
            Self::StartsWith => Value::Bool(fold(&text_of(a)).starts_with(&fold(&text_of(b)))),
            Self::EndsWith => Value::Bool(fold(&text_of(a)).ends_with(&fold(&text_of(b)))),
            Self::Default => if is_true(a) || a == &Value::Bool(false) {
                a
            } else {
                b
            }
            .clone(),
            Self::First => match a {
                Value::Array(list) => list.first().cloned().unwrap_or_default(),
                _ => return Err(types("first", &[a])),
            },
            Self::Last => match a {
                Value::Array(list) => list.last().cloned().unwrap_or_default(),
                _ => return Err(types("last", &[a])),
            },
            Self::Join => match a {
                // Separators multiply, so a long one is cut.
                Value::Array(list) => Value::String(join(list, cut_bytes(&text_of(b), 16))),
                _ => return Err(types("join", &[a])),
            },
        })
    }
}

fn extreme(
    name: &'static str,
    values: &[Cow<'_, Value>],
    pick: fn(f64, f64) -> f64,
) -> Result<Value, EvaluationError> {
    let one_list = match values {
        [only] => only.as_array(),
        _ => None,
    };
    let candidates: Vec<&Value> = match one_list {
        Some(list) => list.iter().collect(),
        None => values.iter().map(AsRef::as_ref).collect(),
    };
    let mut best = None;
    for candidate in candidates {
        let number = number_of(candidate).ok_or_else(|| types(name, &[candidate]))?;
        best = Some(best.map_or(number, |best| pick(best, number)));
    }
    Ok(best.map_or(Value::Null, value::number))
}
