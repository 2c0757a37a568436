//! The baseline through the real binary: M-CLIP's embeddings, its evaluation, and the cache of that.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn themo(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_themo")).current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn here(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(part)
}

const MCLIP: &str = "tests/golden/tiny-mclip";

/// `tests/golden/mclip.py` made the checkpoint and the embeddings.
#[test]
fn embeds_texts_as_transformers_does() {
    let dir = tempfile::tempdir().unwrap();
    let (texts, output) = (dir.path().join("texts"), dir.path().join("out.safetensors"));
    let read = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let texts = metadata.metadata().as_ref().and_then(|m| m.get("texts").cloned());
        let rows = candle_core::safetensors::load_buffer(&bytes, &candle_core::Device::Cpu).unwrap();
        (rows["text_embeds"].to_vec2::<f32>().unwrap(), texts)
    };
    let (want, lines) = read(&here("tests/golden/mclip.safetensors"));
    let lines: Vec<String> = serde_json::from_str(&lines.unwrap()).unwrap();
    std::fs::write(&texts, lines.join("\n")).unwrap();
    let output = output.to_str().unwrap();
    let embed = |more: &[&str]| themo(&[&["embed", "--model", MCLIP, "--output", output], more].concat());
    let done = embed(&["--texts", texts.to_str().unwrap()]);
    assert!(done.status.success(), "{}", stderr(&done));
    let (got, _) = read(Path::new(output));
    assert_eq!((got.len(), got[0].len()), (want.len(), want[0].len()));
    let largest = want.iter().flatten().fold(0.0f32, |most, x| most.max(x.abs()));
    for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
        assert!((got - want).abs() <= 1e-5 * largest, "{got} {want}");
    }
    let refused = embed(&["--images", "data/demo/mscoco/val2014"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("texts only"));
}
