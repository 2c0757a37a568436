//! The manual, task by task: each page shows a command, its output, and what the output means.
//!
//! | page | answers |
//! |---|---|
//! | [`data`] | Which files does themo read for training and for evaluation? Where do they come from? |
//! | [`training`] | How do I train on my own captions? Which models can I use? How do settings combine? |
//! | [`runs`] | What does a run leave on disk? How do I stop and resume it? |
//! | [`evaluation`] | How good is my student? How do I compare it, and embed my own texts and images? |
//! | [`export`] | How do I load a student in sentence-transformers or open_clip? |
//! | [`recipes`] | Which loss, target, optimizer and schedule should I choose? |
//! | [`performance`] | How fast is it, how much memory does it take, what about GPUs? |
//! | [`formats`] | Which models, tokenizers, weights and images are supported? What do the output files hold? |
//!
//! The commands are for the root of the repository, with `themo` installed by `cargo install --path .`; from source,
//! write `cargo run --release --` in place of `themo`. `tests/guide.rs` parses every command and runs those on the demo.

/// A page. Its links to other pages end in definitions such as `[runs]: runs.md`, for readers of the file; in rustdoc the
/// definitions here come first and win.
macro_rules! page {
    ($name:ident, $file:literal) => {
        #[doc = concat!(
                    "[data]: crate::guide::data\n[training]: crate::guide::training\n[runs]: crate::guide::runs\n",
                    "[evaluation]: crate::guide::evaluation\n[export]: crate::guide::export\n[recipes]: crate::guide::recipes\n",
                    "[performance]: crate::guide::performance\n[formats]: crate::guide::formats\n\n",
                    include_str!($file)
                )]
        pub mod $name {}
    };
}

page!(data, "data.md");
page!(training, "training.md");
page!(runs, "runs.md");
page!(evaluation, "evaluation.md");
page!(export, "export.md");
page!(recipes, "recipes.md");
page!(performance, "performance.md");
page!(formats, "formats.md");
