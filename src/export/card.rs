//! The model card: a `README.md` with the hub's metadata at its head.
//!
//! Whatever comes from a run (names, paths, figures) goes through [`escape`](super::escape).

use std::path::Path;

use toml::Value;

use super::escape::{markdown, quoted};
use super::{Program, Source};
use crate::error::{Error, Result, ResultExt};
use crate::eval::metrics::{AtK, KS};
use crate::eval::statistics::wilson;
use crate::hub::{Id, Kind};

/// What a card is about.
pub(super) struct Card<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) program: Program,
    /// The class of the image tower in the folder `image`.
    pub(super) image_class: Option<String>,
    /// Sentences about what readers of the folder cannot do.
    pub(super) notes: &'a [String],
}

/// Settings of a run that its card lists.
const SETTINGS: [&str; 22] = [
    "student",
    "teacher",
    "pooling",
    "target",
    "loss",
    "temperature",
    "optimizer",
    "learn-rate",
    "weight-decay",
    "schedule",
    "warmup-steps",
    "layer-decay",
    "freeze-layers",
    "ema",
    "batch-size",
    "max-epochs",
    "max-sequence-length",
    "normalize",
    "seed",
    "precision",
    "dataset",
    "pairs",
];

/// Figures of one kind on one set.
struct Scores {
    /// The hub's name of the task.
    task: &'static str,
    /// The hub's name of the set.
    set: &'static str,
    title: String,
    /// What is measured, the shares, and of how many queries they are.
    rows: Vec<(&'static str, AtK, usize)>,
}

/// The whole text.
pub(super) fn render(card: &Card) -> Result<String> {
    let scores = scores(&card.source.trained.eval)?;
    Ok(format!("---\n{}---\n\n{}", head(card, &scores), body(card, &scores)?))
}

/// The metadata, in YAML.
fn head(card: &Card, scores: &[Scores]) -> String {
    let config = &card.source.trained.config;
    let (library, pipeline, tag) = match card.program {
        Program::SentenceTransformers => ("sentence-transformers", "sentence-similarity", "sentence-transformers"),
        Program::OpenClip => ("open_clip", "zero-shot-image-classification", "open_clip"),
    };
    let mut yaml = format!("language:\n- es\nlibrary_name: {library}\npipeline_tag: {pipeline}\n");
    let mut list = |key: &str, values: Vec<String>| {
        if !values.is_empty() {
            yaml += &format!("{key}:\n");
            values.iter().for_each(|value| yaml += &format!("- {}\n", quoted(value)));
        }
    };
    let bases = [&config.models.student, &config.models.teacher];
    list("base_model", bases.into_iter().filter_map(|name| on_the_hub(Kind::Model, name)).collect());
    let sets = config.data.dataset.iter().filter_map(|name| {
        let rest = name.strip_prefix("hub:")?;
        on_the_hub(Kind::DataSet, rest.split(':').next().unwrap_or(rest))
    });
    if card.source.trained.has_settings() {
        list("datasets", sets.collect());
    }
    let tags = ["clip", "distillation", "image-search", "multimodal", "themo", tag];
    list("tags", tags.map(str::to_owned).to_vec());
    if !scores.is_empty() {
        yaml += &format!("model-index:\n- name: {}\n  results:\n", quoted(&title(card.source.place)));
        for scores in scores {
            yaml += &format!("  - task:\n      type: {}\n    dataset:\n      type: {}\n", scores.task, scores.set);
            yaml += &format!("      name: {}\n    metrics:\n", quoted(&scores.title));
            for (what, at, _) in &scores.rows {
                for (k, value) in KS.iter().zip(at.values) {
                    let (kind, name) = (format!("{}@{k}", at.name), format!("{}@{k}, {what}", at.name));
                    yaml += &format!("    - type: {}\n      value: {}\n", quoted(&kind), number(value));
                    yaml += &format!("      name: {}\n", quoted(&name));
                }
            }
        }
    }
    yaml
}

/// A number as YAML 1.1 and 1.2 read it: with a point, and without the exponent that 1.1 takes for a word (`1e-5`).
fn number(value: f64) -> String {
    let text = value.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

/// `owner/name` where that is what `name` means, and not a folder.
fn on_the_hub(kind: Kind, name: &str) -> Option<String> {
    let id = Id::parse(kind, name).filter(|id| id.id.contains('/') && !Path::new(name).exists())?;
    Some(id.id.to_owned())
}

/// The last part of where the folder will be found.
fn title(place: &str) -> String {
    place.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or("themo").to_owned()
}

fn body(card: &Card, scores: &[Scores]) -> Result<String> {
    let (source, student) = (card.source, card.source.student);
    let config = &source.trained.config;
    let mut text = format!("# {}\n\n", markdown(&title(source.place)));
    text += &format!(
        "A Spanish text encoder in the space of CLIP: it gives a Spanish sentence the vector that {} gives its English \
         translation, so that Spanish texts find images and name them. It was distilled with themo.\n\n",
        markdown(&config.models.teacher)
    );
    let outputs = super::head::outputs(source)?;
    text += &format!(
        "Texts of at most {} tokens become vectors of {outputs} numbers ({} pooling); compare them by cosine.\n\n## Use\n\n",
        source.max_tokens(),
        format!("{:?}", student.head().pooling).to_lowercase()
    );
    text += &snippets(card);
    for note in card.notes {
        text += &format!("{}\n\n", markdown(note));
    }
    text += "## Training\n\n";
    text += &settings(card)?;
    text += "## Results\n\n";
    text += &results(scores);
    text += "## Limits\n\n\
             - Texts are Spanish; no other language was trained or measured.\n\
             - CLIP's own limits and biases are in these vectors: it was trained on uncurated image and text pairs of the \
             web, and knows little of counting, spelling and fine classes.\n\
             - The images of XTD10 are from MSCOCO. Captions of these images, or translations of them, are in many sets of \
             caption pairs; where a student was trained on such a set, its figures on XTD10 are too high.\n\
             - An interval covers the choice of the queries only, not that of the seed.\n";
    if card.image_class.is_some() || card.program == Program::OpenClip {
        let transparency = config.evaluation.transparency.name();
        text += &format!(
            "- Transparent pixels: the figures above are for `{transparency}` (alpha dropped, or laid over white); other \
             programs may do otherwise. Convert images to RGB first.\n"
        );
    }
    Ok(text)
}

/// How the folder is loaded, as Python that runs as it stands.
fn snippets(card: &Card) -> String {
    let place = card.source.place;
    match card.program {
        Program::SentenceTransformers => {
            let mut text = format!(
                "```python\nfrom sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer({})\n\
                 texts = model.encode([\"una luna azul\", \"un gato en la nieve\"], normalize_embeddings=True)\n\
                 print(texts.shape)\n```\n\n",
                quoted(place)
            );
            if let Some(class) = &card.image_class {
                text += &format!(
                    "Images, by the image tower of the teacher in the folder `image`, after the lines above:\n\n\
                     ```python\nimport torch\nfrom PIL import Image\nfrom transformers import CLIPImageProcessor, {class}\n\n\
                     processor = CLIPImageProcessor.from_pretrained({0}, subfolder=\"image\")\n\
                     tower = {class}.from_pretrained({0}, subfolder=\"image\").eval()\n\
                     image = Image.new(\"RGB\", (320, 240), \"blue\")  # or Image.open(\"photo.jpg\").convert(\"RGB\")\n\
                     with torch.no_grad():\n    \
                     images = tower(**processor(image, return_tensors=\"pt\")).image_embeds\n\
                     print(model.similarity(texts, images))\n```\n\n",
                    quoted(place)
                );
            }
            text
        }
        Program::OpenClip => {
            let schema = if card.source.hub_name.is_some() { "hf-hub" } else { "local-dir" };
            format!(
                "```python\nimport open_clip\nimport torch\nfrom PIL import Image\n\nname = {}\n\
                 model, preprocess = open_clip.create_model_from_pretrained(name)\n\
                 tokenizer = open_clip.get_tokenizer(name)\n\
                 image = Image.new(\"RGB\", (320, 240), \"blue\")  # or Image.open(\"photo.jpg\").convert(\"RGB\")\n\
                 with torch.no_grad():\n    \
                 texts = model.encode_text(tokenizer([\"una luna azul\", \"un gato en la nieve\"]), normalize=True)\n    \
                 images = model.encode_image(preprocess(image).unsqueeze(0), normalize=True)\n\
                 print(texts @ images.T)\n```\n\n",
                quoted(&format!("{schema}:{place}"))
            )
        }
    }
}

/// The table of settings.
fn settings(card: &Card) -> Result<String> {
    let trained = card.source.trained;
    if !trained.has_settings() {
        return Ok("The settings of the run are not known: its checkpoint came by itself.\n\n".to_owned());
    }
    let all = toml::Table::try_from(&trained.config).map_err(|e| Error::new(e.to_string()))?;
    let mut text = "| setting | value |\n|---|---|\n".to_owned();
    for (key, value) in SETTINGS.iter().filter_map(|key| Some((key, all.get(*key)?))) {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Array(values) if values.is_empty() => continue,
            Value::Array(values) => {
                let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                values.iter().map(plain).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        text += &format!("| {key} | {} |\n", markdown(&value));
    }
    Ok(text + "\n")
}

/// The tables of results, each share with its 95% interval.
fn results(scores: &[Scores]) -> String {
    if scores.is_empty() {
        return "Not measured yet: `themo test` had not been run when this was written.\n\n".to_owned();
    }
    let mut text = String::new();
    for scores in scores {
        let name = scores.rows.first().map_or("", |(_, at, _)| at.name);
        text += &format!("{}\n\n| |", markdown(&scores.title));
        KS.iter().for_each(|k| text += &format!(" {name}@{k} |"));
        text += "\n|---|---|---|---|\n";
        for (what, at, queries) in &scores.rows {
            text += &format!("| {what} |");
            for value in at.values {
                let [low, high] = wilson((value * *queries as f64).round() as usize, *queries);
                text += &format!(" {value:.4} ({low:.3} to {high:.3}) |");
            }
            text += "\n";
        }
        text += "\n";
    }
    text + "In brackets: Wilson's 95% interval. Ties count against the model.\n\n"
}

/// What `themo test` wrote into the run's folder `eval`.
fn scores(eval: &Path) -> Result<Vec<Scores>> {
    let mut all = Vec::new();
    if let Some(found) = read(&eval.join("retrieval.json"), |found| {
        let counts = (count(found, "captions")?, count(found, "images")?);
        Some((counts, shares(&found["text_to_image"], "recall")?, shares(&found["image_to_text"], "recall")?))
    })? {
        let ((captions, images), to_image, to_text) = found;
        let name = if (captions, images) == (1000, 1000) { "XTD10, Spanish" } else { "A set of the user" };
        all.push(Scores {
            task: "image-text-retrieval",
            set: "retrieval",
            title: format!("{name}: {captions} captions, {images} images"),
            rows: vec![("text to image", to_image, captions), ("image to text", to_text, images)],
        });
    }
    if let Some(found) = read(&eval.join("classification.json"), |found| {
        Some((count(found, "images")?, count(found, "classes")?, shares(found, "accuracy")?, count(found, "skipped")))
    })? {
        let (images, classes, accuracy, skipped) = found;
        let whole = (classes, images + skipped.unwrap_or(0)) == (1000, 50_000);
        let name = if whole { "ImageNet, Spanish class names" } else { "A set of the user" };
        all.push(Scores {
            task: "zero-shot-image-classification",
            set: "classification",
            title: format!("{name}: {images} images, {classes} classes"),
            rows: vec![("zero-shot", accuracy, images)],
        });
    }
    Ok(all)
}

fn count(found: &serde_json::Value, key: &str) -> Option<usize> {
    found[key].as_u64().map(|count| count as usize)
}

/// The shares called `name` among the figures of a file of results.
fn shares(found: &serde_json::Value, name: &'static str) -> Option<AtK> {
    let [one, five, ten] = KS.map(|k| found[format!("{name}@{k}")].as_f64());
    Some(AtK { name, values: [one?, five?, ten?] })
}

/// What `figures` takes of a file of results; none where it was not measured.
fn read<T>(path: &Path, figures: impl Fn(&serde_json::Value) -> Option<T>) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))?;
    let found = serde_json::from_str(&text).ok().and_then(|found| figures(&found));
    let what = || Error::new(format!("{} does not hold figures of `themo test`", path.display()));
    found.map(Some).ok_or_else(|| what().hint("run `themo test` again, or remove the file"))
}
