//! Sums of embedding rows: word + position (+ token type).

use candle_core::Tensor;
use rayon::prelude::*;

use super::storage::{Slice, tensor};
use super::{Backend, Gradients, Param};
use crate::error::{Error, Result};

/// One table `[rows, hidden]` and the row that each token takes from it.
pub struct Lookup<'a> {
    pub table: &'a Param,
    pub indices: &'a [u32],
}

fn check(lookups: &[Lookup]) -> Result<(usize, usize)> {
    let (n, width) = (lookups[0].indices.len(), lookups[0].table.value.dim(1)?);
    for Lookup { table, indices } in lookups {
        let rows = table.value.dim(0)?;
        if let Some(index) = indices.iter().find(|i| **i as usize >= rows) {
            return Err(Error::new(format!("index {index} is outside an embedding table of {rows} rows"))
                .hint("the tokenizer and the model do not belong together"));
        }
    }
    Ok((n, width))
}

/// The sum of the looked-up rows, `[tokens, hidden]`.
pub fn forward(backend: Backend, lookups: &[Lookup]) -> Result<Tensor> {
    let (n, width) = check(lookups)?;
    if backend == Backend::Plain {
        let mut total: Option<Tensor> = None;
        for Lookup { table, indices } in lookups {
            let rows = table.value.index_select(&Tensor::new(*indices, table.value.device())?, 0)?;
            total = Some(match total {
                Some(total) => (total + rows)?,
                None => rows,
            });
        }
        return total.ok_or_else(|| Error::new("no embedding table"));
    }
    let mut out = vec![0.0; n * width];
    for Lookup { table, indices } in lookups {
        let table = Slice::new(&table.value)?;
        let table: &[f32] = &table;
        out.par_chunks_mut(width).zip(*indices).with_min_len(64).for_each(|(out, &index)| {
            let row = &table[index as usize * width..][..width];
            out.iter_mut().zip(row).for_each(|(o, v)| *o += v);
        });
    }
    tensor(out, (n, width))
}

/// Adds `dy` `[tokens, hidden]` to the gradient rows of every table that were looked up.
pub fn backward(backend: Backend, lookups: &[Lookup], dy: &Tensor, grads: &mut Gradients) -> Result<()> {
    let (_, width) = check(lookups)?;
    for Lookup { table, indices } in lookups {
        match backend {
            Backend::Plain => {
                let zeros = table.value.zeros_like()?;
                let indices = Tensor::new(*indices, table.value.device())?;
                grads.add(table, &zeros.index_add(&indices, dy, 0)?)?;
            }
            Backend::Fast | Backend::Bf16 => {
                let dy = Slice::new(dy)?;
                grads.edit_rows(table, indices, |gradient| {
                    for (row, &index) in dy.chunks_exact(width).zip(*indices) {
                        let to = &mut gradient[index as usize * width..][..width];
                        to.iter_mut().zip(row).for_each(|(g, d)| *g += d);
                    }
                })?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Params;
    use super::super::testing::*;
    use super::*;

    #[test]
    fn fast_and_plain_agree_and_repeated_tokens_add_up() {
        let (ids, positions) = ([4u32, 0, 4, 4, 2], [0u32, 1, 2, 0, 1]);
        let results = BACKENDS.map(|backend| {
            let mut params = Params::default();
            let word = params.add(vec!["word".into()], &random(1, (6, 9))).unwrap();
            let position = params.add(vec!["position".into()], &random(2, (3, 9))).unwrap();
            let lookups = [Lookup { table: &word, indices: &ids }, Lookup { table: &position, indices: &positions }];
            let mut grads = Gradients::zeros(&params).unwrap();
            let y = forward(backend, &lookups).unwrap();
            backward(backend, &lookups, &random(3, (5, 9)), &mut grads).unwrap();
            [y, grads.of(&word).unwrap().clone(), grads.of(&position).unwrap().clone()]
        });
        for (fast, plain) in results[0].iter().zip(&results[1]) {
            assert_close(fast, plain, 1e-6);
        }
        let mut params = Params::default();
        let word = params.add(vec!["word".into()], &random(1, (6, 9))).unwrap();
        assert!(forward(Backend::Fast, &[Lookup { table: &word, indices: &[6] }]).is_err());
    }
}
