//! The student as a candle module: padded ids in, one vector a row out.

use candle_core::{Module, Result, Tensor};

use super::Student;
use crate::nn::Tokens;

/// A student that takes `[n, length]` u32 ids with padding at the end of each row. It packs them, so that padding costs
/// nothing, and returns `[n, dim]`. (CLIP's towers need no padding's id: they are candle modules themselves.)
pub struct Padded {
    /// The student.
    pub student: Student,
    /// The padding's id.
    pub padding: u32,
}

impl Module for Padded {
    /// Sentence vectors, without dropout.
    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let mut sequences = ids.to_vec2::<u32>()?;
        for ids in &mut sequences {
            let length = ids.iter().rposition(|id| *id != self.padding).map_or(0, |last| last + 1);
            ids.truncate(length);
        }
        Ok(self.student.embed(&Tokens::pack(&sequences, 0)?)?)
    }
}
