//! How checkpoints name their tensors, and how to see through what wrappers put before the names.

use super::kinds::Names;

/// The names of one encoder layer's modules; tensors are `NAME.weight` and `NAME.bias`.
pub struct LayerNames {
    /// The projections to queries, keys and values.
    pub qkv: [String; 3],
    /// The projection of the heads' outputs.
    pub out: String,
    /// The layer norm of the attention: after it (BERT) or before it (CLIP).
    pub norm_attention: String,
    /// The linear layer from the states to the intermediate width.
    pub up: String,
    /// The linear layer back.
    pub down: String,
    /// The layer norm of the feed-forward block: after it (BERT) or before it (CLIP).
    pub norm_mlp: String,
}

/// The layers of a text encoder with the names `names`.
pub fn encoder_layers(names: Names, layers: usize) -> impl Iterator<Item = LayerNames> {
    (0..layers).map(move |i| match names {
        Names::DistilBert => {
            let at = format!("transformer.layer.{i}");
            LayerNames {
                qkv: ["q_lin", "k_lin", "v_lin"].map(|part| format!("{at}.attention.{part}")),
                out: format!("{at}.attention.out_lin"),
                norm_attention: format!("{at}.sa_layer_norm"),
                up: format!("{at}.ffn.lin1"),
                down: format!("{at}.ffn.lin2"),
                norm_mlp: format!("{at}.output_layer_norm"),
            }
        }
        Names::Bert | Names::Clip => {
            let at = format!("encoder.layer.{i}");
            LayerNames {
                qkv: ["query", "key", "value"].map(|part| format!("{at}.attention.self.{part}")),
                out: format!("{at}.attention.output.dense"),
                norm_attention: format!("{at}.attention.output.LayerNorm"),
                up: format!("{at}.intermediate.dense"),
                down: format!("{at}.output.dense"),
                norm_mlp: format!("{at}.output.LayerNorm"),
            }
        }
    })
}

/// A tower of transformers' CLIPModel: what follows a layer's feed-forward block is the next layer's first norm, or
/// `final_norm`.
pub fn clip_layers(layers: usize, final_norm: &str) -> impl Iterator<Item = LayerNames> {
    (0..layers).map(move |i| {
        let at = format!("encoder.layers.{i}");
        LayerNames {
            qkv: ["q_proj", "k_proj", "v_proj"].map(|part| format!("{at}.self_attn.{part}")),
            out: format!("{at}.self_attn.out_proj"),
            norm_attention: format!("{at}.layer_norm2"),
            up: format!("{at}.mlp.fc1"),
            down: format!("{at}.mlp.fc2"),
            norm_mlp: match i + 1 < layers {
                true => format!("encoder.layers.{}.layer_norm1", i + 1),
                false => final_norm.to_owned(),
            },
        }
    })
}

/// Parts of a name that PyTorch's wrappers (data-parallel, compiled, sharded, checkpointed modules) put into it.
const WRAPPERS: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// The name a tensor has without wrappers and today: checkpoints converted from TensorFlow call a LayerNorm's tensors
/// gamma and beta.
pub(super) fn plain(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    let name = parts.join(".");
    match (name.strip_suffix("LayerNorm.gamma"), name.strip_suffix("LayerNorm.beta")) {
        (Some(at), _) => format!("{at}LayerNorm.weight"),
        (_, Some(at)) => format!("{at}LayerNorm.bias"),
        _ => name,
    }
}

/// Modules that hold an encoder, in transformers' task models, in Lightning's and in training scripts.
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
