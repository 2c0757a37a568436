//! `themo export`: the folders that other programs load. `tests/golden/export.py` loads them with those programs; here
//! they are read back by our own readers, and each field is checked that a program of theirs asks for.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use themo::compute::Compute;
use themo::data::tokens::{TOKENIZER_FILES, TextTokenizer};
use themo::error::{Error, Result};
use themo::eval::TextEmbedder;
use themo::eval::towers::StudentTexts;
use themo::export::{Exported, Program, Request, export};
use themo::models::clip_text::text_projection;
use themo::models::student::Head;
use themo::models::{ClipVision, Student, TokenizerFacts};
use themo::nn::{Pooling, Tokens};
use toml::Table;

const TEXTS: [&str; 4] = ["una luna azul", "UN Círculo", "", "dos corazones pequeños y una estrella grande y verde"];

fn demo(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/models").join(model)
}

fn compute() -> Compute {
    Compute::new(Device::Cpu)
}

fn head(pooling: Pooling) -> Head {
    Head::new(pooling, 128)
}

/// A run with one checkpoint of an untrained student, its bias and norm not those of a new one.
struct Run {
    dir: tempfile::TempDir,
}

impl Run {
    fn new(head: Head, files: &[&str]) -> Self {
        let run = Self { dir: tempfile::tempdir().unwrap() };
        let checkpoint = run.checkpoint();
        fs::create_dir_all(&checkpoint).unwrap();
        let student = Student::load(&demo("toy-beto"), head, 7, &compute()).unwrap();
        for (k, entry) in student.params().iter().enumerate() {
            let value = entry.var.as_tensor();
            if value.dims() == [128] {
                let noise: Vec<f32> = (0..128).map(|i| ((i * 7 + k) as f32).sin() * 0.1).collect();
                entry.var.set(&(value + Tensor::new(noise, &Device::Cpu).unwrap()).unwrap()).unwrap();
            }
        }
        student.save(&checkpoint, TokenizerFacts { padding: Some(1), class: Some("BertTokenizer") }).unwrap();
        for file in files {
            fs::copy(demo("toy-beto").join(file), checkpoint.join(file)).unwrap();
        }
        run.config("student = 'nobody/bert'\nmax-sequence-length = 20\n");
        run
    }

    fn whole(head: Head) -> Self {
        Self::new(head, &["tokenizer.json", "tokenizer_config.json", "vocab.txt"])
    }

    fn config(&self, lines: &str) {
        let teacher = demo("toy-clip");
        fs::write(self.dir.path().join("config.toml"), format!("teacher = {teacher:?}\n{lines}")).unwrap();
    }

    fn checkpoint(&self) -> PathBuf {
        self.dir.path().join("checkpoints/last")
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn request(&self, program: Program, output: &Path, hub_name: Option<&str>) -> Result<Exported> {
        let settings = Table::new();
        export(Request { version: self.dir.path(), settings, output, program, with_images: true, hub_name })
    }

    fn export(&self, program: Program) -> Result<Exported> {
        self.request(program, &self.output(), None)
    }

    fn student(&self) -> Student {
        Student::from_checkpoint(&self.checkpoint(), &compute()).unwrap()
    }

    fn read(&self, file: &str) -> Value {
        serde_json::from_slice(&fs::read(self.output().join(file)).unwrap()).unwrap()
    }

    fn tensors(&self, file: &str) -> std::collections::HashMap<String, Tensor> {
        candle_core::safetensors::load(self.output().join(file), &Device::Cpu).unwrap()
    }
}

fn tokens(folder: &Path) -> Tokens {
    let ids = TextTokenizer::from_folder(folder, 20).unwrap().encode(&TEXTS).unwrap();
    Tokens::pack(&ids, 0).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn near(ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len());
    let scale = theirs.iter().fold(1f64, |most, x| most.max(x.abs()));
    ours.iter().zip(theirs).for_each(|(a, b)| assert!((a - b).abs() <= 2e-6 * scale, "{a} and {b}"));
}

#[test]
fn sentence_transformers_finds_every_module() {
    for (pooling, bias) in [(Pooling::Mean, false), (Pooling::First, true)] {
        let run = Run::whole(Head { projection_bias: bias, ..head(pooling) });
        let exported = run.export(Program::SentenceTransformers).unwrap();
        assert!(exported.notes.is_empty() && exported.folder.is_absolute());
        let module = |i: usize, path: &str, class: &str| json!({"idx": i, "name": i.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}")});
        let modules = [module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling"), module(2, "2_Dense", "Dense")];
        assert_eq!(run.read("modules.json"), json!(modules));
        let pooled = run.read("1_Pooling/config.json");
        assert_eq!(pooled["word_embedding_dimension"], 128);
        assert_eq!(pooled["pooling_mode_cls_token"], pooling == Pooling::First);
        assert_eq!(pooled["pooling_mode_mean_tokens"], pooling == Pooling::Mean);
        let on = pooled.as_object().unwrap().values().filter(|value| **value == true).count();
        assert_eq!(on, 2, "{pooled}"); // with include_prompt
        assert_eq!(
            run.read("2_Dense/config.json"),
            json!({"in_features": 128, "out_features": 64, "bias": bias,
                   "activation_function": "torch.nn.modules.linear.Identity"})
        );
        assert_eq!(run.read("sentence_bert_config.json"), json!({"max_seq_length": 20, "do_lower_case": false}));
        assert_eq!(run.read("config_sentence_transformers.json")["similarity_fn_name"], "cosine");
        let config = run.read("config.json");
        assert_eq!((&config["dtype"], &config["architectures"]), (&json!("float32"), &json!(["BertModel"])));
        assert_eq!((&config["pad_token_id"], &config["max_position_embeddings"]), (&json!(1), &json!(128)));
        assert_eq!(run.read("tokenizer_config.json")["model_max_length"], 20);

        // Our own reader of the encoder, then the Dense, give what `themo embed` gives.
        let dense = run.tensors("2_Dense/model.safetensors");
        assert_eq!(dense.len(), 1 + usize::from(bias));
        let encoder = Student::load(&run.output(), head(pooling), 0, &compute()).unwrap();
        let pooled = encoder.pooled(&tokens(&run.output())).unwrap();
        let mut ours = pooled.matmul(&dense["linear.weight"].t().unwrap()).unwrap();
        if bias {
            ours = ours.broadcast_add(&dense["linear.bias"]).unwrap();
        }
        let (student, tokenizer) = (run.student(), TextTokenizer::from_folder(&run.checkpoint(), 20).unwrap());
        let texts = StudentTexts::new(&student, &tokenizer, &demo("toy-clip"), &compute()).unwrap();
        let theirs: Vec<f64> = texts.embed(&TEXTS.map(String::from)).unwrap().into_iter().map(f64::from).collect();
        near(&flat(&ours), &theirs);
    }
}

#[test]
fn the_projections_are_merged_in_f64_and_rounded_once() {
    let run = Run::whole(Head { projection_bias: true, ..head(Pooling::Mean) });
    run.export(Program::SentenceTransformers).unwrap();
    let dense = run.tensors("2_Dense/model.safetensors");
    let student = run.student();
    let (weight, bias) = student.projection();
    let (w, b) = (flat(weight), flat(bias.unwrap()));
    let p = flat(&text_projection(&demo("toy-clip"), &Device::Cpu).unwrap());
    let merged = |row: usize, right: &dyn Fn(usize) -> f64| (0..128).map(|k| p[row * 128 + k] * right(k)).sum::<f64>();
    let (ours, bias) = (flat(&dense["linear.weight"]), flat(&dense["linear.bias"]));
    for row in 0..64 {
        for column in 0..128 {
            let exact = merged(row, &|k| w[k * 128 + column]);
            // Half a unit in the last place of f32: a sum in f32 would be further off.
            let (ours, unit) = (ours[row * 128 + column], exact.abs().max(1e-30) * f64::from(f32::EPSILON) / 2.0);
            assert!((ours - exact).abs() <= unit * 1.001 + 1e-15, "{row}, {column}: {ours} and {exact}");
        }
        let exact = merged(row, &|k| b[k]);
        assert!((bias[row] - exact).abs() <= exact.abs() * f64::from(f32::EPSILON) / 2.0 * 1.001 + 1e-15);
    }
}

#[test]
fn a_final_norm_is_a_module_of_its_own() {
    let run = Run::whole(Head { final_norm: true, ..head(Pooling::Mean) });
    let exported = run.export(Program::SentenceTransformers).unwrap();
    assert!(exported.notes.len() == 1 && exported.notes[0].contains("text-embeddings-inference does not"));
    let modules = run.read("modules.json");
    let classes: Vec<&str> = modules.as_array().unwrap().iter().map(|m| m["path"].as_str().unwrap()).collect();
    assert_eq!(classes, ["", "1_Pooling", "2_Dense", "3_LayerNorm", "4_Dense"]);
    assert_eq!(run.read("3_LayerNorm/config.json"), json!({"dimension": 128}));
    let (first, norm) = (run.tensors("2_Dense/model.safetensors"), run.tensors("3_LayerNorm/model.safetensors"));
    let student = run.student();
    let (scale, shift) = student.final_norm().unwrap();
    assert_eq!(flat(&norm["norm.weight"]), flat(scale));
    assert_eq!(flat(&norm["norm.bias"]), flat(shift));
    assert_eq!(flat(&first["linear.weight"]), flat(student.projection().0));
    let second = run.tensors("4_Dense/model.safetensors");
    assert_eq!(flat(&second["linear.weight"]), flat(&text_projection(&demo("toy-clip"), &Device::Cpu).unwrap()));
}

#[test]
fn a_tokenizer_json_is_made_of_a_vocabulary() {
    for (files, settings) in [
        (&["vocab.txt"][..], None),
        (&["vocab.txt"], Some(json!({"do_lower_case": false, "name_or_path": "/home/somebody/bert"}))),
        (&["vocab.txt", "tokenizer_config.json"], None),
        (&["tokenizer.json"], Some(json!({"truncation_side": "left", "strip_accents": null}))),
    ] {
        let run = Run::new(head(Pooling::Mean), files);
        if let Some(settings) = &settings {
            fs::write(run.checkpoint().join("tokenizer_config.json"), settings.to_string()).unwrap();
        }
        run.export(Program::SentenceTransformers).unwrap();
        let ids = |folder: &Path| TextTokenizer::from_folder(folder, 5).unwrap().encode(&TEXTS).unwrap();
        let want = ids(&run.checkpoint());
        assert_eq!(ids(&run.output()), want);
        let json = run.read("tokenizer.json");
        assert!(json["truncation"].is_null() && json["padding"].is_null() && json["post_processor"].is_object());
        // The file by itself, too: servers read no other.
        for name in TOKENIZER_FILES.iter().filter(|name| **name != "tokenizer.json") {
            let _ = fs::remove_file(run.output().join(name));
        }
        let alone = tokenizers::Tokenizer::from_file(run.output().join("tokenizer.json")).unwrap();
        for (text, want) in
            TEXTS.iter().zip(TextTokenizer::from_folder(&run.checkpoint(), 99).unwrap().encode(&TEXTS).unwrap())
        {
            assert_eq!(alone.encode(*text, true).unwrap().get_ids(), want);
        }
    }
}

#[test]
fn the_image_tower_stands_by_itself() {
    let run = Run::whole(head(Pooling::Mean));
    run.export(Program::SentenceTransformers).unwrap();
    let (theirs, ours) = (demo("toy-clip"), run.output().join("image"));
    let config = run.read("image/config.json");
    assert_eq!(config["architectures"], json!(["CLIPVisionModelWithProjection"]));
    assert!(run.tensors("image/model.safetensors").keys().all(|name| !name.contains("text")));
    assert_eq!(run.read("image/preprocessor_config.json")["crop_size"]["height"], 64);
    let image = vec![(0..3 * 64 * 64).map(|i| (i as f32 * 0.01).sin()).collect::<Vec<f32>>()];
    let embed = |folder: &Path| ClipVision::load(folder, &compute()).unwrap().embed(&image).unwrap();
    assert_eq!(flat(&embed(&ours)), flat(&embed(&theirs)));
}

#[test]
fn open_clip_gets_both_towers() {
    for (pooling, pooler) in [(Pooling::Mean, "mean_pooler"), (Pooling::First, "cls_last_hidden_state_pooler")] {
        let run = Run::whole(head(pooling));
        run.export(Program::OpenClip).unwrap();
        let config = run.read("open_clip_config.json");
        let (model, place) = (&config["model_cfg"], run.output().to_str().unwrap().to_owned());
        assert_eq!(
            model["text_cfg"],
            json!({"hf_model_name": place, "hf_tokenizer_name": place, "hf_proj_type": "linear",
                   "hf_pooler_type": pooler, "context_length": 20})
        );
        assert_eq!((&model["embed_dim"], &model["quick_gelu"]), (&json!(64), &json!(true)));
        assert_eq!(config["preprocess_cfg"]["mean"], json!([0.48145466, 0.4578275, 0.40821073]));
        let bert = run.read("config.json");
        assert_eq!(bert["pad_token_id"], 1);
        // open_clip leaves it in training mode.
        assert_eq!([&bert["hidden_dropout_prob"], &bert["attention_probs_dropout_prob"]], [&json!(0.0); 2]);
        assert!(run.output().join("tokenizer.json").exists() && !run.output().join("model.safetensors").exists());

        let tensors = run.tensors("open_clip_model.safetensors");
        let theirs = candle_core::safetensors::load(demo("toy-clip").join("model.safetensors"), &Device::Cpu).unwrap();
        let their = |name: &str| flat(&theirs[name]);
        let layer = "vision_model.encoder.layers.1.self_attn";
        let qkv = ["q", "k", "v"].map(|part| their(&format!("{layer}.{part}_proj.weight"))).concat();
        assert_eq!(flat(&tensors["visual.transformer.resblocks.1.attn.in_proj_weight"]), qkv);
        assert_eq!(flat(&tensors["visual.proj"].t().unwrap()), their("visual_projection.weight"));
        assert_eq!(flat(&tensors["logit_scale"]), their("logit_scale"));
        assert!(tensors["logit_scale"].dims().is_empty());
        let words = "embeddings.word_embeddings.weight";
        assert_eq!(tensors["text.proj.weight"].dims(), [64, 128]);
        assert_eq!(tensors[&format!("text.transformer.{words}")].dims(), [558, 128]);
    }
    let run = Run::whole(head(Pooling::Mean));
    run.request(Program::OpenClip, &run.output(), Some("maria/themo-demo")).unwrap();
    assert_eq!(run.read("open_clip_config.json")["model_cfg"]["text_cfg"]["hf_model_name"], "maria/themo-demo");
}

fn refused(result: Result<Exported>) -> Error {
    let error = result.expect_err("it was exported");
    assert!(error.advice().is_some(), "{error}");
    error
}

#[test]
fn what_a_program_cannot_hold_is_refused_by_name_and_leaves_nothing() {
    for (head, what) in [
        (Head { projection_bias: true, ..head(Pooling::Mean) }, "projection bias"),
        (Head { final_norm: true, ..head(Pooling::Mean) }, "final norm"),
    ] {
        let run = Run::whole(head);
        let error = refused(run.export(Program::OpenClip)).to_string();
        assert!(error.contains("open_clip cannot hold") && error.contains(what), "{error}");
        let mut names: Vec<_> = fs::read_dir(run.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["checkpoints", "config.toml"]);
    }
    let run = Run::whole(head(Pooling::Mean));
    for name in ["themo", "a/b/c", "a/b@main", "a b/c", ""] {
        let error = refused(run.request(Program::OpenClip, &run.output(), Some(name)));
        assert_eq!(error.exit_code(), 2, "{name}");
    }
    fs::create_dir(run.output()).unwrap();
    run.export(Program::SentenceTransformers).unwrap(); // into an empty folder
    let before = fs::read(run.output().join("README.md")).unwrap();
    let error = refused(run.export(Program::SentenceTransformers)).to_string();
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(fs::read(run.output().join("README.md")).unwrap(), before);
    let file = run.output().join("README.md");
    assert!(refused(run.request(Program::OpenClip, &file, None)).to_string().contains("exists already"));
}

const HOSTILE: &str = "x: y\\\"\\n---\\n- <script>alert(1)</script> `a` |b|";

#[test]
fn the_card_has_the_runs_figures_and_hostile_names_stay_names() {
    let run = Run::whole(head(Pooling::Mean));
    run.config(&format!(
        "student = \"{HOSTILE}\"\npairs = [\"{HOSTILE}\"]\ndataset = [\"hub:Helsinki-NLP/opus-100:en-es\"]\n"
    ));
    fs::create_dir(run.dir.path().join("eval")).unwrap();
    let scores = json!({"text_to_image": {"recall@1": 0.481, "recall@5": 0.752, "recall@10": 1.0 / 3.0},
        "image_to_text": {"recall@1": 0.0, "recall@5": 1e-5, "recall@10": 1.0}, "images": 1000, "captions": 1000});
    fs::write(run.dir.path().join("eval/retrieval.json"), scores.to_string()).unwrap();
    let output = run.dir.path().join("a \"b\": <script>\n---\n`c`");
    run.request(Program::SentenceTransformers, &output, None).unwrap();
    let card = fs::read_to_string(output.join("README.md")).unwrap();
    let (head, body) = card.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap();
    assert!(head.contains("- name: \"a \\\"b\\\": <script>\\u000a---\\u000a`c`\"\n"), "{head}");
    for line in ["language:\n- es", "library_name: sentence-transformers", "datasets:\n- \"Helsinki-NLP/opus-100\""] {
        assert!(head.contains(line), "{head}");
    }
    let values: Vec<f64> = head.lines().filter_map(|line| line.strip_prefix("      value: ")?.parse().ok()).collect();
    assert_eq!(values, [0.481, 0.752, 1.0 / 3.0, 0.0, 1e-5, 1.0]);
    assert!(head.contains("value: 0.00001\n") && head.contains("value: 1.0\n")); // to YAML 1.1, `1e-5` is a word
    assert!(head.contains("    - type: \"recall@1\"\n      value: 0.481\n      name: \"recall@1, text to image\"\n"));
    assert!(body.contains("| text to image | 0.4810 (0.450 to 0.512) |"), "{body}");
    assert!(!body.contains("<script>alert") && body.contains("&lt;script&gt;"), "{body}");
    let row = "x\\: y\\\" --- - &lt;script&gt;alert\\(1\\)&lt;/script&gt; \\`a\\` \\|b\\|";
    assert!(body.contains(&format!("| pairs | {row} |")), "{body}");
    assert!(body.contains("subfolder=\"image\"") && body.contains("SentenceTransformer(\""));
    // A run that was not tested says so, and claims nothing.
    fs::remove_dir_all(run.dir.path().join("eval")).unwrap();
    run.export(Program::SentenceTransformers).unwrap();
    let card = fs::read_to_string(run.output().join("README.md")).unwrap();
    assert!(card.contains("Not measured yet") && !card.contains("model-index"), "{card}");
    // Nor does a checkpoint by itself claim settings.
    let apart = run.dir.path().join("apart");
    fs::rename(run.checkpoint(), &apart).unwrap();
    let settings: Table = format!("teacher = {:?}", demo("toy-clip")).parse().unwrap();
    let output = &run.dir.path().join("other");
    export(Request {
        version: &apart,
        settings,
        output,
        program: Program::OpenClip,
        with_images: false,
        hub_name: None,
    })
    .unwrap();
    let card = fs::read_to_string(output.join("README.md")).unwrap();
    assert!(card.contains("settings of the run are not known") && !card.contains("learn-rate"), "{card}");
}
