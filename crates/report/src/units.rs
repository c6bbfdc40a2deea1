//! Numbers as people read them: three digits.

/// Three significant digits, without an exponent.
pub(crate) fn three_digits(value: f64) -> String {
    let magnitude = value.abs();
    match magnitude {
        m if m >= 100.0 => format!("{value:.0}"),
        m if m >= 10.0 => format!("{value:.1}"),
        m if m >= 1.0 || m == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Seconds as milliseconds.
pub(crate) fn milliseconds(seconds: f64) -> String {
    three_digits(seconds * 1e3)
}

/// A share as a percentage.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 99.95 || percent == 0.0 {
        format!("{percent:.0}")
    } else {
        format!("{percent:.1}")
    }
}
