use metron_trace::{EndStatus, Timestamp, Trace};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::Doubt;

/// Batches of the window in which requests arrive, after its first quarter: a run starts empty.
const BATCHES: usize = 12;
const START_UP_PARTS: u64 = 4;

/// A run with fewer requests than this shows no trend.
const LEAST_REQUESTS: usize = 64;

/// The trend has to be above 0 at this level (one-sided): batches that are not quite independent
/// make the true level a few times greater.
const LEVEL: f64 = 0.02;

/// Requests in progress have to grow over the window by this share of their mean, ...
const LEAST_GROWTH: f64 = 0.25;
/// ... and by so many.
const LEAST_MORE: f64 = 4.0;

/// The trend of requests in progress, by batch means, while requests arrive.
pub(super) fn not_stationary(trace: &Trace) -> Option<Doubt> {
    if !trace.header.origin.knows_arrivals() || trace.requests.len() < LEAST_REQUESTS {
        return None;
    }
    let means = batch_means(&InProgress::of(trace))?;
    let trend = Trend::of(&means)?;
    let mean = means.iter().sum::<f64>() / means.len() as f64;
    let grows = trend.p < LEVEL && trend.growth > (LEAST_GROWTH * mean).max(LEAST_MORE);
    let ends = (*means.first()?, *means.last()?);
    grows.then_some(Doubt::NotStationary { from: ends.0, to: ends.1 })
}

/// How many requests are in progress from each instant on, in order of time.
struct InProgress {
    changes: Vec<(Timestamp, i64)>,
    window: (Timestamp, Timestamp),
}

impl InProgress {
    fn of(trace: &Trace) -> Self {
        let sent = trace.ends.iter().filter(|end| end.status != EndStatus::Unsent);
        let unsent = trace.ends.iter().filter(|end| end.status == EndStatus::Unsent).count();
        let arrived = trace.requests.len() - unsent.min(trace.requests.len());
        let arrivals = || trace.requests[..arrived].iter().map(|request| request.arrived_at);
        let mut changes: Vec<(Timestamp, i64)> = arrivals().map(|at| (at, 1)).collect();
        changes.extend(sent.map(|end| (end.ended_at, -1)));
        changes.sort_unstable();
        let first = arrivals().min().unwrap_or_default();
        let last = arrivals().max().unwrap_or_default();
        let start = first + (last - first) / START_UP_PARTS as u32;
        Self { changes, window: (start, last) }
    }

    /// Requests in progress, summed over the time up to each of these instants, in seconds.
    fn integral(&self, until: &[Timestamp]) -> Vec<f64> {
        let (mut now, mut count, mut sum) = (Timestamp::ZERO, 0, 0.0);
        let mut changes = self.changes.iter().peekable();
        let mut sums = Vec::with_capacity(until.len());
        for &until in until {
            while let Some((at, change)) = changes.next_if(|(at, _)| *at <= until) {
                sum += f64::from(count) * (*at - now).as_secs_f64();
                (now, count) = (*at, count + *change as i32);
            }
            sums.push(f64::from(count).mul_add((until - now).as_secs_f64(), sum));
        }
        sums
    }
}

/// The mean number in progress in each batch; `None` where no time passes in the window.
fn batch_means(in_progress: &InProgress) -> Option<Vec<f64>> {
    let (start, end) = in_progress.window;
    let length = (end - start) / BATCHES as u32;
    if length.is_zero() {
        return None;
    }
    let edges: Vec<Timestamp> = (0..=BATCHES as u32).map(|nth| start + length * nth).collect();
    let sums = in_progress.integral(&edges);
    Some(sums.windows(2).map(|pair| (pair[1] - pair[0]) / length.as_secs_f64()).collect())
}

/// The straight line through values at equal distances.
struct Trend {
    /// From the first to the last, along the line.
    growth: f64,
    /// The probability of such a rise without a trend, one-sided.
    p: f64,
}

impl Trend {
    /// By least squares; `None` where a line fits exactly, and of fewer than three values.
    fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        let middle = (n - 1.0) / 2.0;
        let mean = values.iter().sum::<f64>() / n;
        let offsets = || (0..values.len()).map(|at| at as f64 - middle);
        let spread: f64 = offsets().map(|x| x * x).sum();
        let slope = offsets().zip(values).map(|(x, y)| x * (y - mean)).sum::<f64>() / spread;
        let residual = |(x, y): (f64, &f64)| (y - mean - slope * x).powi(2);
        let squares: f64 = offsets().zip(values).map(residual).sum();
        let error = (squares / (n - 2.0) / spread).sqrt();
        let t = StudentsT::new(0.0, 1.0, n - 2.0).ok().filter(|_| error > 0.0)?;
        Some(Self { growth: slope * (n - 1.0), p: t.sf(slope / error) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_rises_beyond_its_scatter_is_a_trend() {
        let scattered = |slope: f64| -> Vec<f64> {
            (0..12).map(|at| slope * f64::from(at) + f64::from(at * 7 % 5)).collect()
        };
        let rising = Trend::of(&scattered(2.0)).expect("there is scatter");
        assert!(rising.p < 1e-6 && (rising.growth - 22.0).abs() < 4.0, "{}", rising.growth);
        assert!(Trend::of(&scattered(0.0)).expect("there is scatter").p > 0.05);
        assert!(Trend::of(&scattered(-2.0)).expect("there is scatter").p > 0.99);
        assert!(Trend::of(&[3.0; 12]).is_none(), "nothing happens");
    }
}
