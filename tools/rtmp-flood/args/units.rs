//! Numbers with their units, as people write them.

use std::time::Duration;

/// Any number that fits.
pub fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no number that fits here"))
}

/// What must not be 0.
pub fn positive(value: f64, complaint: &str) -> Result<f64, String> {
    if value > 0.0 {
        Ok(value)
    } else {
        Err(complaint.into())
    }
}

/// A number that is not negative.
fn amount(text: &str, whole: &str) -> Result<f64, String> {
    let value: f64 = text
        .parse()
        .map_err(|_| format!("{whole:?} is no number"))?;
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(format!("{whole:?} is out of range"))
    }
}

/// `50ms`, `10s`, `2m`; seconds without a unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    for (unit, seconds) in [
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("", 1.0),
    ] {
        if let Some(value) = text.strip_suffix(unit) {
            let seconds = amount(value, text)? * seconds;
            return Duration::try_from_secs_f64(seconds)
                .map_err(|_| format!("{text:?} is out of range"));
        }
    }
    unreachable!("the empty unit fits every text");
}

/// `200/s` or `200`.
pub fn rate(text: &str) -> Result<f64, String> {
    amount(text.strip_suffix("/s").unwrap_or(text), text)
}

/// `2%`, or a part of 1.
pub fn part(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%') {
        Some(percent) => Ok(amount(percent, text)? / 100.0),
        None => amount(text, text),
    }
}

/// `1M`, `500k` or `500000`.
pub fn bit_rate(text: &str) -> Result<u64, String> {
    let (value, factor) = match text.strip_suffix(['M', 'm']) {
        Some(value) => (value, 1e6),
        None => match text.strip_suffix(['k', 'K']) {
            Some(value) => (value, 1e3),
            None => (text, 1.0),
        },
    };
    Ok((amount(value, text)? * factor) as u64)
}
