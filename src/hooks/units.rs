//! Sizes and durations as people write them: `128M`, `30s`.

use std::time::Duration;

/// Bytes: a number with `K`, `M` or `G` (powers of 1,024; `KiB`, `KB` and so on mean the same).
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit.to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err(format!("\"{text}\" is no size; write it like \"128M\" or \"2G\"")),
    };
    let number: u64 = number.parse().map_err(|_| format!("\"{text}\" is no size; write it like \"128M\" or \"2G\""))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("\"{text}\" is too large"))
}

/// A duration: a whole number with `ms`, `s`, `m`, `h` or `d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("\"{text}\" is no duration; write it like \"30s\" or \"5m\"")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("\"{text}\" is no duration; write it like \"30s\" or \"5m\""))?;
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(|| format!("\"{text}\" is too long"))
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(bytes("17"), Ok(17));
        assert_eq!(bytes("64K"), Ok(65_536));
        assert_eq!(bytes("128M"), Ok(134_217_728));
        assert_eq!(bytes("128 MiB"), Ok(134_217_728));
        assert_eq!(bytes("2g"), Ok(2_147_483_648));
        for wrong in ["", "M", "-1M", "1.5G", "1T", "99999999999G", "MB1"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("15m"), Ok(Duration::from_mins(15)));
        assert_eq!(duration("2d"), Ok(Duration::from_hours(48)));
        for wrong in ["", "30", "s", "1.5s", "-1s", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
