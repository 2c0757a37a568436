//! The hyper-parameters of a run for other tools: `hparams.yaml` as Lightning writes it, and TensorBoard's HPARAMS tab.
//!
//! The messages are TensorBoard's `tensorboard/plugins/hparams/{api,plugin_data}.proto`.

use toml::{Table, Value};

use super::protobuf::{bytes, double, number};

/// The settings of a run, and the metric it is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Hparams {
    /// Flat; `batch-size` is `batch_size` here.
    settings: Vec<(String, Value)>,
    /// The tag of the scalar with the best value so far.
    pub best_tag: String,
}

impl Hparams {
    /// From the resolved configuration; `monitor` is the metric that decides which checkpoint is best.
    pub fn new(config: &Table, monitor: &str) -> Self {
        let settings = config.iter().map(|(key, value)| (key.replace('-', "_"), value.clone())).collect();
        Self { settings, best_tag: format!("best/{monitor}") }
    }

    /// One `key: value` a line, as PyYAML reads it.
    pub fn to_yaml(&self) -> String {
        self.settings.iter().map(|(key, value)| format!("{key}: {}\n", yaml(value))).collect()
    }

    /// An Experiment: which metric belongs to the parameters.
    pub fn experiment(&self, time: f64) -> Vec<u8> {
        let (mut out, mut name, mut metric) = (Vec::new(), Vec::new(), Vec::new());
        double(&mut out, 3, time); // time_created_secs
        for (key, value) in &self.settings {
            let mut info = Vec::new();
            bytes(&mut info, 1, key.as_bytes()); // HParamInfo.name
            let data_type = match value {
                Value::Boolean(_) => 2,
                Value::Integer(_) | Value::Float(_) => 3,
                _ => 1,
            };
            number(&mut info, 4, data_type); // HParamInfo.type
            bytes(&mut out, 4, &info); // hparam_infos
        }
        bytes(&mut name, 2, self.best_tag.as_bytes()); // MetricName.tag
        bytes(&mut metric, 1, &name); // MetricInfo.name
        bytes(&mut out, 5, &metric); // metric_infos
        out
    }

    /// A SessionStartInfo: the parameters of this run.
    pub fn session_start(&self, time: f64) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in &self.settings {
            // A google.protobuf.Value in an entry of a map.
            let (mut encoded, mut entry) = (Vec::new(), Vec::new());
            match value {
                Value::Boolean(value) => number(&mut encoded, 4, u64::from(*value)),
                Value::Integer(value) => double(&mut encoded, 2, *value as f64),
                Value::Float(value) => double(&mut encoded, 2, *value),
                Value::String(text) => bytes(&mut encoded, 3, text.as_bytes()),
                other => bytes(&mut encoded, 3, other.to_string().as_bytes()),
            }
            bytes(&mut entry, 1, key.as_bytes());
            bytes(&mut entry, 2, &encoded);
            bytes(&mut out, 1, &entry); // hparams
        }
        double(&mut out, 5, time); // start_time_secs
        out
    }
}

/// A value of YAML 1.1: there a float has a point and its exponent a sign, and JSON's strings are strings.
fn yaml(value: &Value) -> String {
    match value {
        Value::Float(value) => {
            let text = format!("{value:?}");
            match text.split_once('e') {
                None => text,
                Some((digits, exponent)) => {
                    let point = if digits.contains('.') { "" } else { ".0" };
                    let sign = if exponent.starts_with('-') { "" } else { "+" };
                    format!("{digits}{point}e{sign}{exponent}")
                }
            }
        }
        Value::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        Value::Array(values) => format!("[{}]", values.iter().map(yaml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::tests::fields;
    use super::*;

    fn hparams() -> Hparams {
        let config = "batch-size = 256\nlearn-rate = 8e-5\npairs = ['a', 'b: c']\nshuffle = true\nbig = 1e20\nx = 0.5";
        Hparams::new(&config.parse().unwrap(), "train/loss")
    }

    #[test]
    fn the_yaml_is_flat_and_floats_are_floats() {
        let expected =
            "batch_size: 256\nlearn_rate: 8.0e-5\npairs: [\"a\", \"b: c\"]\nshuffle: true\nbig: 1.0e+20\nx: 0.5\n";
        let mut lines: Vec<&str> = expected.lines().collect();
        let yaml = hparams().to_yaml();
        let mut found: Vec<&str> = yaml.lines().collect();
        lines.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, lines);
    }

    #[test]
    fn the_messages_name_the_parameters_and_the_metric() {
        let hparams = hparams();
        let infos: Vec<_> = fields(&hparams.experiment(1.0)).into_iter().filter(|(number, _)| *number == 4).collect();
        assert_eq!(infos.len(), 6);
        let metric = fields(&hparams.experiment(1.0)).pop().unwrap();
        assert_eq!((metric.0, fields(&fields(&metric.1)[0].1)[0].1.as_slice()), (5, &b"best/train/loss"[..]));
        let start = fields(&hparams.session_start(1.0));
        let entry = start.iter().map(|(_, entry)| fields(entry)).find(|entry| entry[0].1 == b"learn_rate").unwrap();
        assert_eq!(fields(&entry[1].1), [(2, 8e-5f64.to_le_bytes().to_vec())]);
        assert_eq!(start.last().unwrap(), &(5, 1f64.to_le_bytes().to_vec()));
    }
}
