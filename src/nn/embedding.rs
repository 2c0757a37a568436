//! Sums of embedding rows: word + position (+ token type).

use candle_core::Tensor;
use rayon::prelude::*;

use super::storage::{Slice, tensor};
use super::{Backend, Gradients, Param, Rows};
use crate::error::{Error, Result};

/// An embedding table `[rows, hidden]` as a layer.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: Param,
    backend: Backend,
}

impl Embedding {
    /// From its table `[rows, hidden]`, for `backend`.
    pub fn new(table: Param, backend: Backend) -> Self {
        Self { table, backend }
    }
}

/// One table and the row that each token takes from it.
pub struct Lookup<'a> {
    /// The table, `[rows, hidden]`.
    pub embedding: &'a Embedding,
    /// For each token its row, `[tokens]`, counted from 0.
    pub indices: &'a [u32],
}

impl Lookup<'_> {
    fn table(&self) -> &Tensor {
        &self.embedding.table.value
    }
}

fn check(lookups: &[Lookup]) -> Result<(usize, usize)> {
    let first = lookups.first().ok_or_else(|| Error::new("no embedding table"))?;
    let (n, width) = (first.indices.len(), first.table().dim(1)?);
    for lookup in lookups {
        let rows = lookup.table().dim(0)?;
        if let Some(index) = lookup.indices.iter().find(|i| **i as usize >= rows) {
            return Err(Error::new(format!("index {index} is outside an embedding table of {rows} rows"))
                .hint("the tokenizer and the model do not belong together"));
        }
    }
    Ok((n, width))
}

/// The sum of the looked-up rows, `[tokens, hidden]`, of a batch with the layout `rows`.
pub fn forward(lookups: &[Lookup], rows: &Rows) -> Result<Tensor> {
    let (n, width) = check(lookups)?;
    if lookups[0].embedding.backend == Backend::Plain {
        let taken = |lookup: &Lookup| {
            let table = lookup.table();
            Ok::<_, Error>(table.index_select(&rows.indices(lookup.indices, table.device())?, 0)?)
        };
        let mut total = taken(&lookups[0])?;
        for lookup in &lookups[1..] {
            total = (total + taken(lookup)?)?;
        }
        return Ok(total);
    }
    let mut out = vec![0.0; n * width];
    for lookup in lookups {
        let table = Slice::new(lookup.table())?;
        let table: &[f32] = &table;
        out.par_chunks_mut(width).zip(lookup.indices).with_min_len(64).for_each(|(out, &index)| {
            let row = &table[index as usize * width..][..width];
            out.iter_mut().zip(row).for_each(|(o, v)| *o += v);
        });
    }
    tensor(out, (n, width))
}

/// Adds `dy` `[tokens, hidden]` to the gradient rows of every table that were looked up.
pub fn backward(lookups: &[Lookup], rows: &Rows, dy: &Tensor, grads: &mut Gradients) -> Result<()> {
    let (_, width) = check(lookups)?;
    for Lookup { embedding: Embedding { table, backend }, indices } in lookups {
        match backend {
            Backend::Plain => {
                let zeros = table.value.zeros_like()?;
                let indices = rows.indices(indices, table.value.device())?;
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
            let mut params = Params::new(backend);
            let word = params.add(vec!["word".into()], &random(1, (6, 9))).unwrap();
            let position = params.add(vec!["position".into()], &random(2, (3, 9))).unwrap();
            let [words, places] = [&word, &position].map(|table| Embedding::new(table.clone(), backend));
            let lookups =
                [Lookup { embedding: &words, indices: &ids }, Lookup { embedding: &places, indices: &positions }];
            let mut grads = Gradients::zeros(&params).unwrap();
            let rows = Rows::new([3, 2], 0).unwrap();
            let y = forward(&lookups, &rows).unwrap();
            backward(&lookups, &rows, &random(3, (5, 9)), &mut grads).unwrap();
            assert_eq!(rows.made_so_far().len(), if backend == Backend::Plain { 2 } else { 0 });
            [y, grads.of(&word).unwrap().clone(), grads.of(&position).unwrap().clone()]
        });
        for (fast, plain) in results[0].iter().zip(&results[1]) {
            assert_close(fast, plain, 1e-6);
        }
        let mut params = Params::default();
        let word = params.add(vec!["word".into()], &random(1, (6, 9))).unwrap();
        let words = Embedding::new(word, Backend::Fast);
        let rows = Rows::new([1], 0).unwrap();
        assert!(forward(&[Lookup { embedding: &words, indices: &[6] }], &rows).is_err());
        assert!(forward(&[], &rows).is_err());
    }
}
