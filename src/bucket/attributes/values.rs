//! Numbers and times as the different writers spell them.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

pub(super) fn octal(value: &str) -> Option<u32> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| u32::from_str_radix(value, 8).ok()).flatten()
}

/// s3fs writes `st_mode` in decimal, rclone in octal with a leading zero.
pub(super) fn foreign_mode(value: &str) -> Option<u32> {
    if value.starts_with('0') { octal(value) } else { decimal(value) }
}

pub(super) fn decimal<T: FromStr>(value: &str) -> Option<T> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten()
}

/// `1595002920000000000ns`; without the suffix the unit is milliseconds, as FSx reads it.
pub(super) fn aws_time(value: &str) -> Option<SystemTime> {
    match value.strip_suffix("ns") {
        Some(nanos) => from_nanos(nanos.parse().ok()?),
        None => from_nanos(value.parse::<i128>().ok()?.checked_mul(1_000_000)?),
    }
}

/// Seconds with an optional fraction (s3fs, rclone), or RFC 3339 (rclone `--metadata`).
pub(super) fn foreign_time(value: &str) -> Option<SystemTime> {
    if let Some(nanos) = decimal_seconds(value) {
        return from_nanos(nanos);
    }
    OffsetDateTime::parse(value, &Rfc3339).ok().and_then(|time| from_nanos(time.unix_timestamp_nanos()))
}

pub(super) fn format_time(time: SystemTime) -> String {
    let nanos = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i128::try_from(since.as_nanos()),
        Err(before) => i128::try_from(before.duration().as_nanos()).map(|nanos| -nanos),
    };
    format!("{}ns", nanos.expect("seconds of a SystemTime are 64 bits, so its nanoseconds fit 128"))
}

/// `-12.5` → nanoseconds; digits below a nanosecond are cut.
fn decimal_seconds(value: &str) -> Option<i128> {
    let (sign, digits) = value.strip_prefix('-').map_or((1, value), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = decimal(whole)?;
    let nanos: i128 = format!("{fraction:0<9.9}").parse().ok()?;
    Some(sign * (i128::from(seconds) * NANOS_PER_SECOND + nanos))
}

fn from_nanos(nanos: i128) -> Option<SystemTime> {
    let size = nanos.unsigned_abs();
    let seconds = u64::try_from(size / NANOS_PER_SECOND.unsigned_abs()).ok()?;
    let duration = Duration::new(seconds, u32::try_from(size % NANOS_PER_SECOND.unsigned_abs()).ok()?);
    if nanos < 0 { UNIX_EPOCH.checked_sub(duration) } else { UNIX_EPOCH.checked_add(duration) }
}
