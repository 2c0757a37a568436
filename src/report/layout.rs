//! The rows of a comparison for a terminal, as CSV, JSON or Markdown.

use std::fmt::Write as _;

use super::compare::{Difference, Row};
use crate::error::Result;
use crate::eval::statistics::Interval;

/// The form of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    Table,
    /// A line for each figure.
    Csv,
    /// An array of rows.
    Json,
    /// A table for each task.
    Markdown,
}

/// `rows` in `format`; the models are those of the rows, and the first of each task is the reference.
pub fn render(rows: &[Row], format: Format) -> Result<String> {
    match format {
        Format::Table => Ok(table(rows)),
        Format::Csv => csv(rows),
        Format::Json => Ok(serde_json::to_string_pretty(rows)?),
        Format::Markdown => Ok(markdown(rows)),
    }
}

/// Rows of one task of one set.
fn groups(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    rows.chunk_by(|a, b| (&a.set, &a.task) == (&b.set, &b.task))
}

fn title(group: &[Row]) -> String {
    let Row { set, task, queries, .. } = &group[0];
    match task == set {
        true => format!("{set}, {queries} queries"),
        false => format!("{set}, {}, {queries} queries", task.replace('_', " ")),
    }
}

/// The figures of a row, those at k first.
fn figures(row: &Row) -> impl Iterator<Item = (&str, f64, Interval)> {
    row.figures
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?, row.ci95.get(name).unwrap_or([f64::NAN; 2]))))
}

fn cell(name: &str, value: f64, [low, high]: Interval) -> String {
    let digits = if name.ends_with("_rank") { 2 } else { 3 };
    if low.is_nan() {
        return format!("{value:.digits$}"); // of the literature, with an unknown number of queries
    }
    format!("{value:.digits$} [{low:.digits$}, {high:.digits$}]")
}

fn table(rows: &[Row]) -> String {
    let mut models: Vec<&str> = Vec::new();
    for row in rows {
        if !models.contains(&row.model.as_str()) {
            models.push(&row.model);
        }
    }
    let letter = |model: &str| {
        let place = models.iter().position(|known| *known == model).unwrap_or_default();
        char::from_u32('A' as u32 + place as u32)
            .filter(char::is_ascii_uppercase)
            .map_or(place.to_string(), String::from)
    };
    let mut lines: Vec<String> = models.iter().map(|model| format!("{}  {model}", letter(model))).collect();
    for group in groups(rows) {
        lines.push(format!("\n{}", title(group)));
        for part in [0, 3] {
            let names: Vec<&str> = figures(&group[0]).map(|(name, ..)| name).skip(part).take(3).collect();
            if names.is_empty() {
                continue;
            }
            lines.push(
                names.iter().fold("   ".to_owned(), |line, name| format!("{line}{name:<24} ")).trim_end().to_owned(),
            );
            for row in group {
                let cells = figures(row).skip(part).take(3).map(|(name, value, interval)| cell(name, value, interval));
                let cells = cells.fold(String::new(), |line, cell| format!("{line}{cell:<24} "));
                lines.push(format!("{:<3}{}", letter(&row.model), cells.trim_end()));
            }
        }
        for row in &group[1..] {
            let (first, this) = (letter(&group[0].model), letter(&row.model));
            for (name, difference) in row.first_less_this.iter().flatten() {
                lines.push(format!("   {}", sentence(&first, &this, name, difference)));
            }
            lines.extend(row.notes.iter().map(|note| format!("   {this}: {note}")));
        }
    }
    lines.push("\nIntervals are 95%, bootstrapped; p is of McNemar's exact test.".to_owned());
    lines.join("\n")
}

/// `A is better than B in recall@1 by 2.1 points [0.4, 3.8], p = 0.016`.
fn sentence(first: &str, this: &str, name: &str, difference: &Difference) -> String {
    let Difference { value, ci95: [low, high], p_value } = difference;
    // A lower rank is the better one; shares and MRR are told in points.
    let (sign, scale, unit, digits) =
        if name.ends_with("_rank") { (-1.0, 1.0, "", 2) } else { (1.0, 100.0, " points", 1) };
    let p = p_value.map_or(String::new(), |p| if p < 0.001 { ", p < 0.001".into() } else { format!(", p = {p:.3}") });
    let is_clear = *low > 0.0 || *high < 0.0;
    let (better, worse, side) = if value * sign >= 0.0 { (first, this, sign) } else { (this, first, -sign) };
    let scaled = |x: f64| {
        let x = x * side * scale;
        if x == 0.0 { 0.0 } else { x } // no -0.0
    };
    let (low, high) = if side > 0.0 { (scaled(*low), scaled(*high)) } else { (scaled(*high), scaled(*low)) };
    let by = format!("{:.digits$}{unit} [{low:.digits$}, {high:.digits$}]{p}", scaled(*value));
    match is_clear {
        true => format!("{better} is better than {worse} in {name} by {by}"),
        false => format!("{better} and {worse} do not differ clearly in {name}: {by}"),
    }
}

fn csv(rows: &[Row]) -> Result<String> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    let failed = |e: ::csv::Error| crate::error::Error::new(e.to_string());
    let columns =
        "set task model queries figure value low high first_less_this difference_low difference_high p_value notes";
    writer.write_record(columns.split(' ')).map_err(failed)?;
    for row in rows {
        for (name, value, [low, high]) in figures(row) {
            let difference =
                row.first_less_this.iter().flatten().find(|(own, _)| own == name).map(|(_, difference)| difference);
            let number = |x: Option<f64>| x.filter(|x| !x.is_nan()).map_or(String::new(), |x| x.to_string());
            let record = [
                row.set.clone(),
                row.task.clone(),
                row.model.clone(),
                row.queries.to_string(),
                name.to_owned(),
                value.to_string(),
                number(Some(low)),
                number(Some(high)),
                number(difference.map(|d| d.value)),
                number(difference.map(|d| d.ci95[0])),
                number(difference.map(|d| d.ci95[1])),
                number(difference.and_then(|d| d.p_value)),
                row.notes.join("; "),
            ];
            writer.write_record(record).map_err(failed)?;
        }
    }
    let bytes = writer.into_inner().map_err(|e| crate::error::Error::new(e.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

fn markdown(rows: &[Row]) -> String {
    let mut text = String::new();
    for group in groups(rows) {
        let names: Vec<&str> = figures(&group[0]).map(|(name, ..)| name).collect();
        let _ = writeln!(text, "**{}**\n\n| model | {} | |", title(group), names.join(" | "));
        let _ = writeln!(text, "|---|{}---|", "---|".repeat(names.len()));
        for row in group {
            let cells: Vec<String> = figures(row).map(|(name, value, interval)| cell(name, value, interval)).collect();
            let against = |(name, difference): &(String, Difference)| sentence("the first", "this", name, difference);
            let differences =
                row.first_less_this.iter().flatten().filter(|(name, _)| name.ends_with("@1")).map(against);
            let notes: Vec<String> = differences.chain(row.notes.iter().cloned()).collect();
            let escape = |text: &str| text.replace('|', "\\|");
            let _ =
                writeln!(text, "| {} | {} | {} |", escape(&row.model), cells.join(" | "), escape(&notes.join("; ")));
        }
        text.push('\n');
    }
    text + "Intervals are 95%, bootstrapped; p is of McNemar's exact test."
}
