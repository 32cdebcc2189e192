//! Resource quantities: `64Mi`, `1.5G`, `250m`, `2e3` (k8s.io/apimachinery `resource.Quantity`).

/// Largest number of digits that is read; more is no quantity that anyone means.
const DIGITS_MAX: usize = 30;

/// The value times `scale`, rounded up, as Kubernetes rounds. None: not a quantity, negative, or too large.
pub fn parse(text: &str, scale: u64) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = !(whole.is_empty() && fraction.is_empty()) && number.len() <= DIGITS_MAX;
    if !is_number || fraction.contains('.') {
        return None;
    }
    let mantissa: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (numerator, denominator) = multiplier(suffix)?;
    let top = mantissa.checked_mul(numerator)?.checked_mul(u128::from(scale))?;
    let bottom = denominator.checked_mul(10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    u64::try_from(top.div_ceil(bottom)).ok()
}

/// What a suffix multiplies by, as a fraction.
fn multiplier(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1u128 << (10 * power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => Some((1_000, 1)),
        "M" => Some((1_000_000, 1)),
        "G" => Some((1_000_000_000, 1)),
        "T" => Some((1_000_000_000_000, 1)),
        "P" => Some((1_000_000_000_000_000, 1)),
        "E" => Some((1_000_000_000_000_000_000, 1)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10u128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn quantities() {
        for (text, scale, expected) in [
            ("64Mi", 1, Some(67_108_864)),
            ("1.5Gi", 1, Some(1_610_612_736)),
            ("128974848", 1, Some(128_974_848)),
            ("129e6", 1, Some(129_000_000)),
            ("129M", 1, Some(129_000_000)),
            ("250m", 1_000, Some(250)),
            ("0.1", 1_000, Some(100)),
            (".5", 1_000, Some(500)),
            ("2", 1_000, Some(2_000)),
            ("1m", 1, Some(1)),
            ("", 1, None),
            ("Mi", 1, None),
            ("1.2.3", 1, None),
            ("-1", 1, None),
            ("1Zi", 1, None),
            ("99999999999999999999E", 1, None),
        ] {
            assert_eq!(parse(text, scale), expected, "{text}");
        }
    }
}
