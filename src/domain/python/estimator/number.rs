//! Numbers of a Python source as JSON numbers, in the spelling of the source where JSON knows it.

use ruff_python_ast::{Number, Operator};
use serde_json::Value;

/// The JSON number for a literal; none for one that JSON does not have.
pub(super) fn of(number: &Number, spelling: &str) -> Option<Value> {
    match number {
        Number::Int(int) => match int.as_i64() {
            Some(int) => Some(Value::from(int)),
            None => parsed(&spelling.replace('_', "")),
        },
        Number::Float(float) if float.is_finite() => parsed(&float_spelling(spelling)),
        Number::Float(_) | Number::Complex { .. } => None,
    }
}

/// JSON wants digits on both sides of the point, and no zeros in front.
fn float_spelling(spelling: &str) -> String {
    let plain = spelling.replace('_', "");
    let (mantissa, exponent) = match plain.find(['e', 'E']) {
        Some(at) => plain.split_at(at),
        None => (plain.as_str(), ""),
    };
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    match fraction {
        Some("") => format!("{whole}.0{exponent}"),
        Some(fraction) => format!("{whole}.{fraction}{exponent}"),
        None => format!("{whole}{exponent}"),
    }
}

fn parsed(text: &str) -> Option<Value> {
    text.parse::<serde_json::Number>().ok().map(Value::Number)
}

/// A number with the other sign.
pub(super) fn negated(value: &Value) -> Option<Value> {
    let text = value.as_number()?.to_string();
    match text.strip_prefix('-') {
        Some(positive) => parsed(positive),
        None if text == "0" => Some(Value::from(0)),
        None => parsed(&format!("-{text}")),
    }
}

/// Two integers put together; none where Python would leave 64 bits or raise.
pub(super) fn calculated(left: i64, operator: Operator, right: i64) -> Option<i64> {
    match operator {
        Operator::Add => left.checked_add(right),
        Operator::Sub => left.checked_sub(right),
        Operator::Mult => left.checked_mul(right),
        Operator::FloorDiv => {
            let quotient = left.checked_div(right)?;
            let down = left % right != 0 && ((left < 0) != (right < 0));
            Some(if down { quotient - 1 } else { quotient })
        }
        Operator::Mod => {
            let rest = left.checked_rem(right)?;
            Some(if rest != 0 && ((rest < 0) != (right < 0)) { rest + right } else { rest })
        }
        Operator::Pow => left.checked_pow(u32::try_from(right).ok()?),
        Operator::LShift if left >= 0 => {
            left.checked_mul(1_i64.checked_shl(u32::try_from(right).ok()?).filter(|power| *power > 0)?)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_keep_their_spelling_where_json_has_it() {
        for (python, json) in [
            ("0.10", "0.10"),
            ("1e-3", "1e-3"),
            ("1.", "1.0"),
            (".5", "0.5"),
            ("1_0.2_5E+3", "10.25e+3"),
            ("00.5", "0.5"),
            ("1.e5", "1.0e+5"),
        ] {
            assert_eq!(parsed(&float_spelling(python)).unwrap().to_string(), json, "{python}");
        }
        assert_eq!(negated(&parsed("0.10").unwrap()).unwrap().to_string(), "-0.10");
        assert_eq!(negated(&negated(&Value::from(5)).unwrap()).unwrap(), Value::from(5));
    }

    #[test]
    fn integers_are_calculated_like_in_python() {
        for (left, operator, right, result) in [
            (60, Operator::Mult, 60, Some(3600)),
            (-7, Operator::FloorDiv, 2, Some(-4)),
            (-7, Operator::Mod, 2, Some(1)),
            (7, Operator::Mod, -2, Some(-1)),
            (2, Operator::Pow, 10, Some(1024)),
            (2, Operator::Pow, 64, None),
            (2, Operator::Pow, -1, None),
            (1, Operator::LShift, 20, Some(1 << 20)),
            (1, Operator::LShift, 63, None),
            (1, Operator::FloorDiv, 0, None),
            (i64::MIN, Operator::FloorDiv, -1, None),
            (i64::MIN, Operator::Mod, -1, None),
            (i64::MAX, Operator::Add, 1, None),
            (1, Operator::Div, 2, None),
        ] {
            assert_eq!(calculated(left, operator, right), result, "{left} {operator:?} {right}");
        }
    }
}
