use metron_metrics::interpolated;
use metron_trace::Calibration;

use crate::columns::columns;
use crate::units::milliseconds;

/// A calibration as text: what was measured, and the curve through it.
pub fn calibration_text(name: &str, calibration: &Calibration) -> String {
    let prefill = &calibration.prefill;
    let mut lengths: Vec<u32> = prefill.points.iter().map(|(tokens, _)| *tokens).collect();
    lengths.dedup();
    let mut rows =
        vec![["isolated prefill", "median, ms", "range, ms", "fitted, ms"].map(ToOwned::to_owned)];
    for length in lengths {
        let mut times: Vec<f64> = prefill
            .points
            .iter()
            .filter(|(tokens, _)| *tokens == length)
            .map(|(_, time)| time.as_secs_f64())
            .collect();
        times.sort_unstable_by(f64::total_cmp);
        rows.push([
            format!("{length} tokens"),
            interpolated(&times, 0.5).map_or_else(|| "-".to_owned(), milliseconds),
            format!("{} to {}", milliseconds(times[0]), milliseconds(times[times.len() - 1])),
            milliseconds(prefill.curve.predict(length).as_secs_f64()),
        ]);
    }
    let mut decode =
        vec![["isolated decode", "median step, ms", "tokens/s"].map(ToOwned::to_owned)];
    for point in &calibration.decode {
        let step = point.step_time.as_secs_f64();
        decode.push([
            format!("batch {} at {} tokens of context", point.batch, point.context),
            milliseconds(step),
            format!("{:.0}", f64::from(point.batch) / step),
        ]);
    }
    format!(
        "{name}\n\n{}residual of the fit: {:.1} %\n\n{}",
        columns(&rows),
        prefill.relative_residual * 100.0,
        columns(&decode)
    )
}
