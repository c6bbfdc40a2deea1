/// Rows of texts, as many in each, as aligned columns: the first to the left, and the last as long as
/// it is.
pub fn columns<R: AsRef<[String]>>(rows: &[R]) -> String {
    let rows = || rows.iter().map(AsRef::as_ref);
    let count = rows().map(<[String]>::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows().map(line).collect()
}
