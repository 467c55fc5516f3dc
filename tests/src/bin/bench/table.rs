//! Figures as Markdown, for the terminal and for docs/performance.md.

use std::fmt;
use std::path::Path;

use crate::plot::Plot;

/// Between these lines the document holds the figures.
const BEGIN: &str = "<!-- figures: written by `make bench` -->";
const END: &str = "<!-- end of figures -->";

/// A table of figures.
pub struct Table {
    /// What it is about.
    pub title: String,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows, each as long as `columns`.
    pub rows: Vec<Vec<String>>,
    /// A picture that stands below it.
    pub plot: Option<Plot>,
}

impl Table {
    pub fn new(title: &str, columns: &[&str]) -> Table {
        Table {
            title: title.to_owned(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            rows: Vec::new(),
            plot: None,
        }
    }
}

impl fmt::Display for Table {
    /// With columns of equal width, so that it reads well in a terminal too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = || std::iter::once(&self.columns).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| width(column).unwrap_or(0))
            .collect();
        writeln!(f, "**{}**\n", self.title)?;
        for (index, row) in all().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
            if index == 0 {
                for width in &widths {
                    write!(f, "| {} ", "-".repeat(*width))?;
                }
                writeln!(f, "|")?;
            }
        }
        match &self.plot {
            Some(plot) => writeln!(f, "\n![{}]({})", plot.about, plot.file),
            None => Ok(()),
        }
    }
}

/// How a figure stands to the number it is to reach.
pub enum Target {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

impl Target {
    /// `≥ 0.9, reached` or `≥ 0.9, **missed**`.
    pub fn verdict(&self, figure: f64) -> String {
        let (sign, target, reached) = match *self {
            Target::AtLeast(target) => ("≥", target, figure >= target),
            Target::AtMost(target) => ("≤", target, figure <= target),
        };
        let word = if reached { "reached" } else { "**missed**" };
        format!("{sign} {target}, {word}")
    }
}

/// Puts the figures between the document's two marker lines, and the plots beside it.
pub fn insert(file: &Path, figures: &str, plots: &[Plot]) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let (before, rest) = text
        .split_once(BEGIN)
        .ok_or_else(|| format!("{} has no line {BEGIN}", file.display()))?;
    let (_, after) = rest
        .split_once(END)
        .ok_or_else(|| format!("{} has no line {END}", file.display()))?;
    let text = format!("{before}{BEGIN}\n\n{figures}\n{END}{after}");
    for plot in plots {
        let picture = file.with_file_name(plot.file);
        std::fs::write(picture, plot.svg()).map_err(|error| error.to_string())?;
    }
    std::fs::write(file, text).map_err(|error| error.to_string())
}
