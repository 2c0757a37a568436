//! Bringing the files of data sets here: announced, resumed, checked; or an error that says what to put where.

use std::fs::File;
use std::path::Path;

use super::find::{find, unasked};
use super::folder::note_of;
use super::set::{Absent, Found, Item, OPTION, Origin, Plan, Sources};
use super::table::{Reader, Table};
use super::{Located, SetFile};
use crate::download::{Expected, Failure, human_bytes, sha256};
use crate::error::{Error, Result, ResultExt, first_few};
use crate::fs::write_atomic;
use crate::hub::{Entry, Progress};

/// The sets `leaves`, each with whether it is validated on, with all their files.
pub fn locate(leaves: &[(String, bool)], table: &Table, sources: Sources, progress: Progress) -> Result<Vec<Located>> {
    let (mut plans, mut absent) = (Vec::new(), Vec::new());
    for (name, validated) in leaves {
        match find(name, table, sources, true)? {
            Found::Plan(mut plan) => {
                if !validated {
                    plan.val.clear();
                }
                plans.push(plan);
            }
            Found::Absent(set) => absent.push(set),
        }
    }
    let offline = sources.hub.is_offline();
    let lacking = |plan: &Plan| -> Option<Absent> {
        let gaps = plan.gaps.iter().filter(|_| plan.reader == Reader::Pairs).cloned();
        let missing = plan.items().filter(|item| offline && !item.is_here()).map(|item| item.entry.name.clone());
        let missing: Vec<String> = missing.chain(gaps).collect();
        (!missing.is_empty()).then(|| absence(plan, missing, unasked(sources.hub)))
    };
    absent.extend(plans.iter().filter_map(lacking));
    if !absent.is_empty() {
        return Err(not_here(&absent, leaves.len(), sources));
    }
    for plan in &plans {
        undamaged(plan)?;
    }
    announce(&plans, sources);
    for plan in &plans {
        for item in plan.items().filter(|item| !item.is_here()) {
            fetch(plan, item, sources, progress)?;
        }
    }
    plans.into_iter().map(located).collect()
}

/// A plan of which `missing` files are to be put here by hand.
fn absence(plan: &Plan, missing: Vec<String>, why: String) -> Absent {
    let in_folder = plan.origin == Origin::Folder;
    Absent {
        name: plan.name.clone(),
        files: if in_folder { missing.clone() } else { plan.items().map(|item| item.entry.name.clone()).collect() },
        missing,
        hub: plan.origin.id().map(|id| id.id.to_owned()),
        page: match &plan.origin {
            Origin::Url(url) => Some(url.clone()),
            _ => plan.page.clone(),
        },
        // What is in a folder wins over the hub, which would be of no help.
        why: Some(why).filter(|_| !in_folder),
    }
}

/// A file whose size is not the one it had where it came from is not trained on.
fn undamaged(plan: &Plan) -> Result<()> {
    for item in plan.items() {
        let found = std::fs::metadata(&item.path).ok().map(|metadata| metadata.len());
        if let (Some(want), Some(found)) = (item.entry.bytes, found)
            && want != found
        {
            let what = format!("{} is damaged: it has {found} bytes instead of {want}", item.path.display());
            return Err(Error::new(what).hint(format!(
                "delete it{}, then: themo data fetch {}",
                content(&item.path),
                plan.name
            )));
        }
    }
    Ok(())
}

/// The content that a link of the cache names, for advice to delete it.
pub fn content(path: &Path) -> String {
    let target = std::fs::read_link(path).ok().and_then(|_| std::fs::canonicalize(path).ok());
    target.map_or(String::new(), |target| format!(" and the content it links to, {}", target.display()))
}

/// Says what is about to be fetched, and where to.
fn announce(plans: &[Plan], sources: Sources) {
    let missing = |plan: &Plan| plan.items().filter(|item| !item.is_here()).cloned().collect::<Vec<_>>();
    let to_fetch: Vec<_> =
        plans.iter().map(|plan| (plan, missing(plan))).filter(|(_, items)| !items.is_empty()).collect();
    for (plan, items) in &to_fetch {
        let known: Option<u64> = items.iter().map(|item| item.entry.bytes).sum();
        let size = known.map_or("of unknown size".to_owned(), human_bytes);
        let folder = match plan.origin.id() {
            Some(id) => sources.hub.data_root(&id),
            None => sources.data_dir.join(&plan.name),
        };
        let files = if items.len() == 1 { "1 file".to_owned() } else { format!("{} files", items.len()) };
        tracing::info!(
            "fetching the data set {}: {files}, {size}, licence: {}, from {} into {}",
            plan.name,
            plan.licence.as_deref().unwrap_or("unknown, see its page"),
            plan.page.as_deref().unwrap_or("its address"),
            folder.display()
        );
    }
}

fn fetch(plan: &Plan, item: &Item, sources: Sources, progress: Progress) -> Result<()> {
    let fetched = match &plan.origin {
        Origin::Hub { commit, .. } => {
            let Some(id) = plan.origin.id() else { return Ok(()) };
            match sources.hub.fetch_data(&id, commit, &item.entry.name, progress) {
                Err(failure) if !failure.is_outage() => return Err(sources.hub.explain(failure, OPTION, &id)),
                other => other,
            }
        }
        Origin::Url(url) => fetch_url(url, item, sources, progress),
        Origin::Folder => Ok(()),
    };
    fetched.map_err(|failure| {
        if !failure.is_outage() {
            return Error::from(failure).context(format!("cannot fetch the data set {}", plan.name));
        }
        let missing = plan.items().filter(|item| !item.is_here()).map(|item| item.entry.name.clone()).collect();
        let why = format!("it cannot be fetched ({})", Error::from(failure));
        not_here(&[absence(plan, missing, why)], 1, sources)
    })
}

/// Brings the file at `url` to its place and notes what it was, so that damage can be noticed later.
fn fetch_url(url: &str, item: &Item, sources: Sources, progress: Progress) -> Result<(), Failure> {
    let other = |path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| Failure::Other(Error::from(e).context(format!("cannot write {path}")))
    };
    let folder = item.path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(other(folder))?;
    let part = item.path.with_file_name(format!(".{}.incomplete", item.entry.name));
    let lock = item.path.with_file_name(format!(".{}.lock", item.entry.name));
    let lock_file = File::create(&lock).map_err(other(&lock))?;
    crate::fs::lock(&lock_file, &lock, &format!("another process is fetching {}", item.entry.name));
    if item.is_here() {
        return Ok(());
    }
    let expected = Expected { bytes: item.entry.bytes, digest: item.entry.digest() };
    tracing::info!("fetching {url}");
    let report = |done, total| progress(&item.entry.name, done, total);
    sources.hub.client().fetch(url, &part, &expected, &report)?;
    let (hash, bytes) = File::open(&part)
        .and_then(|mut file| Ok((sha256(&mut file)?, file.metadata()?.len())))
        .map_err(other(&part))?;
    let note = Entry { name: url.to_owned(), bytes: Some(bytes), sha256: Some(hash) };
    let note = serde_json::to_vec_pretty(&note).map_err(|e| Failure::Other(e.into()))?;
    write_atomic(&note_of(&item.path), &note).map_err(Failure::Other)?;
    std::fs::rename(&part, &item.path).map_err(other(&item.path))
}

/// The error of sets that are not here and cannot be fetched: what to put where.
fn not_here(absent: &[Absent], of: usize, sources: Sources) -> Error {
    let mut whys: Vec<&str> = absent.iter().filter_map(|set| set.why.as_deref()).collect();
    whys.dedup();
    let why = if whys.is_empty() { String::new() } else { format!(", and {}", whys.join("; ")) };
    let what = match absent {
        [set] if set.missing.is_empty() => format!("the data set {} is not here{why}", set.name),
        [set] => format!("the data set {} is not here{why}: missing {}", set.name, first_few(&set.missing)),
        sets => {
            let one = |set: &Absent| match set.missing.is_empty() {
                true => set.name.clone(),
                false => format!("{} (missing {})", set.name, first_few(&set.missing)),
            };
            let each: Vec<String> = sets.iter().map(one).collect();
            format!("{} of {of} data sets are not here{why}: {}", sets.len(), each.join(", "))
        }
    };
    let fetchable: Vec<&str> = absent.iter().filter(|set| set.why.is_some()).map(|set| set.name.as_str()).collect();
    let mut ways = Vec::new();
    if !fetchable.is_empty() {
        let again = if sources.hub.is_offline() { "" } else { "try again (what was fetched is kept); or, " };
        ways.push(format!("{again}where there is a network: themo data fetch {}", fetchable.join(" ")));
        let cached = absent.iter().filter(|set| set.hub.is_some() && set.why.is_some());
        let roots: Vec<String> = cached
            .filter_map(|set| {
                let id = crate::hub::Id::parse(crate::hub::Kind::DataSet, set.hub.as_deref()?)?;
                Some(format!("\n  {}", sources.hub.data_root(&id).display()))
            })
            .collect();
        if !roots.is_empty() {
            ways.push(format!("then copy its folder of the cache here:{}", roots.concat()));
        }
    }
    ways.extend(absent.iter().map(|set| by_hand(set, sources.data_dir)));
    ways.push("the bundled demo needs no data: themo train --config configs/demo.toml".to_owned());
    Error::new(what).hint(ways.join("\n"))
}

/// Where the files of a set may be put, for those who fetch them with other programs.
fn by_hand(set: &Absent, data_dir: &Path) -> String {
    let folder = data_dir.join(&set.name);
    let from = set.page.as_ref().map_or(String::new(), |page| format!(" from {page}"));
    match &set.hub {
        Some(hub) if set.name.starts_with("hub:") => {
            format!("or fill the cache with: hf download --repo-type dataset {hub}")
        }
        Some(hub) => {
            let include: Vec<String> = set.files.iter().map(|pattern| format!(" --include '{pattern}'")).collect();
            let include = if include.len() > 6 { String::new() } else { include.concat() };
            format!(
                "or put the files of {}{from} into {}: hf download --repo-type dataset {hub}{include} --local-dir {}",
                set.name,
                folder.display(),
                folder.display()
            )
        }
        None => {
            format!("put the files of {}{from} into {}:\n  {}", set.name, folder.display(), set.files.join("\n  "))
        }
    }
}

fn located(plan: Plan) -> Result<Located> {
    let mut bytes = 0;
    for item in plan.items() {
        let metadata = std::fs::metadata(&item.path);
        bytes += metadata.context(|| format!("cannot read {}", item.path.display()))?.len();
    }
    let files = |items: &[Item]| {
        let file = |item: &Item| SetFile { path: item.path.clone(), columns: plan.columns.clone() };
        items.iter().map(file).collect()
    };
    Ok(Located {
        train: files(&plan.train),
        val: files(&plan.val),
        name: plan.name.clone(),
        licence: plan.licence.clone(),
        bytes,
        origin: plan.origin.clone(),
        reader: plan.reader,
    })
}
