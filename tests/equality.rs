//! themo against PyTorch and transformers: values, every gradient, and a trajectory. `tests/golden/models.py` made the
//! golden files; it says how.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use themo::compute::Compute;
use themo::config::recipe::Recipe;
use themo::eval::TextEmbedder;
use themo::eval::towers::MclipTexts;
use themo::models::student::Head;
use themo::models::{ClipText, ClipVision, MclipConfig, Student, Tape, TokenizerFacts};
use themo::nn::{Batch, Dropout, Gradients, Params, Pooling, Tokens};
use themo::train::loss;
use themo::train::optimizer::Optimizer;

mod common;

use common::golden;

type Golden = HashMap<String, Tensor>;

fn load(name: &str) -> Golden {
    candle_core::safetensors::load(golden(name), &Device::Cpu).unwrap()
}

/// Both paths: the one for CPUs, and the one that other devices use.
fn computes() -> [Compute; 2] {
    [Compute::new(Device::Cpu), Compute::plain(Device::Cpu)]
}

fn integers(t: &Tensor) -> Vec<u32> {
    t.to_dtype(DType::U32).unwrap().to_vec1().unwrap()
}

fn sequences(ids: &Tensor, cu_seqlens: &Tensor) -> Vec<Vec<u32>> {
    let (ids, ends) = (integers(ids), integers(cu_seqlens));
    ends.windows(2).map(|w| ids[w[0] as usize..w[1] as usize].to_vec()).collect()
}

fn norm(t: &Tensor) -> f64 {
    let values: Vec<f32> = t.flatten_all().unwrap().to_vec1().unwrap();
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

#[track_caller]
fn assert_close(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let error = norm(&(got - want).unwrap()) / norm(want);
    assert!(error <= tolerance, "{what}: relative Frobenius error {error:e} > {tolerance:e}");
}

fn student(compute: &Compute, pooling: Pooling, golden_values: &Golden) -> Student {
    let student = Student::load(&golden("tiny-bert"), Head::new(pooling, 20), 0, compute).unwrap();
    let projection = student.params().iter().find(|p| p.name() == "projection.weight").unwrap();
    projection.var.set(&golden_values["projection.weight"]).unwrap();
    student
}

/// Compares every gradient under its checkpoint name; returns how many there were. A key bias has no influence in
/// exact arithmetic (softmax ignores a constant per query), so its gradient is compared with the query bias's size.
fn compare_gradients(params: &Params, grads: &Gradients, want: &Golden, prefix: &str) -> usize {
    let mut seen = 0;
    for (entry, gradient) in params.iter().zip(grads.iter().unwrap()) {
        for (name, part) in entry.parts(gradient).unwrap() {
            let want_part = &want[&format!("{prefix}{name}")];
            seen += 1;
            if let Some(query) =
                [("key.bias", "query.bias"), ("k_proj.bias", "q_proj.bias"), ("k_lin.bias", "q_lin.bias")]
                    .iter()
                    .find_map(|(k, q)| name.contains(k).then(|| name.replace(k, q)))
            {
                let scale = norm(&want[&format!("{prefix}{query}")]);
                assert!(norm(&(part - want_part).unwrap()) <= 1e-5 * scale, "{name}");
            } else {
                assert_close(&name, &part, want_part, 1e-5);
            }
        }
    }
    seen
}

fn gradients(student: &Student, tokens: &Tokens, targets: &Tensor, dropout: Option<&Dropout>) -> (f64, Gradients) {
    let mut grads = Gradients::zeros(student.params()).unwrap();
    let (output, tape) = student.forward_train(Batch { tokens, dropout }).unwrap();
    let n = targets.dim(0).unwrap();
    let (value, d) = loss::with_gradient(&output, |out| loss::mse(out, targets, n)).unwrap();
    student.backward(Batch { tokens, dropout }, tape, &d, &mut grads).unwrap();
    (value, grads)
}

#[test]
fn the_student_and_every_gradient_equal_pytorch() {
    let want = load("student.safetensors");
    let tokens = Tokens::pack(&sequences(&want["ids"], &want["cu_seqlens"]), 0).unwrap();
    for compute in computes() {
        let first = student(&compute, Pooling::First, &want);
        assert_close("first-token pooling", &first.embed(&tokens).unwrap(), &want["output_first"], 2e-6);
        let student = student(&compute, Pooling::Mean, &want);
        assert_close("output", &student.embed(&tokens).unwrap(), &want["output"], 2e-6);
        let (value, grads) = gradients(&student, &tokens, &want["targets"], None);
        let loss = f64::from(want["loss"].to_scalar::<f32>().unwrap());
        assert!((value / loss - 1.0).abs() < 1e-5, "{value} {loss}");
        let seen = compare_gradients(student.params(), &grads, &want, "grad.");
        assert_eq!(seen, want.keys().filter(|k| k.starts_with("grad.")).count());
    }
}

#[test]
fn ten_steps_of_adamw_follow_pytorch() {
    let want = load("student.safetensors");
    let all = sequences(&want["ids"], &want["cu_seqlens"]);
    for compute in computes() {
        let student = student(&compute, Pooling::Mean, &want);
        let mut optimizer = Optimizer::new(&Recipe::default(), student.params()).unwrap();
        let losses: Vec<f32> = want["losses"].to_vec1().unwrap();
        for (step, expected) in losses.iter().enumerate() {
            let chosen: Vec<usize> = (0..all.len()).filter(|i| (i + step) % 3 != 0).collect();
            let tokens = Tokens::pack(&chosen.iter().map(|i| &all[*i][..]).collect::<Vec<_>>(), 0).unwrap();
            let rows = Tensor::new(chosen.iter().map(|i| *i as u32).collect::<Vec<_>>(), &Device::Cpu).unwrap();
            let targets = want["targets"].index_select(&rows, 0).unwrap();
            let (value, grads) = gradients(&student, &tokens, &targets, None);
            assert!((value / f64::from(*expected) - 1.0).abs() < 1e-5, "step {step}: {value} against {expected}");
            optimizer.step(student.params(), &grads, 1e-3).unwrap();
        }
        let mut compared = 0;
        for entry in student.params().iter() {
            for (name, part) in entry.parts(&entry.var.as_detached_tensor()).unwrap() {
                if let Some(expected) = want.get(&format!("final.{name}")) {
                    assert_close(&name, &part, expected, 1e-4);
                    compared += 1;
                }
            }
        }
        assert_eq!(compared, 3);
    }
}

#[test]
fn the_clip_towers_equal_transformers() {
    let want = load("clip.safetensors");
    for compute in computes() {
        let text = ClipText::load_trainable(&golden("tiny-clip"), &compute).unwrap();
        let mut ids = sequences(&want["text_ids"], &want["text_cu_seqlens"]);
        for sequence in &mut ids {
            sequence.resize(77, 89); // padded with the end token, as the original does
            text.cut(sequence).unwrap();
        }
        let tokens = Tokens::pack(&ids, 0).unwrap();
        let mut tape = Tape::default();
        let pooled = text.pooled(&tokens, Some(&mut tape)).unwrap();
        assert_close("text_pooled", &pooled, &want["text_pooled"], 2e-6);
        let frozen = ClipText::load(&golden("tiny-clip"), &compute).unwrap();
        assert_close("frozen", &frozen.pooled(&tokens, None).unwrap(), &want["text_pooled"], 2e-6);
        assert_close("text_embeds", &text.project(&pooled).unwrap(), &want["text_embeds"], 2e-6);
        let mut grads = Gradients::zeros(text.params()).unwrap();
        text.backward(&tokens, tape, &want["text_weights"], &mut grads).unwrap();
        let seen = compare_gradients(text.params(), &grads, &want, "grad.text_model.");
        assert_eq!(seen, want.keys().filter(|k| k.starts_with("grad.")).count());
        let vision = ClipVision::load(&golden("tiny-clip"), &compute).unwrap();
        let images: Vec<Vec<f32>> = want["pixels"].flatten_from(1).unwrap().to_vec2().unwrap();
        assert_close("image_pooled", &vision.pooled(&images).unwrap(), &want["image_pooled"], 2e-6);
        assert_close("image_embeds", &vision.embed(&images).unwrap(), &want["image_embeds"], 2e-6);
    }
}

/// `tests/golden/architectures.py` saved these as transformers does, with the heads of tasks.
#[test]
fn students_of_every_kind_and_every_gradient_equal_pytorch() {
    let kinds = [
        "bert",
        "roberta",
        "xlm-roberta",
        "camembert",
        "data2vec-text",
        "electra",
        "electra-narrow",
        "ernie",
        "ernie-plain",
        "distilbert",
    ];
    for (name, compute) in kinds.iter().flat_map(|name| computes().map(|compute| (name, compute))) {
        let folder = golden("kinds").join(name);
        let want = candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu).unwrap();
        let tokens = Tokens::pack(&sequences(&want["ids"], &want["cu_seqlens"]), 0).unwrap();
        let student = Student::load(&folder, Head::new(Pooling::Mean, 10), 0, &compute).unwrap();
        let projection = student.params().iter().find(|p| p.name() == "projection.weight").unwrap();
        projection.var.set(&want["projection"]).unwrap();
        assert_close(name, &student.embed(&tokens).unwrap(), &want["output"], 2e-6);
        let (value, grads) = gradients(&student, &tokens, &want["targets"], None);
        let loss = f64::from(want["loss"].to_scalar::<f32>().unwrap());
        assert!((value / loss - 1.0).abs() < 1e-5, "{name}: {value} {loss}");
        let seen = compare_gradients(student.params(), &grads, &want, "grad.");
        assert_eq!(seen, want.keys().filter(|k| k.starts_with("grad.")).count(), "{name}");
        // Frozen layers are packed, and computed by other kernels; a checkpoint holds what transformers loads.
        let saved = tempfile::tempdir().unwrap();
        student.save(saved.path(), TokenizerFacts { padding: Some(3), class: None }).unwrap();
        let frozen = Student::from_checkpoint(saved.path(), &compute).unwrap();
        assert_close(name, &frozen.embed(&tokens).unwrap(), &want["output"], 2e-6);
        let saved_names = candle_core::safetensors::load(saved.path().join("model.safetensors"), &Device::Cpu).unwrap();
        let of_encoder = |name: &&String| name.starts_with("grad.") && *name != "grad.projection.weight";
        assert!(want.keys().filter(of_encoder).all(|name| saved_names.contains_key(&name[5..])), "{name}");
        assert_eq!(saved_names.len(), seen - 1);
    }
}

#[test]
fn clips_in_every_form_equal_transformers() {
    let (nested, flat) = (load("clip.safetensors"), golden("kinds/clip-text"));
    for compute in computes() {
        let texts = |clip: &ClipText, want: &Golden, ids: &str, ends: &str, tolerance: f64| {
            let mut ids = sequences(&want[ids], &want[ends]);
            ids.iter_mut().for_each(|ids| clip.cut(ids).unwrap());
            let pooled = clip.pooled(&Tokens::pack(&ids, 0).unwrap(), None).unwrap();
            assert_close("text_pooled", &pooled, &want["text_pooled"], tolerance);
            assert_close("text_embeds", &clip.project(&pooled).unwrap(), &want["text_embeds"], tolerance);
        };
        let images = |clip: &ClipVision, want: &Golden| {
            let pixels: Vec<Vec<f32>> = want["pixels"].flatten_from(1).unwrap().to_vec2().unwrap();
            assert_close("image_embeds", &clip.embed(&pixels).unwrap(), &want["image_embeds"], 2e-6);
        };
        let folder = golden("kinds/metaclip_2");
        let want = candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu).unwrap();
        texts(&ClipText::load(&folder, &compute).unwrap(), &want, "ids", "cu_seqlens", 2e-6);
        images(&ClipVision::load(&folder, &compute).unwrap(), &want);

        texts(&ClipText::load(&flat, &compute).unwrap(), &nested, "text_ids", "text_cu_seqlens", 2e-6);
        images(&ClipVision::load(&golden("kinds/clip-vision"), &compute).unwrap(), &nested);
        let error = ClipVision::load(&flat, &compute).err().unwrap();
        assert!(error.to_string().contains("no image tower"), "{error}");
        let error = ClipText::load(&golden("kinds/clip-vision"), &compute).err().unwrap();
        assert!(error.to_string().contains("no text tower"), "{error}");

        let old = tempfile::tempdir().unwrap();
        std::fs::copy(golden("kinds/clip_dict.json"), old.path().join("config.json")).unwrap();
        std::fs::copy(golden("tiny-clip/model.safetensors"), old.path().join("model.safetensors")).unwrap();
        texts(&ClipText::load(old.path(), &compute).unwrap(), &nested, "text_ids", "text_cu_seqlens", 2e-6);
        images(&ClipVision::load(old.path(), &compute).unwrap(), &nested);
    }
}

#[test]
fn a_sequence_embeds_alone_as_in_any_batch() {
    let want = load("student.safetensors");
    let all = sequences(&want["ids"], &want["cu_seqlens"]);
    for compute in computes() {
        let student = student(&compute, Pooling::Mean, &want);
        let together = student.embed(&Tokens::pack(&all, 0).unwrap()).unwrap();
        for (i, sequence) in all.iter().enumerate() {
            let alone = student.embed(&Tokens::pack(&[sequence], 0).unwrap()).unwrap();
            assert_close("alone", &alone, &together.narrow(0, i, 1).unwrap(), 1e-6);
        }
    }
}

#[test]
fn micro_batches_of_any_size_give_the_full_gradient_with_dropout_on() {
    let want = load("student.safetensors");
    let all = sequences(&want["ids"], &want["cu_seqlens"]);
    for compute in computes() {
        let student = student(&compute, Pooling::Mean, &want);
        let dropout = Dropout::new(5, 3, 0.1, 0.1);
        let (full_loss, full) = gradients(&student, &Tokens::pack(&all, 0).unwrap(), &want["targets"], Some(&dropout));
        let (plain_loss, _) = gradients(&student, &Tokens::pack(&all, 0).unwrap(), &want["targets"], None);
        assert_ne!(full_loss, plain_loss);
        for size in [1, 2, 3, 5] {
            let (mut total, mut grads) = (0.0, Gradients::zeros(student.params()).unwrap());
            for start in (0..all.len()).step_by(size) {
                let end = (start + size).min(all.len());
                let tokens = Tokens::pack(&all[start..end], start).unwrap();
                let targets = want["targets"].narrow(0, start, end - start).unwrap();
                let batch = Batch { tokens: &tokens, dropout: Some(&dropout) };
                let (output, tape) = student.forward_train(batch).unwrap();
                let (value, d) = loss::with_gradient(&output, |o| loss::mse(o, &targets, all.len())).unwrap();
                student.backward(batch, tape, &d, &mut grads).unwrap();
                total += value;
            }
            assert!((total / full_loss - 1.0).abs() < 1e-6);
            for ((entry, got), want) in student.params().iter().zip(grads.iter().unwrap()).zip(full.iter().unwrap()) {
                assert_close(&entry.name(), got, want, 1e-5);
            }
        }
    }
}

#[test]
fn training_the_student_leaves_the_teacher_as_it_was() {
    let want = load("student.safetensors");
    let tokens = Tokens::pack(&sequences(&want["ids"], &want["cu_seqlens"]), 0).unwrap();
    let bits = |params: &Params| -> Vec<u32> {
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        params.iter().flat_map(|p| flat(p.var.as_tensor())).map(f32::to_bits).collect()
    };
    for compute in computes() {
        let teacher = ClipText::load_trainable(&golden("tiny-clip"), &compute).unwrap();
        let student = Student::load(&golden("tiny-bert"), Head::new(Pooling::Mean, 32), 0, &compute).unwrap();
        let (frozen, trained) = (bits(teacher.params()), bits(student.params()));
        let targets = teacher.pooled(&tokens_of_teacher(), None).unwrap().narrow(0, 0, 1).unwrap();
        let targets = targets.repeat((7, 1)).unwrap();
        let mut optimizer = Optimizer::new(&Recipe::default(), student.params()).unwrap();
        for _ in 0..3 {
            let (_, grads) = gradients(&student, &tokens, &targets, None);
            optimizer.step(student.params(), &grads, 1e-3).unwrap();
        }
        assert!(frozen == bits(teacher.params()), "the teacher changed");
        assert!(trained != bits(student.params()), "the student did not change");
    }
}

fn tokens_of_teacher() -> Tokens {
    Tokens::pack(&[[88, 1, 2, 89]], 0).unwrap()
}

#[test]
fn every_trainable_parameter_gets_a_finite_gradient_that_is_not_zero() {
    let want = load("student.safetensors");
    let tokens = Tokens::pack(&sequences(&want["ids"], &want["cu_seqlens"]), 0).unwrap();
    for compute in computes() {
        let student = student(&compute, Pooling::Mean, &want);
        let (_, mut grads) = gradients(&student, &tokens, &want["targets"], None);
        assert_eq!(grads.suspicious(student.params()).unwrap(), Vec::<String>::new());
        grads.clear().unwrap();
        assert_eq!(grads.suspicious(student.params()).unwrap().len(), student.params().len());
    }
}

/// `tests/golden/old_bert.py` made the files.
#[test]
fn an_old_pytorch_model_bin_is_the_same_student() {
    let load =
        |folder: PathBuf| Student::load(&folder, Head::new(Pooling::Mean, 20), 0, &Compute::new(Device::Cpu)).unwrap();
    let safe = load(golden("tiny-bert"));
    for file in ["old-bert.bin", "legacy-bert.bin"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(golden(file), dir.path().join("pytorch_model.bin")).unwrap();
        std::fs::copy(golden("tiny-bert/config.json"), dir.path().join("config.json")).unwrap();
        let bin = load(dir.path().to_owned());
        assert_eq!(bin.params().len(), safe.params().len());
        for (a, b) in bin.params().iter().zip(safe.params().iter()) {
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!((a.name(), flat(a.var.as_tensor())), (b.name(), flat(b.var.as_tensor())));
        }
    }
}

/// `tests/golden/mclip.py` made the checkpoint and the embeddings.
#[test]
fn mclip_gives_the_embeddings_of_transformers() {
    let bytes = std::fs::read(golden("mclip.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let texts: Vec<String> = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["texts"]).unwrap();
    let want = &load("mclip.safetensors")["text_embeds"];
    let folder = golden("tiny-mclip");
    let config = MclipConfig::find(&folder).unwrap().unwrap();
    assert!(MclipConfig::find(&golden("tiny-bert")).unwrap().is_none());
    for compute in computes() {
        let mclip = MclipTexts::load(&folder, &folder, &config, &compute).unwrap();
        let got = Tensor::from_vec(mclip.embed(&texts).unwrap(), want.shape(), &Device::Cpu).unwrap();
        assert_close("text_embeds", &got, want, 1e-5);
        let too_long = Tokens::pack(&[vec![5; 39]], 0).unwrap();
        assert!(mclip.mclip.embed(&too_long).unwrap_err().to_string().contains("38 positions"));
    }
}
