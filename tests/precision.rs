//! Embeddings with products in bf16 against those in f32: other numbers, but of the same direction.

use std::path::Path;
use std::process::Command;

use safetensors::SafeTensors;

fn themo(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().unwrap();
    assert!(output.status.success(), "themo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The rows of `name` in what `themo embed` writes.
fn embed(args: &[&str], precision: &str, name: &str, file: &Path) -> Vec<Vec<f64>> {
    themo(&[&["embed", "--precision", precision, "--output", file.to_str().unwrap()], args].concat());
    let bytes = std::fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let numbers = tensor.data().as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
    let numbers: Vec<f64> = numbers.collect();
    numbers.chunks(tensor.shape()[1]).map(<[f64]>::to_vec).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn bf16_embeddings_point_where_f32_ones_do() {
    let scratch = tempfile::tempdir().unwrap();
    let (logs, cache) = (scratch.path().join("logs"), scratch.path().join("cache"));
    let places = ["--log-dir", logs.to_str().unwrap(), "--cache-dir", cache.to_str().unwrap()];
    let start = ["train", "--config", "configs/demo.toml", "--max-steps", "30", "--precision", "bf16"];
    let stdout = themo(&[&start, &places[..]].concat());
    let run = stdout.lines().find_map(|line| line.strip_prefix("run folder")).unwrap().trim();
    let clip = ["--model", "data/demo/models/toy-clip"];
    let english = ["--texts", "data/demo/xtd10/test_1kcaptions_en.txt"];
    let cases: [(&[&str], &str); 3] = [
        (&["--version-path", run, "--texts", "data/demo/xtd10/test_1kcaptions_es.txt"], "text_embeds"),
        (&[clip[0], clip[1], english[0], english[1]], "text_embeds"),
        (&[clip[0], clip[1], "--images", "data/demo/mscoco/val2014"], "image_embeds"),
    ];
    for (args, name) in cases {
        let [f32, bf16] = ["f32", "bf16"].map(|precision| {
            let file = scratch.path().join(precision);
            embed(args, precision, name, &file)
        });
        assert!(f32.len() >= 48 && f32.len() == bf16.len());
        assert_ne!(f32, bf16, "{args:?}: nothing was rounded");
        let lowest = f32.iter().zip(&bf16).map(|(a, b)| cosine(a, b)).fold(1.0, f64::min);
        assert!(lowest >= 0.999, "{args:?}: lowest cosine {lowest}");
    }
}
