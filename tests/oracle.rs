//! themo's towers against candle-transformers', a second implementation that shares no code with PyTorch's golden values;
//! and the towers as candle modules.

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert;
use candle_transformers::models::clip::text_model::{Activation, ClipTextConfig};
use candle_transformers::models::clip::vision_model::ClipVisionConfig;
use candle_transformers::models::clip::{ClipConfig, ClipModel};
use themo::compute::Compute;
use themo::models::student::Head;
use themo::models::{ClipText, ClipVision, Padded, Student};
use themo::nn::{Batch, Pooling, Tokens};

mod common;

use common::golden;

/// candle's own reader of a model's weights.
fn theirs(model: &str) -> VarBuilder<'static> {
    let bytes = std::fs::read(golden(model).join("model.safetensors")).unwrap();
    VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).unwrap()
}

#[track_caller]
fn assert_close(what: &str, ours: &Tensor, theirs: &Tensor) {
    assert_eq!(ours.dims(), theirs.dims(), "{what}");
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    let distance = norm(&(ours - theirs).unwrap()) / norm(theirs);
    assert!(distance < 3e-6, "{what}: {distance:e}");
}

#[test]
fn the_students_encoder_equals_candles_bert() {
    let config: bert::Config =
        serde_json::from_slice(&std::fs::read(golden("tiny-bert/config.json")).unwrap()).unwrap();
    let oracle = bert::BertModel::load(theirs("tiny-bert"), &config).unwrap();
    let (padding, sequences) = (1u32, [vec![4u32, 20, 30, 5], vec![7], vec![9, 8, 77, 100, 3, 2]]);
    let longest = 6;
    let padded: Vec<u32> =
        sequences.iter().flat_map(|s| s.iter().copied().chain(vec![padding; longest - s.len()])).collect();
    let ids = Tensor::from_vec(padded, (3, longest), &Device::Cpu).unwrap();
    let mask = ids.ne(padding).unwrap().to_dtype(DType::F32).unwrap();
    let states = oracle.forward(&ids, &ids.zeros_like().unwrap(), Some(&mask)).unwrap();
    let wide = mask.unsqueeze(2).unwrap();
    let mean =
        (states.broadcast_mul(&wide).unwrap().sum(1).unwrap()).broadcast_div(&mask.sum_keepdim(1).unwrap()).unwrap();
    for compute in [Compute::new(Device::Cpu), Compute::plain(Device::Cpu)] {
        let head = Head::new(Pooling::Mean, 20);
        let student = Student::load(&golden("tiny-bert"), head, 3, &compute).unwrap();
        let tokens = Tokens::pack(&sequences, 0).unwrap();
        assert_close("mean of the states", &student.pooled(&tokens).unwrap(), &mean);
        let output = student.forward(Batch::plain(&tokens)).unwrap();
        let module = Padded { student, padding };
        assert_close("as a module", &module.forward(&ids).unwrap(), &output);
        let empty = Tensor::full(padding, (1, 4), &Device::Cpu).unwrap();
        assert!(module.forward(&empty).unwrap_err().to_string().contains("no token"));
    }
}

#[test]
fn both_towers_equal_candles_clip() {
    let text_config = ClipTextConfig {
        vocab_size: 90,
        embed_dim: 32,
        activation: Activation::QuickGelu,
        intermediate_size: 48,
        max_position_embeddings: 77,
        pad_with: None,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        projection_dim: 16,
    };
    let vision_config = ClipVisionConfig {
        embed_dim: 24,
        activation: Activation::QuickGelu,
        intermediate_size: 40,
        num_hidden_layers: 3,
        num_attention_heads: 3,
        projection_dim: 16,
        num_channels: 3,
        image_size: 28,
        patch_size: 7,
    };
    let config = ClipConfig { text_config, vision_config, logit_scale_init_value: 2.6592, image_size: 28 };
    let oracle = ClipModel::new(theirs("tiny-clip"), &config).unwrap();
    // The end-of-text token is the largest id; what follows it changes nothing.
    let ids = Tensor::new(&[[88u32, 3, 70, 89, 89, 89], [88, 5, 6, 7, 8, 89]], &Device::Cpu).unwrap();
    let wave: Vec<f32> = (0..2 * 3 * 28 * 28).map(|i| (i as f32 * 0.37).sin()).collect();
    let pixels = Tensor::from_vec(wave, (2, 3, 28, 28), &Device::Cpu).unwrap();
    for compute in [Compute::new(Device::Cpu), Compute::plain(Device::Cpu)] {
        let text = ClipText::load(&golden("tiny-clip"), &compute).unwrap();
        let embeds = text.project(&text.forward(&ids).unwrap()).unwrap();
        assert_close("texts", &embeds, &oracle.get_text_features(&ids).unwrap());
        let vision = ClipVision::load(&golden("tiny-clip"), &compute).unwrap();
        assert_close(
            "images",
            &Module::forward(&vision, &pixels).unwrap(),
            &oracle.get_image_features(&pixels).unwrap(),
        );
    }
}
