//! Lists the runs in a folder of logs, newest first.

use std::path::Path;

use serde_json::{Value, json};

use super::RunDir;
use super::checkpoint::{find_best, find_last, read_state};
use super::status::Status;
use crate::clock::now;
use crate::error::{Result, ResultExt};
use crate::record::metrics::last_row;

/// What the list shows of a run.
struct Row {
    run: String,
    status: Status,
    /// The monitored metric, once an epoch has ended.
    monitor: Option<String>,
    best: Option<f64>,
    epochs: usize,
    steps: usize,
    training_secs: f64,
    /// Recall@1 of text to image and zero-shot accuracy@1, where `themo test` measured them.
    scores: [Option<f64>; 2],
}

/// The runs in `logs` and up to two levels below it, as a table or as JSON.
pub fn list(logs: &Path, json: bool) -> Result<String> {
    let runs = RunDir::find_all(logs)
        .context(|| format!("cannot list the runs in {}", logs.display()))
        .hint(|| "give the folder that --log-dir named; `themo train` makes it")?;
    let mut rows: Vec<Row> = runs.iter().map(look_at).collect();
    rows.sort_by(|a, b| b.status.started.cmp(&a.status.started).then_with(|| b.run.cmp(&a.run)));
    if json {
        return Ok(serde_json::to_string_pretty(&rows.iter().map(Row::to_json).collect::<Vec<_>>())?);
    }
    if rows.is_empty() {
        return Ok(format!("no runs in {}", logs.display()));
    }
    let width = rows.iter().map(|row| row.run.chars().count()).max().unwrap_or(0).max(3);
    let mut lines = vec![format!(
        "{:width$}  {:11}  {:>22}  {:>6}  {:>6}  {:>6}  {:>8}  {:>7}  {:>8}",
        "run", "state", "best", "R@1", "A@1", "epochs", "steps", "time", "started"
    )];
    lines.extend(rows.iter().map(|row| row.line(width)));
    Ok(lines.join("\n"))
}

fn look_at(run: &RunDir) -> Row {
    let state = find_last(&run.checkpoints()).and_then(|folder| read_state(&folder).ok()).unwrap_or_default();
    // (Where --max-steps ended the run within an epoch, `last` has the state before the end of that epoch.)
    let best = find_best(&run.checkpoints()).ok().and_then(|folder| read_state(&folder).ok()).and_then(|s| s.measured);
    let (mut epochs, mut steps) = (state.epochs(), state.steps);
    // A run is further than its last checkpoint.
    if let Some((epoch, step)) = last_row(&run.metrics()).filter(|(_, step)| *step > steps) {
        (epochs, steps) = (epoch + 1, step);
    }
    Row {
        run: name(run.path()),
        status: Status::of(run),
        best: best.as_ref().map(|best| best.value),
        monitor: best.map(|best| best.monitor),
        epochs,
        steps,
        training_secs: state.training_secs,
        scores: scores(&run.eval()),
    }
}

/// The main scores in a folder of results.
fn scores(eval: &Path) -> [Option<f64>; 2] {
    let read = |name: &str| -> Option<Value> { serde_json::from_slice(&std::fs::read(eval.join(name)).ok()?).ok() };
    [
        read("retrieval.json").and_then(|json| json["text_to_image"]["recall@1"].as_f64()),
        read("classification.json").and_then(|json| json["accuracy@1"].as_f64()),
    ]
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

impl Row {
    fn line(&self, width: usize) -> String {
        let best = match (&self.monitor, self.best) {
            (Some(monitor), Some(best)) => format!("{monitor} {best:.4}"),
            _ => "-".to_owned(),
        };
        let [recall, accuracy] =
            self.scores.map(|score| score.map_or_else(|| "-".to_owned(), |score| format!("{score:.4}")));
        format!(
            "{:width$}  {:11}  {best:>22}  {recall:>6}  {accuracy:>6}  {:>6}  {:>8}  {:>7}  {:>8}",
            self.run,
            self.status.state,
            self.epochs,
            self.steps,
            short(self.training_secs as u64),
            short(now().as_secs().saturating_sub(self.status.started)) + " ago"
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "run": self.run,
            "state": self.status.state,
            "monitor": self.monitor,
            "best": self.best,
            "recall@1": self.scores[0],
            "accuracy@1": self.scores[1],
            "epochs": self.epochs,
            "steps": self.steps,
            "training_secs": self.training_secs,
            "started": self.status.started,
            "ended": self.status.ended,
            "error": self.status.error,
        })
    }
}

/// A length of time in its largest whole unit.
fn short(secs: u64) -> String {
    match secs {
        0..120 => format!("{secs}s"),
        120..7200 => format!("{}m", secs / 60),
        7200..172_800 => format!("{}h", secs / 3600),
        _ => format!("{}d", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn times_are_short() {
        assert_eq!([0, 119, 120, 7199, 7200, 172_800].map(short), ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }
}
