use super::*;

const WIDTH: usize = 3;

fn key() -> Key {
    Key::new("test")
}

fn open(dir: &Path) -> Store {
    Store::open(dir, &key(), WIDTH).unwrap()
}

fn digests(contents: std::ops::Range<usize>) -> Vec<Digest> {
    contents.map(|i| digest(&i.to_le_bytes())).collect()
}

fn row(content: usize) -> [f32; WIDTH] {
    [content as f32 + 0.5, -(content as f32), 1e-3]
}

/// Fills a store with `contents`; returns those that had to be computed.
fn fill(store: &mut Store, contents: &[usize]) -> Vec<usize> {
    let wanted: Vec<Digest> = contents.iter().flat_map(|i| digests(*i..i + 1)).collect();
    let mut computed = Vec::new();
    store
        .fill(&wanted, |missing| {
            computed = missing.iter().map(|i| contents[*i]).collect();
            Ok(computed.iter().flat_map(|i| row(*i)).collect())
        })
        .unwrap();
    computed
}

/// Of the contents `0..n`, those that have a row; each must be the right one.
fn sound(store: &Store, n: usize) -> Vec<usize> {
    let has = |i: &usize| {
        let mut got = Vec::new();
        let has = store.append_to(&digests(*i..i + 1)[0], &mut got);
        assert_eq!(got, if has { row(*i).to_vec() } else { Vec::new() }, "content {i}");
        has
    };
    (0..n).filter(has).collect()
}

fn file(dir: &Path) -> PathBuf {
    dir.join(format!("{}.rows", key().name()))
}

#[test]
fn each_content_is_computed_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    assert!(store.index.is_empty() && !store.has(&digests(0..1)[0]));
    assert_eq!(fill(&mut store, &[0, 1, 0, 2]), [0, 1, 2], "equal contents cost one row");
    assert_eq!(fill(&mut store, &[2, 3, 1]), [3], "one new content costs one row");
    assert_eq!(fill(&mut store, &[3, 2, 1, 0]), [0; 0]);
    assert_eq!(sound(&store, 6), [0, 1, 2, 3]);
    let mut again = open(dir.path());
    assert_eq!((again.index.len(), sound(&again, 6)), (4, vec![0, 1, 2, 3]));
    assert_eq!(fill(&mut again, &[4]), [4]);
    assert_eq!(fill(&mut store, &[4, 5]), [5], "what another process computed is found");
    let refused = store.fill(&digests(7..8), |_| Ok(vec![1.0]));
    assert!(refused.is_err() && open(dir.path()).index.len() == 6);
}

#[test]
fn a_store_survives_a_kill_at_any_byte() {
    let dir = tempfile::tempdir().unwrap();
    fill(&mut open(dir.path()), &[0, 1, 2]);
    let first = std::fs::read(file(dir.path())).unwrap();
    fill(&mut open(dir.path()), &[3, 4]);
    let whole = std::fs::read(file(dir.path())).unwrap();
    for length in 0..=whole.len() {
        std::fs::write(file(dir.path()), &whole[..length]).unwrap();
        let mut store = open(dir.path());
        let kept = if length < first.len() {
            0
        } else if length < whole.len() {
            3
        } else {
            5
        };
        assert_eq!(sound(&store, 5), (0..kept).collect::<Vec<_>>(), "cut at {length}");
        fill(&mut store, &[0, 1, 2]);
        fill(&mut store, &[3, 4]);
        assert_eq!(std::fs::read(file(dir.path())).unwrap(), whole, "cut at {length}");
    }
}

#[test]
fn one_changed_bit_costs_what_it_hit_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    for some in [[0, 1], [2, 3], [4, 5]] {
        fill(&mut open(dir.path()), &some);
    }
    let whole = std::fs::read(file(dir.path())).unwrap();
    let all: Vec<usize> = (0..6).collect();
    for bit in 0..whole.len() * 8 {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(file(dir.path()), bad).unwrap();
        let mut store = open(dir.path());
        let left = sound(&store, 6);
        assert!(left.len() >= 4, "bit {bit}: only {left:?} are left");
        assert!(left.len() < 6 || bit / 8 < MAGIC.len(), "bit {bit} was not noticed");
        let computed = fill(&mut store, &all);
        assert_eq!(computed, all.iter().copied().filter(|i| !left.contains(i)).collect::<Vec<_>>());
        assert_eq!((sound(&store, 6), sound(&open(dir.path()), 6)), (all.clone(), all.clone()), "bit {bit}");
    }
}

#[test]
fn many_at_once_compute_each_row_once() {
    let dir = tempfile::tempdir().unwrap();
    let computed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..6 {
            let (dir, computed) = (dir.path(), &computed);
            scope.spawn(move || {
                let mut store = open(dir);
                for step in 0..20 {
                    let start = (step * 5 + worker) % 97;
                    let some = fill(&mut store, &(start..start + 10).collect::<Vec<_>>());
                    std::thread::sleep(std::time::Duration::from_micros(200));
                    computed.lock().unwrap().extend(some);
                }
            });
        }
    });
    let mut computed = computed.into_inner().unwrap();
    let count = computed.len();
    computed.sort_unstable();
    computed.dedup();
    assert_eq!(computed.len(), count, "a row was computed twice");
    assert_eq!(sound(&open(dir.path()), 200), computed);
}
