//! What was computed once and is found again, by all that it depends on.
//!
//! | file | holds |
//! |---|---|
//! | [`key`] | names for results, made of what they depend on |
//! | [`digests`] | digests of files, remembered from call to call |
//! | [`store`] | what a model computed: rows of numbers, found by the digest of their content |

pub mod digests;
pub mod key;
pub mod store;

pub use digests::Digests;
pub use key::Key;
pub use store::Store;
