//! [`Histogram`]: how long things took, with a known error and of a fixed size.

use std::time::Duration;

/// Counts times in buckets whose width grows with the time: each power of two of
/// microseconds is cut into [`SUB_BUCKETS`] equal parts, so a quantile is at most 1.6 % above
/// what was recorded, from 1 µs to an hour, in 14 KB.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum_us: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; index(VALUE_MAX_US) + 1],
            count: 0,
            sum_us: 0,
            max_us: 0,
        }
    }
}

impl Histogram {
    /// Counts one time. More than an hour counts as an hour.
    pub fn record(&mut self, time: Duration) {
        self.record_us(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts one time in microseconds.
    pub fn record_us(&mut self, us: u64) {
        let us = us.min(VALUE_MAX_US);
        self.counts[index(us)] += 1;
        self.count += 1;
        self.sum_us += us;
        self.max_us = self.max_us.max(us);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        if self.count > 0 {
            *self = Self::default();
        }
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The time that the given part (0 to 1) of all did not exceed; `None` without any.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let rank = (part * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        let us = bucket.map_or(self.max_us, highest).min(self.max_us);
        Some(Duration::from_micros(us))
    }

    /// The longest; `None` without any.
    pub fn max(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_micros(self.max_us))
    }

    /// The mean; `None` without any.
    pub fn mean(&self) -> Option<Duration> {
        let us = self.sum_us.checked_div(self.count)?;
        Some(Duration::from_micros(us))
    }
}

/// Equal parts of one power of two.
const SUB_BUCKETS: u64 = 64;
/// One hour: what a latency of a live stream surely does not reach.
const VALUE_MAX_US: u64 = 3_600_000_000;

/// The bucket of a time.
fn index(us: u64) -> usize {
    if us < SUB_BUCKETS {
        return us as usize;
    }
    // The power of two, from 0 for the first one that is wider than its buckets.
    let shift = u64::from(us.ilog2() - SUB_BUCKETS.ilog2());
    (shift * SUB_BUCKETS + (us >> shift)) as usize
}

/// The longest time of a bucket.
fn highest(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB_BUCKETS {
        return index;
    }
    let shift = index / SUB_BUCKETS - 1;
    let lowest = (index - shift * SUB_BUCKETS) << shift;
    lowest + (1 << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(histogram: &Histogram, part: f64) -> u64 {
        histogram.quantile(part).expect("counted").as_micros() as u64
    }

    #[test]
    fn quantiles_of_short_times_are_exact() {
        let mut histogram = Histogram::default();
        (1..=50).for_each(|us| histogram.record_us(us));
        for (part, expected) in [(0.0, 1), (0.02, 1), (0.5, 25), (0.98, 49), (1.0, 50)] {
            assert_eq!(us(&histogram, part), expected, "{part}");
        }
        assert_eq!(histogram.mean(), Some(Duration::from_micros(25)));
    }

    #[test]
    fn no_bucket_is_wider_than_a_sixtieth_of_its_times() {
        for value in (0..32).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, (1 << bit) + 7]) {
            let value = value.min(VALUE_MAX_US);
            let top = highest(index(value));
            assert!(top >= value && top - value <= value / 60, "{value} {top}");
            assert_eq!(index(top), index(value), "{value}");
            assert_eq!(index(top + 1), index(value) + 1, "{value}");
        }
    }

    #[test]
    fn nothing_counted_has_no_quantile_and_too_much_is_an_hour() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        assert_eq!((histogram.max(), histogram.mean()), (None, None));
        histogram.record(Duration::MAX);
        assert_eq!(histogram.max(), Some(Duration::from_secs(3_600)));
    }

    #[test]
    fn what_is_cleared_begins_anew() {
        let mut histogram = Histogram::default();
        histogram.record_us(7);
        histogram.clear();
        assert_eq!((histogram.count(), histogram.max()), (0, None));
    }
}
