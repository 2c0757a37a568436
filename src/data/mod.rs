//! Readers of everything themo learns from or is measured on. Knows files and pixels, nothing of models.
//!
//! | file | reads |
//! |---|---|
//! | [`wit`], `wit_report` | Wikipedia Image-Text shards: Spanish/English caption pairs |
//! | [`pairs`] | the same from TSV, CSV, JSON lines, Parquet and moses files |
//! | [`cleaning`] | what is made alike in caption pairs, and left out of them |
//! | [`tally`] | counts by kind with first examples, for reports |
//! | [`pair_set`] | a set of pairs as one memory-mapped file |
//! | [`text`], `gzip`, `zstd`, `ahead`, `damage` | lines of text and lists, from plain or compressed files, unpacked ahead of their use |
//! | `quoted` | rows of tab-separated text with quoted fields, for [`wit`] |
//! | [`xtd10`] | XTD10 captions and their MSCOCO images, for retrieval |
//! | [`crossmodal`] | Crossmodal-3600 |
//! | [`karpathy`] | COCO and Flickr30k in Karpathy's splits |
//! | [`caption_file`] | one's own captions of images |
//! | [`captioned`] | images with captions, which these readers give |
//! | [`imagenet`] | ImageNet's validation set, for zero-shot classification |
//! | `imagenet_tree`, `imagenet_labels` | where its images lie; annotations and solution, for [`imagenet`] |
//! | [`class_names`] | Spanish class names with their grammar, and prompts |
//! | [`image`] | one image file as CLIP wants it |
//! | [`stream`] | many image files, decoded ahead of their use |
//! | [`tokens`] | captions as token ids |
//! | `tokenizer` | the tokenizer of a model folder as transformers makes it, for [`tokens`] |
//! | `guard` | panics of other crates' decoders as errors |
//!
//! Damaged rows of training text are counted, reported once and skipped; a damaged file is an error that names it.

mod ahead;
pub mod caption_file;
pub mod captioned;
pub mod class_names;
pub mod cleaning;
pub mod crossmodal;
mod damage;
mod guard;
mod gzip;
pub mod image;
pub mod imagenet;
mod imagenet_labels;
mod imagenet_tree;
pub mod karpathy;
pub mod pair_set;
pub mod pairs;
mod quoted;
pub mod stream;
pub mod tally;
pub mod text;
mod tokenizer;
pub mod tokens;
pub mod wit;
mod wit_report;
pub mod xtd10;
mod zstd;

pub use image::Preprocess;
pub use pair_set::PairSet;
pub use pairs::Pair;
pub use stream::for_each_batch;

pub(crate) use crate::error::first_few;
