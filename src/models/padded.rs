//! Text towers as candle modules: padded ids in, one vector a row out.

use candle_core::{Module, Result, Tensor};

use super::{ClipText, Student};
use crate::nn::Tokens;

/// A tower that takes `[n, length]` u32 ids with padding at the end of each row; it packs them, so that padding costs
/// nothing, and returns `[n, dim]`.
pub struct Padded<T> {
    /// The tower.
    pub tower: T,
    /// The padding's id.
    pub padding: u32,
}

impl<T> Padded<T> {
    /// The rows without their padding.
    fn sequences(&self, ids: &Tensor) -> Result<Vec<Vec<u32>>> {
        let mut rows = ids.to_vec2::<u32>()?;
        for row in &mut rows {
            let length = row.iter().rposition(|id| *id != self.padding).map_or(0, |last| last + 1);
            row.truncate(length);
        }
        Ok(rows)
    }
}

impl Module for Padded<Student> {
    /// Sentence vectors, without dropout.
    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(self.tower.embed(&Tokens::pack(&self.sequences(ids)?, 0)?)?)
    }
}

impl Module for Padded<ClipText> {
    /// The pooled states before the text projection, the target of the distillation. CLIP pads with its end-of-text token,
    /// so rows are cut after the first one instead.
    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let mut sequences = ids.to_vec2::<u32>()?;
        sequences.iter_mut().try_for_each(|ids| self.tower.cut(ids))?;
        Ok(self.tower.pooled(&Tokens::pack(&sequences, 0)?, None)?)
    }
}
