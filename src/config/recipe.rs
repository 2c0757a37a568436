//! How a student is trained: head, optimizer, schedule, loss, target and what is watched. The defaults are the
//! original's.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::require;
use crate::error::{Error, Result};
use crate::nn::Init;

/// The keys of a configuration that say how to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Recipe {
    /// How gradients become updates.
    pub optimizer: OptimizerKind,
    /// The learning rate that the schedule starts from, after the warm-up.
    pub learn_rate: f64,
    /// torch's defaults if not given: 0.01 for AdamW, 0 for Adam.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Decay rates of Adam's two moment estimates.
    pub betas: [f64; 2],
    /// No weight decay for biases and norms.
    pub no_decay_bias_norm: bool,
    /// The course of the learning rate after the warm-up.
    pub schedule: Schedule,
    /// Steps in which the learning rate rises from 0.
    pub warmup_steps: usize,
    /// The learning rate of each layer as a share of the one above it; 1 for all the same.
    pub layer_decay: f64,
    /// The gradient is clipped to this norm, over all parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_clip: Option<f64>,
    /// The embeddings and this many of the first layers are not trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze_layers: Option<usize>,
    /// A layer norm after the projection.
    pub final_norm: bool,
    /// A bias in the projection.
    pub projection_bias: bool,
    /// The initial values of a new projection.
    pub init: Init,
    /// Keeps an exponential moving average of the weights, with this decay; the average is validated and tested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// What is minimised.
    pub loss: Loss,
    /// The loss `clip` divides its cosines by this.
    pub temperature: f64,
    /// Where outputs and targets are compared.
    pub target: Space,
    /// The figure that decides which epoch is the best and when to stop.
    pub monitor: Monitor,
    /// A data folder with `xtd10/` and `mscoco/`, for `val/recall@1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<PathBuf>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            optimizer: OptimizerKind::Adamw,
            learn_rate: 5e-4,
            weight_decay: None,
            betas: [0.9, 0.999],
            no_decay_bias_norm: false,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            layer_decay: 1.0,
            grad_clip: None,
            freeze_layers: None,
            final_norm: false,
            projection_bias: false,
            init: Init::Clip,
            ema: None,
            loss: Loss(vec![(1.0, LossTerm::Mse)]),
            temperature: 0.07,
            target: Space::Hidden,
            monitor: Monitor::TrainLoss,
            probe: None,
        }
    }
}

impl Recipe {
    /// Whether `val/recall@1` is measured.
    pub fn measures_recall(&self) -> bool {
        self.probe.is_some() || self.monitor == Monitor::ValRecall
    }

    /// A value for each key that has none by default.
    pub(super) fn example() -> Self {
        Self {
            weight_decay: Some(0.01),
            grad_clip: Some(1.0),
            freeze_layers: Some(6),
            ema: Some(0.999),
            probe: Some("data".into()),
            ..Self::default()
        }
    }

    /// Refuses values with which no run can work.
    pub(super) fn validate(&self) -> Result<()> {
        require(self.learn_rate.is_finite() && self.learn_rate > 0.0, "learn-rate", self.learn_rate, || {
            "it must be a positive number, such as 5e-4".into()
        })?;
        let decay = self.weight_decay.unwrap_or(0.0);
        require(decay.is_finite() && decay >= 0.0, "weight-decay", decay, || "it must be 0 or more".into())?;
        let share = |x: f64| (0.0..1.0).contains(&x);
        let [first, second] = self.betas;
        require(share(first) && share(second), "betas", format!("{first},{second}"), || {
            "both must be 0 or more and less than 1, such as 0.9,0.999".into()
        })?;
        require(self.layer_decay > 0.0 && self.layer_decay <= 1.0, "layer-decay", self.layer_decay, || {
            "it must be more than 0 and at most 1 (which gives every layer the same learning rate)".into()
        })?;
        for (key, value) in [("grad-clip", self.grad_clip.unwrap_or(1.0)), ("temperature", self.temperature)] {
            require(value.is_finite() && value > 0.0, key, value, || "it must be a positive number".into())?;
        }
        let ema = self.ema.unwrap_or(0.0);
        // Beyond, what a step adds to an average of f32 numbers is rounded away.
        require((0.0..=0.999_999).contains(&ema), "ema", ema, || "it must be 0 to 0.999999, such as 0.999".into())
    }
}

/// The rule by which a gradient becomes an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// Weight decay apart from the gradient.
    Adamw,
    /// Weight decay, if any, as part of the gradient.
    Adam,
}

/// The course of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The same to the end.
    Constant,
    /// Straight down to 0 at the last step.
    Linear,
    /// Down to 0 along half a cosine.
    Cosine,
}

/// Where outputs and targets are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// Before the teacher's text projection.
    Hidden,
    /// After it.
    Projected,
    /// After it, with length 1.
    ProjectedNormalized,
}

/// The figure that decides which epoch is the best and when to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Monitor {
    /// The mean training loss of the epoch.
    #[serde(rename = "train/loss")]
    TrainLoss,
    /// The loss of the validation pairs at its end.
    #[serde(rename = "val/loss")]
    ValLoss,
    /// Recall@1 of the probe at its end.
    #[serde(rename = "val/recall@1")]
    ValRecall,
}

impl Monitor {
    /// Its name in metrics.csv.
    pub fn name(self) -> &'static str {
        match self {
            Self::TrainLoss => "train/loss",
            Self::ValLoss => "val/loss",
            Self::ValRecall => "val/recall@1",
        }
    }

    /// Whether a higher value is better.
    pub fn rises(self) -> bool {
        self == Self::ValRecall
    }
}

/// A weighted sum of losses, written `mse+0.1*clip`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Loss(pub Vec<(f64, LossTerm)>);

/// One loss between outputs and targets; `train::loss` has the formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossTerm {
    /// Mean squared error, the original's.
    Mse,
    /// 1 minus the cosine of each output with its target.
    Cosine,
    /// Mean squared error between the cosines of outputs and those of targets among each other.
    Similarity,
    /// CLIP's contrastive loss: cross-entropy of the cosines of each output with all targets of the batch, and back.
    Clip,
}

impl LossTerm {
    const ALL: &[(&str, Self)] =
        &[("mse", Self::Mse), ("cosine", Self::Cosine), ("similarity", Self::Similarity), ("clip", Self::Clip)];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, term)| *term == self).map_or("", |(name, _)| name)
    }
}

impl Loss {
    /// Whether the loss of a batch is more than the sum of its samples' losses.
    pub fn needs_whole_batch(&self) -> bool {
        self.0.iter().any(|(_, term)| matches!(term, LossTerm::Similarity | LossTerm::Clip))
    }
}

impl FromStr for Loss {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // (The configuration names the key, and serde keeps no hint.)
        let names: Vec<_> = LossTerm::ALL.iter().map(|(name, _)| *name).collect();
        let wrong = |what: String| {
            Error::usage(format!("{what}; a loss is {} or a sum such as mse+0.1*clip", names.join(", ")))
        };
        let mut terms: Vec<(f64, LossTerm)> = Vec::new();
        for part in text.split('+') {
            let (weight, name) = part.split_once('*').unwrap_or(("1", part));
            let (weight, name) = (weight.trim(), name.trim());
            let &(_, term) = LossTerm::ALL
                .iter()
                .find(|(known, _)| *known == name)
                .ok_or_else(|| wrong(format!("unknown loss `{name}`")))?;
            let weight = weight.parse().ok().filter(|w: &f64| w.is_finite() && *w > 0.0);
            let weight = weight.ok_or_else(|| wrong(format!("the weight in `{part}` is not a positive number")))?;
            if terms.iter().any(|(_, other)| *other == term) {
                return Err(wrong(format!("`{name}` stands twice in `{text}`")));
            }
            terms.push((weight, term));
        }
        Ok(Self(terms))
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, (weight, term)) in self.0.iter().enumerate() {
            let plus = if i == 0 { "" } else { "+" };
            match *weight == 1.0 {
                true => write!(f, "{plus}{}", term.name())?,
                false => write!(f, "{plus}{weight}*{}", term.name())?,
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Loss {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Loss> for String {
    fn from(loss: Loss) -> Self {
        loss.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_read_and_written() {
        for (text, terms) in [
            ("mse", vec![(1.0, LossTerm::Mse)]),
            ("mse+cosine", vec![(1.0, LossTerm::Mse), (1.0, LossTerm::Cosine)]),
            ("0.5*similarity+2*clip", vec![(0.5, LossTerm::Similarity), (2.0, LossTerm::Clip)]),
        ] {
            let loss: Loss = text.parse().unwrap();
            assert_eq!((loss.to_string(), &loss.0), (text.to_owned(), &terms));
        }
        assert_eq!(" mse + 1e-1 * clip".parse::<Loss>().unwrap().to_string(), "mse+0.1*clip");
        for wrong in ["", "mse+", "mae", "mse*2", "-1*mse", "0*mse", "nan*mse", "mse+mse"] {
            let error = wrong.parse::<Loss>().unwrap_err();
            assert!(error.to_string().contains("such as mse+0.1*clip"), "{wrong}: {error}");
        }
    }
}
