//! Parameter groups: the learning rate and the weight decay that follow from a parameter's place in the model.

use crate::config::recipe::{OptimizerKind, Recipe};
use crate::nn::Params;

/// How one parameter is updated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Its share of the learning rate.
    pub rate: f64,
    /// AdamW subtracts `learn_rate * weight_decay * value`; Adam adds `weight_decay * value` to the gradient.
    pub weight_decay: f64,
}

/// The group of a parameter at `depth` (0 for the embeddings) of a model whose head is at `head`.
///
/// Layer-wise decay is BEiT's (Bao et al. 2021, `optim_factory.py` of microsoft/unilm): the head has the full rate, each
/// layer below it `layer-decay` times the rate of the one above. Biases and norms are what has one dimension.
pub fn group(recipe: &Recipe, depth: usize, head: usize, dimensions: usize) -> Group {
    let default_decay = match recipe.optimizer {
        OptimizerKind::Adamw => 0.01,
        OptimizerKind::Adam => 0.0,
    };
    let spared = recipe.no_decay_bias_norm && dimensions == 1;
    Group {
        rate: recipe.layer_decay.powi((head - depth) as i32),
        weight_decay: if spared { 0.0 } else { recipe.weight_decay.unwrap_or(default_decay) },
    }
}

/// The group of each parameter, in order.
pub fn groups(recipe: &Recipe, params: &Params) -> Vec<Group> {
    params.iter().map(|entry| group(recipe, entry.depth, params.depth(), entry.var.rank())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_fall_towards_the_embeddings_and_decay_spares_biases_on_request() {
        let plain = Recipe::default();
        assert_eq!(group(&plain, 0, 4, 1), Group { rate: 1.0, weight_decay: 0.01 });
        let recipe = Recipe {
            optimizer: OptimizerKind::Adam,
            weight_decay: Some(0.1),
            layer_decay: 0.5,
            no_decay_bias_norm: true,
            ..plain
        };
        assert_eq!(group(&recipe, 4, 4, 2), Group { rate: 1.0, weight_decay: 0.1 });
        assert_eq!(group(&recipe, 3, 4, 1), Group { rate: 0.5, weight_decay: 0.0 });
        assert_eq!(group(&recipe, 0, 4, 2), Group { rate: 0.0625, weight_decay: 0.1 });
        assert_eq!(group(&Recipe { weight_decay: None, ..recipe }, 0, 4, 2).weight_decay, 0.0);
    }
}
