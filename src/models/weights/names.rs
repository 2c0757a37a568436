//! How checkpoints name their tensors, and how to see through what wrappers put before the names.

use candle_nn::VarBuilder;

use super::super::kinds::Names;

/// Where the modules of one encoder layer are.
pub struct LayerPaths<'a> {
    /// The projections to queries, keys and values.
    pub qkv: [VarBuilder<'a>; 3],
    /// The projection of the heads' outputs.
    pub out: VarBuilder<'a>,
    /// The layer norm of the attention: after it (BERT) or before the feed-forward block (CLIP).
    pub norm_attention: VarBuilder<'a>,
    /// The linear layer from the states to the intermediate width.
    pub up: VarBuilder<'a>,
    /// The linear layer back.
    pub down: VarBuilder<'a>,
    /// The layer norm after the feed-forward block: this layer's (BERT) or the next one's first (CLIP).
    pub norm_mlp: VarBuilder<'a>,
}

/// The norm before the layers of the encoder at `vb`.
pub fn first_norm<'a>(names: Names, vb: &VarBuilder<'a>) -> VarBuilder<'a> {
    match names {
        Names::Bert | Names::DistilBert => vb.pp("embeddings").pp("LayerNorm"),
        Names::Clip => vb.pp("encoder").pp("layers").pp(0).pp("layer_norm1"),
    }
}

/// Layer `index` of the encoder at `vb`.
pub fn layer<'a>(names: Names, vb: &VarBuilder<'a>, index: usize) -> LayerPaths<'a> {
    match names {
        Names::Bert => {
            let layer = vb.pp("encoder").pp("layer").pp(index);
            let (attention, output) = (layer.pp("attention"), layer.pp("output"));
            LayerPaths {
                qkv: ["query", "key", "value"].map(|part| attention.pp("self").pp(part)),
                out: attention.pp("output").pp("dense"),
                norm_attention: attention.pp("output").pp("LayerNorm"),
                up: layer.pp("intermediate").pp("dense"),
                down: output.pp("dense"),
                norm_mlp: output.pp("LayerNorm"),
            }
        }
        Names::DistilBert => {
            let layer = vb.pp("transformer").pp("layer").pp(index);
            let (attention, ffn) = (layer.pp("attention"), layer.pp("ffn"));
            LayerPaths {
                qkv: ["q_lin", "k_lin", "v_lin"].map(|part| attention.pp(part)),
                out: attention.pp("out_lin"),
                norm_attention: layer.pp("sa_layer_norm"),
                up: ffn.pp("lin1"),
                down: ffn.pp("lin2"),
                norm_mlp: layer.pp("output_layer_norm"),
            }
        }
        Names::Clip => {
            let layers = vb.pp("encoder").pp("layers");
            let layer = layers.pp(index);
            let (attention, mlp) = (layer.pp("self_attn"), layer.pp("mlp"));
            LayerPaths {
                qkv: ["q_proj", "k_proj", "v_proj"].map(|part| attention.pp(part)),
                out: attention.pp("out_proj"),
                norm_attention: layer.pp("layer_norm2"),
                up: mlp.pp("fc1"),
                down: mlp.pp("fc2"),
                norm_mlp: layers.pp(index + 1).pp("layer_norm1"),
            }
        }
    }
}

/// Parts of a name that PyTorch's wrappers (data-parallel, compiled, sharded, checkpointed modules) put into it.
const WRAPPERS: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// A tensor's name without wrappers, in today's spelling: checkpoints converted from TensorFlow call a LayerNorm's
/// tensors gamma and beta.
pub(super) fn plain(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    let name = parts.join(".");
    match (name.strip_suffix("LayerNorm.gamma"), name.strip_suffix("LayerNorm.beta")) {
        (Some(at), _) => format!("{at}LayerNorm.weight"),
        (_, Some(at)) => format!("{at}LayerNorm.bias"),
        _ => name,
    }
}

/// Modules that hold an encoder in transformers' task models, in Lightning modules and in training scripts.
const HOLDERS: [&str; 13] = [
    "bert",
    "roberta",
    "xlm_roberta",
    "camembert",
    "electra",
    "ernie",
    "distilbert",
    "data2vec_text",
    "model",
    "student",
    "transformer",
    "text_model",
    "vision_model",
];

/// Whether a prefix is made of the names of known holders.
pub(super) fn is_known(prefix: &str) -> bool {
    prefix.split_terminator('.').all(|part| HOLDERS.contains(&part))
}

/// What stands before `end` in the names that end with it (empty, or up to a full stop). Of several, those made of the
/// names of known holders are preferred.
///
/// # Errors
/// The candidates, if more than one is left.
pub(super) fn prefix<'a>(names: impl Iterator<Item = &'a str>, end: &str) -> Result<Option<&'a str>, Vec<&'a str>> {
    let before = |name: &'a str| name.strip_suffix(end).filter(|before| before.is_empty() || before.ends_with('.'));
    let mut found: Vec<&str> = names.filter_map(before).collect();
    if found.len() > 1 {
        let known: Vec<&str> = found.iter().copied().filter(|prefix| is_known(prefix)).collect();
        if !known.is_empty() {
            found = known;
        }
    }
    match found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_and_old_spellings_disappear() {
        for (name, expected) in [
            ("module._orig_mod.bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
            (
                "transformer._orig_mod.encoder.layer.0.output.LayerNorm.beta",
                "transformer.encoder.layer.0.output.LayerNorm.bias",
            ),
            ("model.module.x", "model.x"),
            ("modules.x", "modules.x"),
            ("a.LayerNorm.gammas", "a.LayerNorm.gammas"),
        ] {
            assert_eq!(plain(name), expected);
        }
    }

    #[test]
    fn a_prefix_is_what_stands_before_the_encoder() {
        let find = |names: &[&'static str]| prefix(names.iter().copied(), "embeddings.word.weight");
        assert_eq!(find(&["embeddings.word.weight", "cls.weight"]), Ok(Some("")));
        assert_eq!(find(&["model.bert.embeddings.word.weight"]), Ok(Some("model.bert.")));
        assert_eq!(find(&["my_encoder.embeddings.word.weight"]), Ok(Some("my_encoder.")));
        assert_eq!(find(&["teacher.embeddings.word.weight", "bert.embeddings.word.weight"]), Ok(Some("bert.")));
        assert_eq!(find(&["my_embeddings.word.weight", "x"]), Ok(None));
        assert_eq!(
            find(&["bert.embeddings.word.weight", "model.embeddings.word.weight"]),
            Err(vec!["bert.", "model."])
        );
    }
}
