//! Sizes and durations as people write them: `512M`, `1.5G`, `500ms`, `5s`.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A number of bytes. `K M G T` are powers of 1,024; a bare number is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Written")]
pub struct Size(pub u64);

/// A span of time. `ms s m h`; a bare number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Written")]
pub struct Span(pub Duration);

/// Permission bits that are taken away, octal as in umask(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Umask(pub u16);

/// TOML lets one write `memory = "512M"` and `memory = 536870912`; both are meant.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Number(u64),
}

impl Written {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

macro_rules! from_written {
    ($($name:ident),*) => {$(
        impl TryFrom<Written> for $name {
            type Error = String;
            fn try_from(written: Written) -> Result<Self, String> {
                written.text().parse()
            }
        }
    )*};
}
from_written!(Size, Span, Umask);

/// Several words: between commas, or in TOML also as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "OneOrMany")]
pub struct Words(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Words {
    fn from(written: OneOrMany) -> Self {
        match written {
            OneOrMany::One(text) => Self(split(&text)),
            OneOrMany::Many(words) => Self(words),
        }
    }
}

impl FromStr for Words {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(split(text)))
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Splits `1.5G` into 1.5 and `g`.
fn number_and_unit(text: &str) -> Option<(f64, String)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim().to_ascii_lowercase()))
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no size; write it like 512M or 2G");
        let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
        let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(wrong()),
        };
        let bytes = number * f64::from(1_u32 << 10).powi(shift / 10);
        // 2^53: above it a float is no longer exact, and no disk is that large.
        if bytes > 9_007_199_254_740_992.0 {
            return Err(wrong());
        }
        #[expect(clippy::cast_sign_loss, reason = "the text has no sign")]
        Ok(Self(bytes as u64))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no duration; write it like 500ms or 5s");
        let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
        let seconds = match unit.as_str() {
            "ms" => number / 1000.0,
            "" | "s" | "sec" => number,
            "m" | "min" => number * 60.0,
            "h" => number * 3600.0,
            "d" => number * 86_400.0,
            _ => return Err(wrong()),
        };
        Duration::try_from_secs_f64(seconds).map(Self).map_err(|_| wrong())
    }
}

impl FromStr for Umask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        u16::from_str_radix(text.trim_start_matches("0o"), 8)
            .ok()
            .filter(|bits| *bits <= 0o777)
            .map(Self)
            .ok_or_else(|| format!("'{text}' is no umask; write it in octal, like 022"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("512M", 512 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30), ("1 TB", 1 << 40)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "M", "-1", "12X", "1e9", "99999999T"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_know_their_units() {
        for (text, ms) in [("500ms", 500), ("1s", 1000), ("5", 5000), ("1.5s", 1500), ("2m", 120_000), ("0", 0)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "s", "-1s", "1 year", "99999999999999999999h"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_umask_is_octal() {
        assert_eq!("022".parse(), Ok(Umask(0o022)));
        assert!("999".parse::<Umask>().is_err());
        assert!("1777".parse::<Umask>().is_err());
    }
}
