//! The format before PyTorch 1.6: files as only old versions wrote them, and lying ones.

use super::*;

const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const VERSION: &[u8] = b"\x80\x02M\xe9\x03.";
const SYSTEM: &[u8] = b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.";

#[test]
fn old_versions_are_read() {
    let block = || floats([7.0, 13.0, 9.0, 15.0, 11.0, 17.0]);
    let first = Checkpoint::open(&golden("legacy_first.bin")).unwrap();
    assert_eq!(tensor(&first, "block"), (Dtype::F32, vec![3, 2], block()));
    let types = Checkpoint::open(&golden("legacy_types.bin")).unwrap();
    assert_eq!(types.tensors().len(), 3);
    for name in ["parameter", "variable", "typed"] {
        assert_eq!(tensor(&types, name), (Dtype::F32, vec![3, 2], block()), "{name}");
    }
    let python2 = Checkpoint::open(&golden("legacy_python2.bin")).unwrap();
    assert_eq!(tensor(&python2, "block"), (Dtype::F32, vec![3, 2], block()));
    assert_eq!(tensor(&python2, "half"), (Dtype::F16, vec![2], [0x3c00u16, 0x4000].map(u16::to_le_bytes).concat()));
}

#[test]
fn storages_that_are_parts_of_others_are_read() {
    let checkpoint = Checkpoint::open(&golden("legacy_views.bin")).unwrap();
    assert_eq!(checkpoint.tensors().len(), 5);
    let expect = |name: &str, shape: &[usize], values: &[f32]| {
        assert_eq!(tensor(&checkpoint, name), (Dtype::F32, shape.to_vec(), floats(values.to_vec())), "{name}");
    };
    expect("whole", &[4, 6], &(0..24).map(|i| i as f32).collect::<Vec<_>>());
    expect("part", &[3, 3], &(5..14).map(|i| i as f32).collect::<Vec<_>>());
    expect("again", &[2], &[9.0, 13.0]);
    expect("cuda", &[1], &[23.0]);
    expect("twice", &[2], &[0.0, 2.0]);
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A tensor of four elements of the storage `key`, of `class` and of `len` elements, and `view`, pickled.
fn tensor_of(key: &str, class: &str, len: i32, view: &[u8]) -> Vec<u8> {
    let pid = [&b"("[..], &text("storage"), format!("ctorch\n{class}\n").as_bytes(), &text(key), &text("cpu")].concat();
    let len = [b"J", &len.to_le_bytes()[..]].concat();
    [b"ctorch._utils\n_rebuild_tensor_v2\n(", &*pid, &len, view, b"tQK\x00K\x04\x85K\x01\x85\x89}tR"].concat()
}

/// A file of these tensors with this list of storages, and these storages.
fn file(tensors: &[Vec<u8>], keys: &[&str], storages: &[(i64, &[u8])]) -> Vec<u8> {
    let mut file = [MAGIC, VERSION, SYSTEM, b"\x80\x02}("].concat();
    tensors.iter().enumerate().for_each(|(i, tensor)| file.extend([text(&format!("w{i}")), tensor.clone()].concat()));
    file.extend(b"u.\x80\x02](");
    keys.iter().for_each(|key| file.extend(text(key)));
    file.extend(b"e.");
    storages.iter().for_each(|(count, data)| file.extend([&count.to_le_bytes()[..], data].concat()));
    file
}

#[test]
fn lying_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lying.bin");
    let one = |view: &[u8]| tensor_of("7", "FloatStorage", 6, view);
    let view = |key: &str, offset: i32, len: i32| {
        [&text(key)[..], b"J", &offset.to_le_bytes(), b"J", &len.to_le_bytes(), b"\x87"].concat()
    };
    let data = floats((0..6).map(|i| i as f32));
    let whole = file(&[one(b"N")], &["7"], &[(6, &data)]);
    let good = [
        (whole.clone(), 0),
        ([&whole[..], b"more"].concat(), 0), // PyTorch does not look there
        (file(&[one(&view("v", 2, 4)), one(b"N"), one(&view("v", 2, 4))], &["7"], &[(6, &data)]), 2),
    ];
    for (bytes, first) in good {
        fs::write(&path, bytes).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(tensor(&checkpoint, "w0"), (Dtype::F32, vec![4], data[first * 4..][..16].to_vec()));
    }
    let double = || tensor_of("7", "DoubleStorage", 3, b"N");
    let swap = |from: &[u8], to: &[u8]| {
        let at = whole.windows(from.len()).position(|bytes| bytes == from).unwrap();
        [&whole[..at], to, &whole[at + from.len()..]].concat()
    };
    for (bytes, words) in [
        (file(&[one(b"N")], &["7"], &[(7, &data)]), "has 7 elements, its tensors ask for 6"),
        (file(&[one(b"N")], &["7"], &[(-1, &data)]), "has -1 elements"),
        (file(&[one(b"N")], &["7"], &[(i64::MAX, &data)]), "elements, its tensors ask for 6"),
        (file(&[one(b"N")], &["7"], &[(6, &data[1..])]), "ends within the storage 7"),
        (file(&[one(b"N")], &["7", "7"], &[(6, &data), (6, &data)]), "twice in the file's list"),
        (file(&[one(b"N")], &["7", "8"], &[(6, &data), (6, &data)]), "storage 8 is in the file's list"),
        (file(&[one(b"N")], &[], &[(6, &data)]), "storage 7 is not in the file's list"),
        (file(&[one(b"N"), tensor_of("8", "FloatStorage", 4, b"N")], &["7"], &[(6, &data)]), "storage 8 is not in"),
        (file(&[one(b"N"), tensor_of("7", "FloatStorage", 4, b"N")], &["7"], &[(6, &data)]), "two sizes"),
        (file(&[double()], &["7"], &[(3, &data)]), "outside its storage of 3"),
        (file(&[tensor_of("7", "FloatStorage", -1, b"N")], &["7"], &[(-1, &data)]), "as torch.save does"),
        (file(&[tensor_of("7", "ComplexFloatStorage", 3, b"N")], &["7"], &[(3, &data)]), "torch.ComplexFloatStorage"),
        (file(&[tensor_of("7", "QInt8Storage", 3, b"N")], &["7"], &[(3, &data)]), "torch.QInt8Storage"),
        (file(&[one(&view("v", 3, 4))], &["7"], &[(6, &data)]), "storage v is outside 7"),
        (file(&[one(&view("v", -1, 4))], &["7"], &[(6, &data)]), "as torch.save does"),
        (file(&[one(&view("v", i32::MAX, i32::MAX))], &["7"], &[(6, &data)]), "storage v is outside 7"),
        (file(&[one(&view("v", 2, 3))], &["7"], &[(6, &data)]), "outside its storage of 3"),
        (file(&[one(&view("v", 2, 4)), one(&view("v", 0, 4))], &["7"], &[(6, &data)]), "v is two different parts"),
        (
            file(&[one(&view("v", 2, 4)), tensor_of("7", "DoubleStorage", 3, &view("v", 1, 2))], &["7"], &[(6, &data)]),
            "v is two different parts",
        ),
        (file(&[one(&view("7", 2, 4))], &["7"], &[(6, &data)]), "7 is also a part of another"),
        (file(&[one(b"K\x01")], &["7"], &[(6, &data)]), "as torch.save does"),
        (swap(b"M\xe9\x03", b"M\xe8\x03"), "another version"),
        (swap(b"little_endian\x88", b"little_endian\x89"), "big-endian"),
        (swap(b"](", b"}("), "puts items into"),
        (swap(b"e.", b"eN."), "no list"),
        (swap(b"storage", b"modules"), "persistent id"),
    ] {
        fs::write(&path, bytes).unwrap();
        refused(&path, &[words]);
    }
    // A new tensor is built once, by its own type.
    let new = |class: &str, build: &[u8]| {
        let tensor = one(b"N");
        let start = tensor.iter().position(|byte| *byte == b'(').unwrap();
        let state = [&tensor[start..tensor.len() - 4], b"t"].concat();
        file(&[[format!("ctorch\n{class}\n)R").as_bytes(), &state, b"b", build].concat()], &["7"], &[(6, &data)])
    };
    fs::write(&path, new("FloatTensor", b"")).unwrap();
    assert_eq!(tensor(&Checkpoint::open(&path).unwrap(), "w0"), (Dtype::F32, vec![4], data[..16].to_vec()));
    fs::write(&path, new("HalfTensor", b"")).unwrap();
    refused(&path, &["builds a tensor otherwise"]);
    fs::write(&path, new("FloatTensor", b"(K\x00K\x00K\x00K\x00tb")).unwrap();
    refused(&path, &["builds a tensor otherwise"]);
    // What was given to a function must not change afterwards.
    let list = swap(b"K\x04\x85", b"]K\x04a");
    fs::write(&path, &list).unwrap();
    refused(&path, &["as torch.save does"]);
}

#[test]
fn files_that_are_cut_short_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.bin");
    for name in ["legacy.bin", "legacy4.bin", "legacy.ckpt", "legacy_views.bin", "legacy_python2.bin"] {
        let whole = fs::read(golden(name)).unwrap();
        for len in 0..whole.len() {
            let _ = fs::remove_file(&path); // writing over a file is slow on some file systems
            fs::write(&path, &whole[..len]).unwrap();
            let error = Checkpoint::open(&path).map(drop).unwrap_err();
            assert!(error.advice().unwrap().contains("cut short"), "{name}, {len}: {error}");
        }
    }
}

#[test]
fn many_dictionaries_of_one_list_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copies.bin");
    let pair = b"h\x00";
    let list = [&b"]q\x01("[..], &pair.repeat(50_000), b"e0"].concat();
    let calls = b"ccollections\nOrderedDict\nh\x01\x85R0".repeat(20_000);
    let pickle = [b"\x80\x02K\x00K\x00\x86q\x000", &list[..], &calls, b"}."].concat();
    fs::write(&path, [MAGIC, VERSION, SYSTEM, &pickle].concat()).unwrap();
    refused(&path, &["many dictionaries"]);
}

#[test]
fn broken_files_are_errors_or_values() {
    damage(&["legacy.bin", "legacy4.bin", "legacy.ckpt", "legacy_views.bin", "legacy_types.bin", "legacy_python2.bin"]);
}
