//! val/recall@1 during training: how often a Spanish caption ranks the vector it belongs to first.

use std::collections::HashMap;

use candle_core::Tensor;

use super::expect_rows;
use super::metrics::{AtK, ranks};
use super::towers::{in_batches, normalise};
use crate::error::{Error, Result};
use crate::models::Student;

/// Spanish captions, and the teacher's vectors among which each looks for its own.
pub struct Probe {
    captions: Vec<Vec<u32>>,
    keys: Vec<f32>, // [keys, dim], L2-normalised
    key_of: Vec<usize>,
    text_projection: Tensor, // [dim, hidden]
}

impl Probe {
    /// Token ids of the captions, vectors `[keys, dim]` in the shared space, and which of them is each caption's;
    /// `text_projection` takes the student's output there.
    pub fn new(
        captions: Vec<Vec<u32>>, mut keys: Vec<f32>, key_of: Vec<usize>, text_projection: Tensor,
    ) -> Result<Self> {
        let dim = text_projection.dim(0)?;
        expect_rows("the probe", &keys, keys.len() / dim, dim)?;
        normalise(&mut keys, dim);
        Ok(Self { captions, keys, key_of, text_projection })
    }

    /// A probe whose keys are the English captions; `latent` returns the teacher's vectors of some of them, before its
    /// projection. Equal captions share one key.
    pub fn of_captions(
        captions: Vec<Vec<u32>>, english: &[&str], latent: &dyn Fn(&[usize]) -> Result<Tensor>, text_projection: Tensor,
    ) -> Result<Self> {
        let (mut first, mut place) = (Vec::new(), HashMap::new());
        let key_of = english.iter().enumerate().map(|(i, text)| {
            *place.entry(*text).or_insert_with(|| {
                first.push(i);
                first.len() - 1
            })
        });
        let key_of = key_of.collect();
        let keys = latent(&first)?.matmul(&text_projection.t()?)?.flatten_all()?.to_vec1()?;
        Self::new(captions, keys, key_of, text_projection)
    }

    /// recall@1: the share of captions that rank their own key first; ties count against the student.
    ///
    /// # Errors
    /// One of the kind [`Kind::Stopped`](crate::error::Kind::Stopped) once `should_stop` says so.
    pub fn recall_at_1(&self, student: &Student, should_stop: &dyn Fn() -> bool) -> Result<f64> {
        let projection = self.text_projection.t()?;
        let mut queries = in_batches(&self.captions, |tokens| match should_stop() {
            true => Err(Error::stopped("stopped while val/recall@1 was measured")),
            false => Ok(student.embed(tokens)?.matmul(&projection)?),
        })?;
        let dim = self.text_projection.dim(0)?;
        normalise(&mut queries, dim);
        let own = |i: usize| std::slice::from_ref(&self.key_of[i]);
        Ok(AtK::of_ranks("recall", &ranks(&queries, &self.keys, dim, own)).values[0])
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use crate::compute::Compute;
    use crate::models::student::Head;
    use crate::nn::{Pooling, Tokens};

    #[test]
    fn a_student_that_is_its_own_teacher_finds_all_and_equal_captions_are_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-bert");
        let student = Student::load(&folder, Head::new(Pooling::Mean, 20), 0, &Compute::new(Device::Cpu)).unwrap();
        let captions: Vec<Vec<u32>> = (0..6).map(|i| vec![4, 10 + i / 2, 5]).collect();
        let projection = Tensor::randn(0f32, 1.0, (8, 20), &Device::Cpu).unwrap();
        let latent = |rows: &[usize]| {
            let chosen: Vec<&Vec<u32>> = rows.iter().map(|i| &captions[*i]).collect();
            student.embed(&Tokens::pack(&chosen, 0)?)
        };
        let recall = |english: &[&str], latent: &dyn Fn(&[usize]) -> Result<Tensor>| {
            let probe = Probe::of_captions(captions.clone(), english, latent, projection.clone()).unwrap();
            let stopped = probe.recall_at_1(&student, &|| true).unwrap_err();
            assert_eq!(stopped.kind(), crate::error::Kind::Stopped);
            probe.recall_at_1(&student, &|| false).unwrap()
        };
        // Captions 0 and 1, 2 and 3, 4 and 5 are equal in Spanish; if they are not in English, they tie.
        assert_eq!(recall(&["a", "a", "b", "b", "c", "c"], &latent), 1.0);
        assert_eq!(recall(&["a", "a", "b", "b", "c", "d"], &latent), 4.0 / 6.0);
        let same = |rows: &[usize]| Ok(Tensor::ones((rows.len(), 20), candle_core::DType::F32, &Device::Cpu)?);
        assert_eq!(recall(&["a", "b", "c", "d", "e", "f"], &same), 0.0);
    }
}
