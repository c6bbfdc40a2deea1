//! Numbers as people read them: three digits.

/// Three significant digits, without an exponent; whole numbers keep all of theirs, and nothing
/// goes below a millionth.
pub(crate) fn three_digits(value: f64) -> String {
    let decimals = |magnitude: f64| match magnitude {
        m if m >= 99.95 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.9995 || m == 0.0 => 2,
        m if m >= 0.09995 => 3,
        m if m >= 0.009_995 => 4,
        m if m >= 0.000_999_5 => 5,
        _ => 6,
    };
    format!("{value:.*}", decimals(value.abs()))
}

/// Seconds as milliseconds.
pub(crate) fn milliseconds(seconds: f64) -> String {
    three_digits(seconds * 1e3)
}

/// Seconds with the unit that suits them.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{} ms", milliseconds(seconds))
    } else {
        format!("{} s", three_digits(seconds))
    }
}

/// A share as a percentage; only a whole is 100, and only nothing is 0.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        p if p >= 100.0 || p == 0.0 => format!("{p:.0}"),
        p => format!("{:.1}", p.clamp(0.1, 99.9)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_also_where_they_round_up() {
        let rows = [
            (0.0, "0.00"),
            (0.001_234, "0.00123"),
            (0.012_34, "0.0123"),
            (0.999_4, "0.999"),
            (0.999_6, "1.00"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (99.96, "100"),
            (12_345.6, "12346"),
            (-1.5, "-1.50"),
        ];
        for (value, text) in rows {
            assert_eq!(three_digits(value), text);
        }
    }

    #[test]
    fn a_share_reads_as_all_or_nothing_only_if_it_is() {
        let texts = [0.0, 0.000_1, 0.5, 0.999_9, 1.0].map(percent);
        assert_eq!(texts, ["0", "0.1", "50.0", "99.9", "100"]);
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        assert_eq!([0.0451, 0.9, 4.656].map(seconds), ["45.1 ms", "900 ms", "4.66 s"]);
    }
}
