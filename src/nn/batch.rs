//! What the forward and the backward pass of one packed batch share.

use super::dropout::{Dropout, Mask, Site};
use super::rows::{Rows, Tokens};

/// A packed batch and the dropout of the step, for a forward pass and its backward pass.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The sequences.
    pub tokens: &'a Tokens,
    /// The dropout of a training step.
    pub dropout: Option<&'a Dropout>,
}

impl<'a> Batch<'a> {
    /// Without dropout.
    pub fn plain(tokens: &'a Tokens) -> Self {
        Self { tokens, dropout: None }
    }

    /// The layout.
    pub fn rows(self) -> &'a Rows {
        &self.tokens.rows
    }

    /// The masks of a site; none if nothing is dropped there.
    pub fn mask(self, site: Site) -> Option<Mask<'a>> {
        self.dropout.and_then(|dropout| dropout.at(site, &self.tokens.rows))
    }
}
