//! Pooling and projections, as linear layers of other programs.

use candle_core::{DType, Device, Tensor};

use super::Source;
use crate::error::{Error, Result};
use crate::models::clip::ClipConfig;
use crate::models::clip_text::text_projection;

/// A linear layer: weight `[outputs, inputs]` and bias `[outputs]`, f32.
pub(super) struct Dense {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
}

/// What leads from pooled states into the space shared with images.
pub(super) enum Head {
    /// The student's projection W (with its bias b) and the teacher's P, as P W (and P b).
    Merged(Dense),
    /// With the final norm between them: the first layer, the norm's weight and bias, the second layer.
    Normed(Dense, [Tensor; 2], Dense),
}

impl Head {
    /// The head of a student. Products are computed in f64 and rounded once.
    pub(super) fn of(source: &Source) -> Result<Self> {
        let teacher = text_projection(source.teacher, &Device::Cpu)?; // [embed, dim]
        let (ours, theirs) = (source.student.dim(), teacher.dim(1)?);
        if ours != theirs {
            return Err(Error::new(format!(
                "the student gives vectors of {ours} numbers, the teacher {} takes {theirs}",
                source.teacher.display()
            ))
            .hint("--teacher must be the CLIP that the student was trained on"));
        }
        let (weight, bias) = source.student.projection();
        if let Some((scale, shift)) = source.student.final_norm() {
            let first = Dense { weight: weight.clone(), bias: bias.cloned() };
            return Ok(Self::Normed(first, [scale.clone(), shift.clone()], Dense { weight: teacher, bias: None }));
        }
        let p = teacher.to_dtype(DType::F64)?;
        let weight = p.matmul(&weight.to_dtype(DType::F64)?)?.to_dtype(DType::F32)?;
        let bias = match bias {
            Some(bias) => {
                let column = bias.to_dtype(DType::F64)?.unsqueeze(1)?;
                Some(p.matmul(&column)?.squeeze(1)?.to_dtype(DType::F32)?)
            }
            None => None,
        };
        Ok(Self::Merged(Dense { weight, bias }))
    }
}

/// Width of the space shared with images.
pub(super) fn outputs(source: &Source) -> Result<usize> {
    Ok(ClipConfig::from_folder(source.teacher)?.projection_dim)
}
