//! Fifty training steps of each recipe against PyTorch, and losses over whole batches however a batch is cut.
//! `tests/golden/trajectories.py` made the golden file; it says how.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use themo::compute::Compute;
use themo::config::recipe::Recipe;
use themo::models::Student;
use themo::models::student::Head;
use themo::nn::{Dropout, Gradients, Pooling};
use themo::train::loss::Objective;
use themo::train::optimizer::Optimizer;
use themo::train::schedule::factor;
use themo::train::step::{MicroBatches, PairBatch, validate};

mod common;

use common::golden;

type Golden = HashMap<String, Tensor>;

const STEPS: usize = 50;
const RATE: f64 = 1e-3;

fn load(name: &str) -> Golden {
    candle_core::safetensors::load(golden(name), &Device::Cpu).unwrap()
}

/// Every run's name, pooling and recipe.
fn runs() -> Vec<(String, Pooling, Recipe)> {
    let bytes = std::fs::read(golden("trajectories.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let run = |(name, json): (&String, &String)| {
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        let pooling = if value["pooling"] == "first" { Pooling::First } else { Pooling::Mean };
        (name.clone(), pooling, serde_json::from_value(value).unwrap())
    };
    let mut runs: Vec<_> = metadata.metadata().as_ref().unwrap().iter().map(run).collect();
    runs.sort_by(|a, b| a.0.cmp(&b.0));
    runs
}

fn student(compute: &Compute, pooling: Pooling, recipe: &Recipe, weights: &Golden, want: &Golden) -> Student {
    let Recipe { projection_bias, final_norm, init, .. } = *recipe;
    let head = Head { pooling, dim: 20, projection_bias, final_norm, init };
    let mut student = Student::load(&golden("tiny-bert"), head, 0, compute).unwrap();
    for entry in student.params().iter() {
        let name = entry.name();
        if let Some(value) = weights.get(&name).or(want.get(&format!("head.{name}"))) {
            entry.var.set(value).unwrap();
        }
    }
    student.freeze(recipe.freeze_layers).unwrap();
    student
}

/// The sequences of some `indices`, with their targets.
fn pairs(tokens: &[Vec<u32>], targets: &Tensor, indices: &[u32]) -> PairBatch {
    let rows = Tensor::new(indices, &Device::Cpu).unwrap();
    let tokens = indices.iter().map(|i| tokens[*i as usize].clone()).collect();
    PairBatch { tokens, targets: targets.index_select(&rows, 0).unwrap() }
}

fn sequences(weights: &Golden) -> Vec<Vec<u32>> {
    let integers = |t: &Tensor| t.to_dtype(DType::U32).unwrap().to_vec1::<u32>().unwrap();
    let (ids, ends) = (integers(&weights["ids"]), integers(&weights["cu_seqlens"]));
    ends.windows(2).map(|w| ids[w[0] as usize..w[1] as usize].to_vec()).collect()
}

fn error(got: &Tensor, want: &Tensor) -> f64 {
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    f64::from(norm(&(got - want).unwrap()) / norm(want))
}

#[test]
fn fifty_steps_of_every_recipe_follow_pytorch() {
    let (weights, want) = (load("student.safetensors"), load("trajectories.safetensors"));
    let data = sequences(&weights);
    let runs = runs();
    assert_eq!(runs.len(), want.keys().filter(|name| name.ends_with(".losses")).count());
    for compute in [Compute::new(Device::Cpu), Compute::plain(Device::Cpu)] {
        for (name, pooling, recipe) in &runs {
            let student = student(&compute, *pooling, recipe, &weights, &want);
            let projection = || Ok(want["text_projection"].clone());
            let objective = Objective::new(recipe, projection).unwrap();
            let mut optimizer = Optimizer::new(recipe, student.params()).unwrap();
            let mut grads = Gradients::zeros(student.params()).unwrap();
            let losses: Vec<f32> = want[&format!("{name}.losses")].to_vec1().unwrap();
            assert_eq!(losses.len(), STEPS);
            for (step, expected) in losses.into_iter().enumerate() {
                let indices: Vec<u32> =
                    (0..data.len() as u32).filter(|i| !(i + step as u32).is_multiple_of(3)).collect();
                let batch = pairs(&data, &weights["targets"], &indices);
                grads.clear().unwrap();
                let loss =
                    MicroBatches::new(&student, &batch, 1000).loss_and_gradients(&objective, None, &mut grads).unwrap();
                let relative = loss / f64::from(expected) - 1.0;
                assert!(relative.abs() < 1e-4, "{name}, step {step}: {loss} against {expected}");
                assert_eq!(grads.suspicious(student.params()).unwrap(), Vec::<String>::new(), "{name}");
                let rate = RATE * factor(recipe.schedule, recipe.warmup_steps, STEPS, step);
                optimizer.step(student.params(), &grads, rate).unwrap();
            }
            if recipe.ema.is_some() {
                let of = |student: &Student| student.params().iter().last().unwrap().var.as_tensor().copy().unwrap();
                assert!(error(&of(&student), &want[&format!("{name}.weights")]) < 1e-4);
                optimizer.swap_average(student.params()).unwrap();
                assert!(error(&of(&student), &want[&format!("{name}.average")]) < 1e-4);
            }
        }
    }
}

#[test]
fn losses_over_a_whole_batch_have_the_same_gradient_however_it_is_cut() {
    let (weights, want) = (load("student.safetensors"), load("trajectories.safetensors"));
    // Nine captions of three tokens, so that a number of tokens is a number of captions.
    let tokens: Vec<Vec<u32>> = (0..9).map(|i| vec![4, 10 + 7 * i, 5]).collect();
    let targets = Tensor::cat(&[&weights["targets"], &weights["targets"].narrow(0, 0, 2).unwrap()], 0).unwrap();
    let batch = pairs(&tokens, &targets, &[3, 1, 4, 0, 5, 8, 2, 6, 7]);
    for compute in [Compute::new(Device::Cpu), Compute::plain(Device::Cpu)] {
        for loss in ["clip", "similarity", "mse+0.1*clip", "cosine"] {
            let recipe = Recipe { loss: loss.parse().unwrap(), ..Recipe::default() };
            let objective = Objective::new(&recipe, || unreachable!()).unwrap();
            let student = student(&compute, Pooling::Mean, &recipe, &weights, &want);
            let dropout = Dropout::new(5, 3, 0.1, 0.1);
            let gradients = |captions: usize| {
                let mut grads = Gradients::zeros(student.params()).unwrap();
                let (dropout, tokens) = (Some(&dropout), 3 * captions);
                let value = MicroBatches::new(&student, &batch, tokens)
                    .loss_and_gradients(&objective, dropout, &mut grads)
                    .unwrap();
                (value, grads)
            };
            let (value, whole) = gradients(9);
            for captions in [1, 3] {
                let (cut_value, cut) = gradients(captions);
                assert!((cut_value / value - 1.0).abs() < 1e-6, "{loss}: {cut_value} {value}");
                for ((entry, got), expected) in
                    student.params().iter().zip(cut.iter().unwrap()).zip(whole.iter().unwrap())
                {
                    let error = error(got, expected);
                    assert!(error < 1e-5, "{loss}, {captions} at a time, {}: {error:e}", entry.name());
                }
                let go_on = || false;
                let validated = |n, should_stop: &dyn Fn() -> bool| {
                    let mut batches = [0..4, 4..8, 8..9]
                        .map(|some| Ok(pairs(&tokens, &targets, &some.collect::<Vec<_>>())))
                        .into_iter();
                    validate(&student, &objective, 9, &mut batches, 3 * n, should_stop).unwrap()
                };
                assert!(validated(1, &|| true).is_none());
                assert!((validated(captions, &go_on).unwrap() / validated(9, &go_on).unwrap() - 1.0).abs() < 1e-6);
            }
        }
    }
}
