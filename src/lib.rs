//! themo teaches a Spanish BERT to speak CLIP: it distils the text tower of a frozen CLIP into a Spanish encoder, so
//! that Spanish sentences and images meet in one space, and measures how well they do.
//!
//! # Map
//!
//! Arrows point down only; siblings do not import each other.
//!
//! | module | what is there |
//! |---|---|
//! | `main.rs` | parses the arguments, runs a command, prints its error and hint |
//! | [`cli`] | the command line, clap definitions only |
//! | [`commands`] | one file a subcommand: arguments to [`config`], objects, library calls |
//! | [`train`] | the fit loop and what only training needs: step, loss, optimizer, stopping, checkpoints, the journal of a run |
//! | [`eval`] | metrics (pure), retrieval, classification, the report |
//! | [`report`] | events to progress bars, `metrics.csv` and TensorBoard |
//! | [`data`] | readers (WIT, TSV, XTD10, ImageNet), tokenizers, image preprocessing, the teacher feature cache |
//! | [`models`] | the encoder and its towers (student, CLIP text, CLIP image), checkpoint names and formats |
//! | [`nn`] | operations with forward and backward, each with a fast and a plain-tensor path |
//! | [`hub`] | models by name: a folder, or the Hugging Face hub and its cache |
//! | [`config`], [`run_dir`], [`device`], [`download`], [`interval`], [`signals`], [`status`], [`rng`], [`error`] | leaves |
//!
//! # One packed encoder, explicit backward
//!
//! All towers are one transformer encoder ([`models::encoder`]) with different settings, on *packed* batches: the
//! tokens of all sequences one after another, `[tokens, hidden]`, and where each sequence starts ([`nn::Rows`]).
//! Nothing is padded. Each operation in [`nn`] is a forward function and a backward function; candle tensors are the
//! storage and the devices, and candle's autograd serves only for the loss, on `[batch, dim]` outputs.

pub mod cli;
pub mod commands;
pub mod config;
pub mod data;
pub mod device;
pub mod download;
pub mod error;
pub mod eval;
pub mod fs;
pub mod hub;
pub mod interval;
pub mod models;
pub mod nn;
pub mod record;
pub mod report;
pub mod rng;
pub mod runs;
pub mod signals;
pub mod train;
pub mod ui;
