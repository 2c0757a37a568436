use std::os::unix::fs::MetadataExt;

use super::*;
use crate::compute::Compute;
use crate::models::student::Head;
use crate::nn::Pooling;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-bert")
}

/// A state after `steps`, with so many epochs ended, of which the last had this value.
fn state(steps: usize, epoch: usize, value: f64) -> State {
    let (monitor, maximise) = ("train/loss".into(), false);
    let measured =
        Measured { epoch: epoch.saturating_sub(1), train_loss: 1.0, val_loss: None, monitor, value, maximise };
    State { steps, epoch, measured: Some(measured), ..State::default() }
}

/// Does `work` with the checkpoints of a folder, of which the best `most` are kept.
fn with_checkpoints(most: usize, work: impl FnOnce(&Path, &mut Checkpoints, Snapshot)) {
    let (dir, source) = (tempfile::tempdir().unwrap(), golden());
    let student = Student::load(&source, Head::new(Pooling::Mean, 20), 0, &Compute::new(Device::Cpu)).unwrap();
    let facts = TokenizerFacts { padding: None, class: None };
    let mut checkpoints = Checkpoints::open(dir.path().to_owned(), &source, facts, most).unwrap();
    work(dir.path(), &mut checkpoints, Snapshot { student: &student, moments: &[] });
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_link_that_fails_leaves_the_other_checkpoint_alone() {
    with_checkpoints(1, |dir, checkpoints, snapshot| {
        let ended = state(5, 1, 0.5);
        checkpoints.save_epoch(snapshot, &ended, &ended).unwrap();
        let best = dir.join("epoch=0_train-loss=0.5000/model.safetensors");
        assert_eq!(fs::metadata(&best).unwrap().nlink(), 2, "`last` shares the file");
        checkpoints.newest = Some((6, best.parent().unwrap().to_owned()));
        // The weights are linked, the file after them is not.
        checkpoints.disk.link = |from, to| match from.extension().is_some_and(|end| end == "safetensors") {
            true => fs::hard_link(from, to),
            false => Err(io::ErrorKind::TooManyLinks.into()),
        };
        checkpoints.save_last(snapshot, &state(6, 1, 0.5)).unwrap();
        let last = dir.join("last/model.safetensors");
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_ne!(inode(&last), inode(&best), "it was written through the link");
        assert_eq!(fs::read(&last).unwrap(), fs::read(&best).unwrap());
    });
}

#[test]
fn a_folder_is_synced_before_it_gets_its_name() {
    with_checkpoints(1, |dir, checkpoints, snapshot| {
        checkpoints.save_last(snapshot, &state(5, 0, 0.5)).unwrap();
        checkpoints.disk.sync_dir = |folder| match folder.file_name() {
            Some(name) if name.to_string_lossy().starts_with(WRITING) => Err(io::ErrorKind::Other.into()),
            _ => Ok(()),
        };
        let error = checkpoints.save_last(snapshot, &state(6, 0, 0.5)).unwrap_err();
        assert!(error.to_string().contains("cannot write the checkpoint last"), "{error}");
        assert_eq!((names(dir), read_state(&dir.join("last")).unwrap().steps), (vec!["last".to_owned()], 5));
    });
}

#[test]
fn an_epoch_that_is_continued_takes_no_place() {
    with_checkpoints(1, |dir, checkpoints, snapshot| {
        let first = state(20, 1, 0.5);
        checkpoints.save_epoch(snapshot, &first, &first).unwrap();
        // max-steps cuts the second epoch; so far it is better.
        let unfinished = State { batches: 11, ..state(31, 1, 0.5) };
        checkpoints.save_epoch(snapshot, &state(31, 2, 0.25), &unfinished).unwrap();
        let [before, cut] = ["epoch=0_train-loss=0.5000", "epoch=1_train-loss=0.2500"];
        assert_eq!(names(dir), [before, cut, "last"]);
        assert!(find_best(dir).unwrap().ends_with(cut));
        // It is resumed, and ends worse.
        checkpoints.cut_back(&unfinished).unwrap();
        assert_eq!(names(dir), [before, "last"]);
        let second = state(40, 2, 0.75);
        checkpoints.save_epoch(snapshot, &second, &second).unwrap();
        assert_eq!(names(dir), [before, "last"]);
        // What the newest state itself ended stays.
        checkpoints.cut_back(&first).unwrap();
        assert_eq!(names(dir), [before, "last"]);
    });
}
