//! Numbers and times within their limits.

use std::time::Duration;

use super::super::{Delivery, units};
use super::{
    CONCURRENCY_MAX, Checked, DELAY_MAX, FIRST_DELAY_DEFAULT, LONGEST_DELAY_DEFAULT, Located, MAX_AGE_MAX,
    MEMORY_MAX_BYTES, MEMORY_MIN_BYTES, RETRIES_DEFAULT, RETRIES_MAX, RawHook, TIMEOUT_MAX, value,
};

pub(super) fn memory(text: &str) -> Checked<u64> {
    let bytes = units::bytes(text)?;
    if !(MEMORY_MIN_BYTES..=MEMORY_MAX_BYTES).contains(&bytes) {
        return Err(format!("memory of {text} is outside of 64K to 4G"));
    }
    Ok(bytes)
}

pub(super) fn timeout(text: &str) -> Checked<Duration> {
    let timeout = units::duration(text)?;
    if timeout.is_zero() || timeout > TIMEOUT_MAX {
        return Err(format!("a timeout of {text} is outside of 1ms to {}s", TIMEOUT_MAX.as_secs()));
    }
    Ok(timeout)
}

pub(super) fn delivery(raw: &RawHook) -> Located<Delivery> {
    let retries = value(raw.retries.as_ref(), |&number: &u16| retries(number))?;
    let first_delay = value(raw.retry_delay.as_ref(), |text: &str| delay("retry-delay", text))?;
    let first_delay = first_delay.unwrap_or(FIRST_DELAY_DEFAULT);
    let longest = |text: &str| match delay("retry-max-delay", text)? {
        longest if longest < first_delay => Err(format!("a retry-max-delay of {text} is shorter than retry-delay")),
        longest => Ok(longest),
    };
    let longest_delay = value(raw.retry_max_delay.as_ref(), longest)?;
    Ok(Delivery {
        retries: retries.unwrap_or(RETRIES_DEFAULT).into(),
        first_delay,
        longest_delay: longest_delay.unwrap_or(LONGEST_DELAY_DEFAULT.max(first_delay)),
        max_age: value(raw.max_age.as_ref(), max_age)?,
    })
}

fn retries(number: u16) -> Checked<u16> {
    if number > RETRIES_MAX {
        return Err(format!("{number} retries are more than {RETRIES_MAX}"));
    }
    Ok(number)
}

fn delay(name: &str, text: &str) -> Checked<Duration> {
    let delay = units::duration(text)?;
    if delay.is_zero() || delay > DELAY_MAX {
        return Err(format!("a {name} of {text} is outside of 1ms to 24h"));
    }
    Ok(delay)
}

fn max_age(text: &str) -> Checked<Duration> {
    let age = units::duration(text)?;
    if age < Duration::from_secs(1) || age > MAX_AGE_MAX {
        return Err(format!("a max-age of {text} is outside of 1s to 365d"));
    }
    Ok(age)
}

pub(super) fn concurrency(number: u16) -> Checked<usize> {
    if !(1..=CONCURRENCY_MAX).contains(&number) {
        return Err(format!("a concurrency of {number} is outside of 1 to {CONCURRENCY_MAX}"));
    }
    Ok(number.into())
}
