//! themo teaches a Spanish BERT to speak CLIP: it distils the text tower of a frozen CLIP into a Spanish encoder, so
//! that Spanish sentences and images meet in one space, and measures how well they do.
//!
//! The manual is [`guide`]; this page is for users and authors of the code.
//!
//! # Example
//!
//! Embed three sentences with the text tower of the bundled demo's CLIP, and compare them by cosine:
//!
//! ```
//! use std::path::Path;
//!
//! use candle_core::Device;
//! use themo::compute::Compute;
//! use themo::data::tokens::TextTokenizer;
//! use themo::eval::TextEmbedder;
//! use themo::eval::towers::TeacherTexts;
//! use themo::models::ClipText;
//!
//! # fn main() -> themo::error::Result<()> {
//! let folder = Path::new("data/demo/models/toy-clip");
//! let teacher = ClipText::load(folder, &Compute::new(Device::Cpu))?;
//! let tokenizer = TextTokenizer::from_folder(folder, teacher.max_tokens())?;
//! let clip = TeacherTexts { tokenizer: &tokenizer, teacher: &teacher };
//!
//! let sentences = ["a picture of a big green triangle", "a large green triangle", "two small pink hearts"].map(String::from);
//! let rows = clip.embed_texts(&sentences)?; // [3, dim], each of length 1
//! let row = |i: usize| &rows[i * clip.dim()..(i + 1) * clip.dim()];
//! let cosine = |i, j| row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum::<f32>();
//! assert!(cosine(0, 1) > cosine(0, 2));
//! # Ok(())
//! # }
//! ```
//!
//! A student is used in the same way: [`Student::from_checkpoint`](models::Student::from_checkpoint) loads the folder of a
//! checkpoint, and [`StudentTexts`](eval::towers::StudentTexts) takes the place of `TeacherTexts`.
//!
//! # Map
//!
//! A module uses modules of the rows below its own only, and none of its own row; `tests/house.rs` holds it to that.
//!
//! | module | what is there |
//! |---|---|
//! | `main.rs` | parses the arguments, runs a command, prints its error and hint |
//! | [`commands`] | one thin file for each subcommand: arguments in, library call, text out |
//! | [`cli`] | the command line: clap definitions only |
//! | [`train`] | a training run: resolve, prepare, train, report; the [`Trainer`](train::Trainer) with its steps and epochs; loss, optimizer, schedule, the teacher's features |
//! | [`report`] | results as tables and JSON, and published figures |
//! | [`export`] | a student as other programs load it: sentence-transformers, open_clip; model cards |
//! | [`eval`] | the sets, retrieval, classification, the baseline, metrics (pure), vectors to a file |
//! | [`runs`] | what a run has on disk: folder, lock, status, state, checkpoints, journal, resume, the Python Themo's runs, the listing |
//! | [`record`] | the record of a run: `metrics.csv`, TensorBoard, `hparams.yaml`, `environment.json` |
//! | [`config`] | the settings of a run: one flat TOML table whose keys are the flags |
//! | [`ui`] | what a person sees: progress bars, log, results; models and data sets fetched with a bar |
//! | [`sets`] | data sets by name: the table of what is known, fetching and checking their files |
//! | [`models`] | the encoder and its towers (student, CLIP text, CLIP image, M-CLIP): `kinds` (supported models), `layer` (one layer), `load` (modules from a VarBuilder), `padded` (the student as a candle module), `folder` (the files of a model), `weights` (names of tensors, files of safetensors and PyTorch) |
//! | [`hub`] | models and data sets of the Hugging Face hub, and its cache |
//! | [`data`] | readers (WIT, files of pairs, XTD10, ImageNet), `data::cleaning` of pairs, `data::tokenizer` (transformers' tokenizers), `data::image` (a file for each image format), prepared sets of pairs |
//! | [`cache`] | what was computed once: digests of files, and a store for each model's features, found by their content |
//! | [`compute`] | where and how a model computes: device, precision, and the implementation they lead to |
//! | [`nn`] | operations with forward and backward, each with a fast and a plain-tensor path; the layers as candle modules |
//! | [`download`], [`interval`], [`clock`], [`signals`], [`rng`], [`alloc`], [`simd`], [`guide`] | downloads, intervals, the time, signals, random numbers, memory, vector instructions; the manual |
//! | [`fs`] | files written whole, outputs of all kinds, names in messages |
//! | [`error`] | the one error type |
//!
//! # One packed encoder, explicit backward
//!
//! All towers are one transformer encoder ([`models::encoder`]) with different settings, on *packed* batches: the
//! tokens of all sequences one after another, `[tokens, hidden]`, and where each sequence starts ([`nn::Rows`]).
//! Nothing is padded. Each operation in [`nn`] is a forward function and a backward function; candle tensors are the
//! storage and the devices, and candle's autograd serves only for the loss, on `[batch, dim]` outputs.

pub mod alloc;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod compute;
pub mod config;
pub mod data;
pub mod download;
pub mod error;
pub mod eval;
pub mod export;
pub mod fs;
pub mod guide;
pub mod hub;
pub mod interval;
pub mod models;
pub mod nn;
pub mod record;
pub mod report;
pub mod rng;
pub mod runs;
pub mod sets;
pub mod signals;
#[doc(hidden)]
pub mod simd;
pub mod train;
pub mod ui;
