//! Live settings as they are written on the command line: `key=value` in, words out.

use ackline_runtime::adaptive::{Choice, RangeError};
use ackline_runtime::tuning::{Mode, PoolTuning, TenantTuning, TuningMistake};
use serde_json::Value;
use std::borrow::Cow;

const DEFAULT: &str = "default";

/// Applies changes to what is turned of a pool; all mistakes at once.
pub fn pool(mut tuning: PoolTuning, changes: &[String]) -> Result<PoolTuning, Vec<TuningMistake>> {
    each(changes, |key, value| {
        match key.split_once('.') {
            Some(("lanes", lane)) => match count(value)? {
                Some(weight) => tuning.lanes.insert(lane.to_owned(), weight),
                None => tuning.lanes.remove(lane),
            },
            _ => {
                match key {
                    "concurrency" => tuning.concurrency = count(value)?,
                    "adaptive" => tuning.adaptive = choice(value)?,
                    "tenant_in_flight_max" => tuning.tenant_in_flight_max = count(value)?,
                    "paused" => tuning.paused = flag(value)?,
                    _ => {
                        return Err(
                            "no such key of a pool; there are concurrency, adaptive, tenant_in_flight_max, lanes.<lane> and paused".into(),
                        );
                    }
                }
                None
            }
        };
        Ok(())
    })?;
    Ok(tuning)
}

/// Applies changes to what is turned of a tenant; all mistakes at once.
pub fn tenant(
    mut tuning: TenantTuning,
    changes: &[String],
) -> Result<TenantTuning, Vec<TuningMistake>> {
    each(changes, |key, value| {
        match key {
            "weight" => tuning.weight = count(value)?,
            "in_flight_max" => tuning.in_flight_max = count(value)?,
            "paused" => tuning.paused = flag(value)?,
            "mode" => {
                tuning.mode = match value {
                    DEFAULT => None,
                    "drain" => Some(Mode::Drain),
                    "discard" => {
                        return Err("discarding needs a confirmation: use `ackline discard`".into());
                    }
                    _ => return Err("expected drain or default".into()),
                }
            }
            _ => {
                return Err(
                    "no such key of a tenant; there are weight, in_flight_max, paused and mode"
                        .into(),
                );
            }
        }
        Ok(())
    })?;
    Ok(tuning)
}

/// What is turned, in one line.
pub fn words(value: &Value) -> String {
    let mut words = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) => words.extend(
                inner
                    .iter()
                    .map(|(name, value)| format!("{key}.{name}={value}")),
            ),
            Value::String(text) => words.push(format!("{key}={text}")),
            other => words.push(format!("{key}={other}")),
        }
    }
    if words.is_empty() {
        "as configured".to_owned()
    } else {
        words.join(" ")
    }
}

fn each(
    changes: &[String],
    mut apply: impl FnMut(&str, &str) -> Result<(), Cow<'static, str>>,
) -> Result<(), Vec<TuningMistake>> {
    let mut mistakes = Vec::new();
    for change in changes {
        let (key, value) = change.split_once('=').unwrap_or((change, ""));
        let applied = if value.is_empty() {
            Err("expected key=value".into())
        } else {
            apply(key, value)
        };
        if let Err(detail) = applied {
            mistakes.push(TuningMistake {
                key: key.to_owned(),
                detail: detail.into_owned(),
            });
        }
    }
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(mistakes)
    }
}

fn count(value: &str) -> Result<Option<u32>, &'static str> {
    if value == DEFAULT {
        return Ok(None);
    }
    value
        .parse()
        .map(Some)
        .map_err(|_| "expected a whole number or default")
}

fn choice(value: &str) -> Result<Option<Choice>, Cow<'static, str>> {
    if value == DEFAULT {
        return Ok(None);
    }
    value
        .parse()
        .map(Some)
        .map_err(|error: RangeError| error.to_string().into())
}

fn flag(value: &str) -> Result<bool, &'static str> {
    match value {
        "true" => Ok(true),
        "false" | DEFAULT => Ok(false),
        _ => Err("expected true, false or default"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(changes: &[&str]) -> Vec<String> {
        changes.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn keys_are_set_and_set_back() {
        let changes = texts(&[
            "concurrency=8",
            "adaptive=2..8",
            "lanes.sts=3",
            "paused=true",
        ]);
        let turned = pool(PoolTuning::default(), &changes).unwrap();
        assert_eq!(
            words(&json!(turned)),
            "concurrency=8 adaptive=2..8 lanes.sts=3 paused=true"
        );
        let off = pool(turned.clone(), &texts(&["adaptive=off"])).unwrap();
        assert_eq!(
            off,
            PoolTuning {
                adaptive: Some(Choice::Off),
                ..turned.clone()
            }
        );
        let back = texts(&[
            "concurrency=default",
            "adaptive=default",
            "lanes.sts=default",
            "paused=default",
        ]);
        assert_eq!(pool(turned, &back).unwrap(), PoolTuning::default());
        let turned = tenant(TenantTuning::default(), &texts(&["weight=5", "mode=drain"])).unwrap();
        assert_eq!(words(&json!(turned)), "weight=5 mode=drain");
        assert_eq!(words(&json!({})), "as configured");
    }

    #[test]
    fn every_mistake_is_named_by_its_key() {
        let mistakes = pool(
            PoolTuning::default(),
            &texts(&["concurrency=many", "adaptive=9..8", "weight=1", "paused"]),
        );
        let keys: Vec<String> = mistakes
            .unwrap_err()
            .into_iter()
            .map(|mistake| mistake.key)
            .collect();
        assert_eq!(keys, ["concurrency", "adaptive", "weight", "paused"]);
        let mistakes = tenant(
            TenantTuning::default(),
            &texts(&["mode=discard", "weight=-1"]),
        )
        .unwrap_err();
        assert!(
            mistakes[0].detail.contains("ackline discard") && mistakes.len() == 2,
            "{mistakes:?}"
        );
    }
}
