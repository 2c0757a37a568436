//! PyTorch's checkpoints, as `tests/golden/pickle_fixtures.py` writes them, and broken ones.

use std::borrow::Cow;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Device;
use safetensors::Dtype;
use themo::models::weights::Weights;
use themo::models::weights::pickle::Checkpoint;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

#[path = "pickle/legacy.rs"]
mod legacy;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pickle").join(name)
}

fn tensor(checkpoint: &Checkpoint, name: &str) -> (Dtype, Vec<usize>, Vec<u8>) {
    let found = checkpoint.find(name).expect(name);
    (found.dtype, found.shape.clone(), checkpoint.bytes(found).unwrap().into_owned())
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn state(name: &str) {
    let checkpoint = Checkpoint::open(&golden(name)).unwrap();
    assert_eq!(checkpoint.tensors().len(), 20);
    let expect = |name: &str, kind, shape: &[usize], bytes: Vec<u8>| {
        assert_eq!(tensor(&checkpoint, name), (kind, shape.to_vec(), bytes), "{name}");
    };
    expect("f32", Dtype::F32, &[2, 3], floats((0..6).map(|i| i as f32 / 2.0)));
    expect("f16", Dtype::F16, &[4], [0u16, 0x3c00, 0x4000, 0x4200].map(u16::to_le_bytes).concat());
    expect("bf16", Dtype::BF16, &[4], [0u16, 0x3f80, 0x4000, 0x4040].map(u16::to_le_bytes).concat());
    expect("f64", Dtype::F64, &[3], [-1f64, 0.0, 1.0].map(f64::to_le_bytes).concat());
    expect("i64", Dtype::I64, &[3], [-1i64, 0, 1].map(i64::to_le_bytes).concat());
    expect("i32", Dtype::I32, &[3], [-1i32, 0, 1].map(i32::to_le_bytes).concat());
    expect("i16", Dtype::I16, &[3], [-1i16, 0, 1].map(i16::to_le_bytes).concat());
    expect("i8", Dtype::I8, &[3], vec![255, 0, 1]);
    expect("u8", Dtype::U8, &[3], vec![0, 1, 2]);
    expect("bool", Dtype::BOOL, &[3], vec![1, 0, 1]);
    expect("whole", Dtype::F32, &[4, 6], floats((0..24).map(|i| i as f32)));
    expect("transposed", Dtype::F32, &[6, 4], floats((0..24).map(|i| (i % 4 * 6 + i / 4) as f32)));
    expect("offset", Dtype::F32, &[4], floats([5.0, 6.0, 7.0, 8.0]));
    expect("column", Dtype::F32, &[4], floats([2.0, 8.0, 14.0, 20.0]));
    expect("block", Dtype::F32, &[3, 2], floats([7.0, 13.0, 9.0, 15.0, 11.0, 17.0]));
    expect("scalar", Dtype::F32, &[], floats([7.5]));
    expect("empty", Dtype::F32, &[0, 3], vec![]);
    expect("parameter", Dtype::F32, &[2, 2], floats([1.0; 4]));
    expect("attributed", Dtype::F32, &[2], floats([1.0; 2]));
    expect("position_ids", Dtype::I64, &[1, 5], (0..5i64).flat_map(i64::to_le_bytes).collect());
}

#[test]
fn state_dicts_have_the_values_of_torch() {
    state("state.bin");
    state("protocol4.bin");
    state("deflated.bin");
    state("legacy.bin");
    state("legacy4.bin");
}

#[test]
fn checkpoints_have_their_state_dict() {
    for name in ["lightning.ckpt", "legacy.ckpt", "nested.bin", "model.pth", "model_state_dict.pth", "settings.pt"] {
        let checkpoint = Checkpoint::open(&golden(name)).unwrap();
        assert_eq!(
            checkpoint.tensors().iter().map(|tensor| &*tensor.name).collect::<Vec<_>>(),
            ["weight", "bias"],
            "{name}"
        );
        assert_eq!(tensor(&checkpoint, "weight"), (Dtype::F32, vec![2, 2], floats([0.0, 1.0, 2.0, 3.0])));
        assert_eq!(tensor(&checkpoint, "bias"), (Dtype::F32, vec![2], floats([0.5, 0.5])));
    }
}

#[test]
fn the_first_bytes_tell_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let safetensors = golden("../tiny-bert/model.safetensors");
    for (from, to, names) in [
        (golden("model.pth"), "a.pth", &["weight", "bias"][..]),
        (golden("legacy.ckpt"), "b.safetensors", &["weight", "bias"]),
        (golden("lightning.ckpt"), "c", &["weight", "bias"]),
        (safetensors, "d.bin", &["embeddings.word_embeddings.weight"]),
    ] {
        let path = folder.path().join(to);
        fs::copy(from, &path).unwrap();
        let weights = Weights::open(&path, &Device::Cpu).unwrap();
        names.iter().for_each(|name| assert!(weights.shape(name).is_some(), "{to}: {name}"));
    }
    for (name, bytes, words) in [
        ("e.pth", &b"{}"[..], "not a whole zip"),
        ("f.safetensors", b"PK\x03\x04", "not a whole zip"),
        ("g.safetensors", &[0x80, 2, 0, 0], "not a whole safetensors"),
        ("h.bin", &[], "not a whole zip"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = Weights::open(&path, &Device::Cpu).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn contiguous_tensors_are_borrowed_from_the_file() {
    for name in ["state.bin", "legacy.bin"] {
        let checkpoint = Checkpoint::open(&golden(name)).unwrap();
        for entry in checkpoint.tensors() {
            let strided = ["transposed", "column", "block"].contains(&&*entry.name);
            assert_eq!(matches!(checkpoint.bytes(entry).unwrap(), Cow::Owned(_)), strided, "{name}: {}", entry.name);
        }
    }
}

fn refused(path: &Path, words: &[&str]) {
    let error = Checkpoint::open(path).unwrap_err();
    let told = format!("{error} / {}", error.advice().unwrap_or_default());
    println!("{told}");
    for word in words {
        assert!(told.contains(word), "no {word:?} in: {told}");
    }
    assert!(error.to_string().starts_with(&path.display().to_string()) || error.to_string().starts_with("cannot"));
}

#[test]
fn other_files_are_refused_by_name() {
    for (name, words) in [
        ("evil.ckpt", &["posix.system"][..]),
        ("unknown.ckpt", &["`evil`", "__main__.Unknown"]),
        ("unknown.bin", &["__main__.Unknown"]),
        ("module.bin", &["torch.nn.modules.linear.Linear", "state_dict()"]),
        ("complex.bin", &["torch.ComplexFloatStorage"]),
        ("f8.bin", &["torch.float8_e4m3fn"]),
        ("expanded.bin", &["`wide`", "repeats elements"]),
        ("negative.bin", &["`negative`", "resolve_neg()"]),
        ("two.pt", &["`state_dict` and `model`"]),
        ("numbered.bin", &["not a string"]),
        ("big.bin", &["big-endian"]),
        ("legacy_module.bin", &["torch.nn.modules.linear.Linear", "state_dict()"]),
        ("legacy_f8.bin", &["untyped storage"]),
        ("legacy_evil.ckpt", &["posix.system"]),
        ("tar.pt", &["PyTorch 0.1", "weights_only=False"]),
        ("absent.bin", &["cannot open"]),
        ("../pickle_fixtures.py", &["not a whole zip"]),
    ] {
        refused(&golden(name), words);
    }
}

/// A zip with this pickle and one storage, `0`, of 16 bytes.
fn zipped(pickle: &[u8], compression: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(compression);
    for (name, bytes) in [("a/data.pkl", pickle), ("a/data/0", &[1; 16])] {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// `{"w": tensor}` over the storage `0`, with 4-byte numbers.
fn lying(len: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let int = |n: i32| [&b"J"[..], &n.to_le_bytes()].concat();
    let tuple =
        |numbers: &[i32]| [b"(".to_vec(), numbers.iter().flat_map(|&n| int(n)).collect(), b"t".to_vec()].concat();
    [
        &b"\x80\x02}\x8c\x01wctorch._utils\n_rebuild_tensor_v2\n((\x8c\x07storage"[..],
        b"ctorch\nFloatStorage\n\x8c\x010\x8c\x03cpu",
        &int(len),
        b"tQ",
        &int(offset),
        &tuple(shape),
        &tuple(strides),
        b"\x89NtRs.",
    ]
    .concat()
}

#[test]
fn lying_pickles_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lying.bin");
    let write = |pickle: &[u8]| fs::write(&path, zipped(pickle, CompressionMethod::Stored)).unwrap();
    write(&lying(4, 0, &[2, 2], &[2, 1]));
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.bytes(&checkpoint.tensors()[0]).unwrap()[..], [1; 16]);
    let most = i32::MAX;
    for (len, offset, shape, strides, words) in [
        (5, 0, &[2, 2][..], &[2, 1][..], "has 16 bytes"),
        (-1, 0, &[2, 2], &[2, 1], "as torch.save does"),
        (4, 1, &[2, 2], &[2, 1], "outside"),
        (4, -1, &[2, 2], &[2, 1], "as torch.save does"),
        (4, 0, &[2, -2], &[2, 1], "as torch.save does"),
        (4, 0, &[2, 2], &[-2, 1], "as torch.save does"),
        (4, 0, &[2, 2], &[1], "as many strides"),
        (4, 0, &[most, most], &[0, 0], "repeats"),
        (4, 0, &[most, most, most], &[0, 0, 0], "repeats"),
        (4, 0, &[most, most, most], &[most, most, most], "outside"),
        (4, most, &[1], &[most], "outside"),
        (4, 0, &[1; 33], &[1; 33], "as torch.save does"),
    ] {
        write(&lying(len, offset, shape, strides));
        refused(&path, &["`w`", words]);
    }
    write(&lying(4, 0, &[most, most, most, 0], &[most; 4]));
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert!(checkpoint.bytes(&checkpoint.tensors()[0]).unwrap().is_empty());
    let mut entry = checkpoint.tensors()[0].clone();
    entry.shape = vec![3, 3];
    assert!(checkpoint.bytes(&entry).is_err());

    // Deep nesting, self-reference, a stack and a memo that would grow, repeated tensors.
    write(&[&b"\x80\x02"[..], &[b'('; 100_000], &[b't'; 100_000], b"."].concat());
    refused(&path, &["not a dictionary"]);
    write(&[&b"\x80\x02}q\x00\x8c\x01a"[..], &b"]\x85\x8c\x01a\x86".repeat(100_000), b"."].concat());
    assert!(Checkpoint::open(&path).is_err());
    write(b"\x80\x02}q\x00\x8c\x01ah\x00s.");
    refused(&path, &["`a`"]);
    write(&[&b"\x80\x02N"[..], &[b'2'; 5_000_000], b"."].concat());
    refused(&path, &["objects"]);
    write(b"\x80\x02X\xff\xff\xff\xffabc.");
    refused(&path, &["ends too early"]);
    write(b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\xffabc.");
    refused(&path, &["ends too early"]);
    let dict = lying(4, 0, &[4], &[1]);
    let repeated = [&dict[..dict.len() - 2], b"q\x00s\x8c\x01wh\x00s."].concat();
    write(&repeated);
    refused(&path, &["repeats itself"]);
    write(&[&dict[..dict.len() - 2], b"s\x8c\x01wNs."].concat());
    refused(&path, &["repeats itself"]);
    let mut views = dict[..dict.len() - 2].to_vec();
    views.extend(b"q\x00s");
    (0..200_000u32)
        .for_each(|i| views.extend([b"\x8c\x04".as_slice(), &format!("{i:04x}").as_bytes()[..4], b"h\x00s"].concat()));
    write(&views);
    assert!(Checkpoint::open(&path).is_err());

    for (module, name) in
        [("os", "system"), ("__builtin__", "eval"), ("builtins", "getattr"), ("importlib.util", "find")]
    {
        let named = format!("it names {module}.{name}");
        write(format!("c{module}\n{name}\n.").as_bytes());
        refused(&path, &[&named]);
        // STACK_GLOBAL, hidden beside a state dict.
        let text = |text: &str| [b"\x8c", &[text.len() as u8][..], text.as_bytes()].concat();
        write(&[&b"\x80\x04}\x8c\x05other"[..], &text(module), &text(name), b"\x93)Rs."].concat());
        refused(&path, &[&named]);
    }
    write(b"\x80\x02cbuiltins\nset\n)R.");
    refused(&path, &["builtins.set"]);
}

#[test]
fn inflating_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.bin");
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b'N'; 30 << 20]).unwrap();
    let packed = encoder.finish().unwrap();
    // A stored entry turned into a deflated one, in its local and its central header.
    let mut zip = zipped(&packed, CompressionMethod::Stored);
    for (i, claimed) in [(30u32 << 20), 100].into_iter().enumerate() {
        for (signature, method, size) in [(b"PK\x03\x04", 8, 22), (b"PK\x01\x02", 10, 24)] {
            let at = zip.windows(4).position(|w| w == signature).unwrap();
            zip[at + method] = 8;
            zip[at + size..][..4].copy_from_slice(&claimed.to_le_bytes());
        }
        fs::write(&path, &zip).unwrap();
        refused(&path, &[["does not fit into the file", "inflates to another size"][i]]);
    }
}

/// Reads 2,000 damaged copies of the files.
fn damage(names: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.bin");
    let (mut seed, start) = (0x9e37_79b9_7f4a_7c15u64, Instant::now());
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) as usize % below
    };
    let (mut errors, mut values) = (0, 0);
    let sources: Vec<_> = names.iter().map(|name| fs::read(golden(name)).unwrap()).collect();
    for round in 0..2000 {
        let source = &sources[round % sources.len()];
        let mut bytes = source.clone();
        // The pickle is at the start, the directory at the end.
        let zone = [bytes.len(), bytes.len().min(2500)][random(2)];
        if random(8) == 0 {
            bytes.truncate(random(bytes.len()));
        } else {
            (0..1 + random(4)).for_each(|_| bytes[random(zone)] = [random(256) as u8, 0xff, b'(', b'.', 0][random(5)]);
        }
        fs::write(&path, &bytes).unwrap();
        match Checkpoint::open(&path) {
            Ok(checkpoint) => {
                values += 1;
                for entry in checkpoint.tensors() {
                    if let Ok(read) = checkpoint.bytes(entry) {
                        assert_eq!(read.len(), entry.shape.iter().product::<usize>() * entry.dtype.bitsize() / 8);
                    }
                }
            }
            Err(error) => {
                errors += 1;
                assert!(error.to_string().contains("broken.bin"));
            }
        }
    }
    println!("{errors} errors, {values} values in {:?}", start.elapsed());
    assert!(errors > 200 && values > 200);
}

#[test]
fn broken_files_are_errors_or_values() {
    damage(&["state.bin", "protocol4.bin", "deflated.bin", "lightning.ckpt", "f8.bin"]);
}
