//! The operations of a BERT-base layer, each alone: `cargo bench --bench kernels [FILTER]`.

use candle_core::{Device, Tensor};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use themo::nn::attention::Attention;
use themo::nn::cpu::gemm::{Mat, Start, gemm};
use themo::nn::{Activate, Activation, Backend, Batch, Dropout, Rows, Site, Tokens};

#[global_allocator]
static ALLOCATOR: themo::alloc::Reusing<mimalloc::MiMalloc> = themo::alloc::Reusing::new(mimalloc::MiMalloc);

/// Tokens, inner and outer width: 32 captions, a whole micro-batch, 8 images of ViT-L/14.
const SHAPES: [(usize, usize, usize); 7] = [
    (544, 768, 2304),
    (544, 768, 3072),
    (544, 3072, 768),
    (3072, 768, 3072),
    (2056, 1024, 1024),
    (2056, 1024, 4096),
    (2056, 4096, 1024),
];

fn main() {
    divan::main();
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect()
}

/// Times `m x k` by `k x n`; the count is floating-point operations.
fn product(bencher: Bencher, (m, n, k): (usize, usize, usize), bf16: bool, a_is_t: bool, b_is_t: bool) {
    let (a, b, mut c) = (numbers(m * k), numbers(k * n), vec![0.0; m * n]);
    let a = if a_is_t { Mat::rows(&a, m).t() } else { Mat::rows(&a, k) };
    let b = if b_is_t { Mat::rows(&b, k).t() } else { Mat::rows(&b, n) };
    bencher.counter(ItemsCount::new(2 * m * n * k)).bench_local(|| gemm((m, n, k), bf16, a, b, Start::Zero, &mut c));
}

#[divan::bench(args = SHAPES, consts = [false, true])]
fn forward<const BF16: bool>(bencher: Bencher, (tokens, inner, outer): (usize, usize, usize)) {
    product(bencher, (tokens, outer, inner), BF16, false, true);
}

#[divan::bench(args = SHAPES, consts = [false, true])]
fn input_gradient<const BF16: bool>(bencher: Bencher, (tokens, inner, outer): (usize, usize, usize)) {
    product(bencher, (tokens, inner, outer), BF16, false, false);
}

#[divan::bench(args = SHAPES, consts = [false, true])]
fn weight_gradient<const BF16: bool>(bencher: Bencher, (tokens, inner, outer): (usize, usize, usize)) {
    product(bencher, (outer, inner, tokens), BF16, true, false);
}

fn tensor(rows: usize, width: usize) -> Tensor {
    Tensor::from_vec(numbers(rows * width), (rows, width), &Device::Cpu).unwrap()
}

#[divan::bench(args = [16, 77])]
fn attention(bencher: Bencher, length: usize) {
    let tokens = Tokens { ids: Vec::new(), rows: Rows::new(vec![length; 32], 0).unwrap() };
    let (qkv, dropout) = (tensor(32 * length, 3 * 768), Dropout::new(1, 2, 0.1, 0.1));
    let batch = Batch { tokens: &tokens, dropout: Some(&dropout) };
    let attention = Attention::new(768, 12, false, 0, Backend::Fast).unwrap();
    bencher.bench_local(|| attention.forward(black_box(&qkv), batch).unwrap().out);
}

#[divan::bench(args = [16, 77])]
fn attention_backward(bencher: Bencher, length: usize) {
    let tokens = Tokens { ids: Vec::new(), rows: Rows::new(vec![length; 32], 0).unwrap() };
    let (qkv, dout) = (tensor(32 * length, 3 * 768), tensor(32 * length, 768));
    let dropout = Dropout::new(1, 2, 0.1, 0.1);
    let batch = Batch { tokens: &tokens, dropout: Some(&dropout) };
    let attention = Attention::new(768, 12, false, 0, Backend::Fast).unwrap();
    let saved = attention.forward(&qkv, batch).unwrap();
    bencher.bench_local(|| attention.backward(&qkv, &saved, &dout, batch).unwrap());
}

const GELU: Activate = Activate { function: Activation::Gelu, backend: Backend::Fast };

#[divan::bench]
fn gelu(bencher: Bencher) {
    let z = tensor(640, 3072);
    bencher.bench_local(|| GELU.forward(black_box(&z)).unwrap());
}

#[divan::bench]
fn gelu_backward(bencher: Bencher) {
    let z = tensor(640, 3072);
    bencher.bench_local(|| GELU.backward(black_box(&z), &z).unwrap());
}

#[divan::bench]
fn dropout(bencher: Bencher) {
    let (x, rows, dropout) = (tensor(640, 768), Rows::new(vec![20; 32], 0).unwrap(), Dropout::new(1, 2, 0.1, 0.1));
    bencher.bench_local(|| dropout.at(Site::Embeddings, &rows).unwrap().apply(black_box(&x)).unwrap());
}
