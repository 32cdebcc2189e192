//! Columns: kubectl's tables (all rows have the same cells) and the elastic tab stops of its describer.

use std::borrow::Cow;

use probe_core::model::text::visible;

/// Blanks between columns of a table, and the least width of one (kubectl's printer settings).
const TABLE_PADDING: usize = 3;
const TABLE_WIDTH_MIN: usize = 6;

/// A table whose columns only grow, so that rows printed later stand under the head if they can.
#[derive(Debug)]
pub struct Table {
    widths: Vec<usize>,
}

impl Table {
    pub fn new() -> Table {
        Table { widths: Vec::new() }
    }

    /// The rows as lines; all rows must have the same number of cells. The last column is not padded.
    pub fn lines(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), TABLE_WIDTH_MIN);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell_text(cell).chars().count() + TABLE_PADDING);
            }
        }
        let mut out = String::new();
        for row in rows {
            for (at, (cell, width)) in row.iter().zip(&self.widths).enumerate() {
                let is_last = at + 1 == row.len();
                pad(&mut out, &cell_text(cell), if is_last { 0 } else { *width });
            }
            out.push('\n');
        }
        out
    }
}

/// Aligns tab-separated text, with what a terminal would obey made visible, as Go's `text/tabwriter` does with padding 2: the cells of a column that are
/// directly below each other share a width, the text after the last tab of a line belongs to no column.
pub fn tab_stops(text: &str) -> String {
    const PADDING: usize = 2;
    let text = visible(text);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut start = 0;
        while start < lines.len() {
            let end = (start..lines.len()).find(|at| widths[*at].len() <= column).unwrap_or(lines.len());
            let width = lines[start..end].iter().map(|cells| cells[column].chars().count() + PADDING).max();
            for row in &mut widths[start..end] {
                row[column] = width.unwrap_or(0);
            }
            start = end.max(start) + 1;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (at, cell) in cells.iter().enumerate() {
            pad(&mut out, cell, widths.get(at).copied().unwrap_or(0));
        }
        out.push('\n');
    }
    out
}

fn pad(out: &mut String, text: &str, width: usize) {
    out.push_str(text);
    out.extend(std::iter::repeat_n(' ', width.saturating_sub(text.chars().count())));
}

/// A line break would break the table: kubectl cuts the cell there. What a terminal would obey is made visible.
fn cell_text(cell: &str) -> Cow<'_, str> {
    match cell.split_once(['\n', '\r', '\x0c']) {
        Some((first, _)) => format!("{}...", visible(first)).into(),
        None => visible(cell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_grow_and_never_shrink() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let mut table = Table::new();
        let text = table.lines(&[row(["NAME", "A", "AGE"]), row(["kiada", "b\nc", "1s"])]);
        assert_eq!(text, "NAME    A      AGE\nkiada   b...   1s\n");
        assert_eq!(table.lines(&[row(["x", "y", "2s"])]), "x       y      2s\n");
    }

    #[test]
    fn a_workload_does_not_speak_to_the_terminal() {
        let mut table = Table::new();
        let cells = ["\x1b]0;title\x07".to_owned(), "a\x1b[2J\nb".to_owned()];
        assert_eq!(table.lines(&[cells.to_vec()]), "^[]0;title^G   a^[[2J...\n");
        assert_eq!(tab_stops("key:\t\x1b[31mred\nlonger:\tb\n"), "key:     ^[[31mred\nlonger:  b\n");
    }

    #[test]
    fn a_line_without_tabs_ends_the_columns() {
        let text = "a:\t1\nlonger:\t2\nHead\n  b:\t3\nx\ty\tz\nxx\tyyyy\tz\n";
        let expected = "a:       1\nlonger:  2\nHead\n  b:  3\nx     y     z\nxx    yyyy  z\n";
        assert_eq!(tab_stops(text), expected);
    }
}
