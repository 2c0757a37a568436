//! Finding out which files a data set has: in its folder, in the hub's cache, or by asking the hub.

use super::folder::{files, gaps, of_url};
use super::set::{Absent, Found, Item, OPTION, Origin, Plan, Sources};
use super::spec::Spec;
use super::splits::{self, Placed};
use super::table::{Reader, Table, matching};
use crate::download::Failure;
use crate::error::{Error, Result};
use crate::hub::{Entry, Hub, Id, Kind, Listing};

/// The branch on which the hub keeps its own conversion of a data set to Parquet.
const CONVERTED: &str = "refs/convert/parquet";

/// Looks for the set `name`, which has no parts. With `ask`, the hub is asked where the cache does not know.
pub fn find(name: &str, table: &Table, sources: Sources, ask: bool) -> Result<Found> {
    if Spec::is_hub(name) {
        return find_spec(name, &Spec::parse(name)?, sources, ask);
    }
    let known = table.get(name)?;
    let folder = sources.data_dir.join(name);
    let plan = |origin, train, val| Plan {
        name: name.to_owned(),
        licence: known.licence.clone(),
        page: known.page.clone(),
        origin,
        train,
        val,
        columns: known.columns.clone(),
        reader: known.reader,
        gaps: Vec::new(),
    };
    if let Some(url) = &known.url {
        let item = of_url(known, url, &folder);
        return Ok(Found::Plan(plan(Origin::Url(url.clone()), vec![item], Vec::new())));
    }
    let depth = known.train.iter().chain(&known.val).map(|pattern| pattern.matches('/').count()).max();
    let here = files(&folder, depth.unwrap_or(0));
    let here: Vec<&str> = here.iter().map(String::as_str).collect();
    let items = |patterns: &[String]| -> Vec<Item> {
        let item = |file: &str| Item {
            entry: Entry { name: file.to_owned(), bytes: None, sha256: None },
            path: folder.join(file),
        };
        matching(patterns, &here).into_iter().map(item).collect()
    };
    let (train, val) = (items(&known.train), items(&known.val));
    if !train.is_empty() {
        let mut gaps = gaps(train.iter().chain(&val).map(|item| item.entry.name.as_str()));
        gaps.extend(unmatched(&known.train, &here));
        warn_of(name, &known.val, &here, ask);
        return Ok(Found::Plan(Plan { gaps, ..plan(Origin::Folder, train, val) }));
    }
    let absent = |why| {
        let files = [&known.train[..], &known.val].concat();
        let (missing, hub, page) = (files.clone(), known.hub.clone(), known.page.clone());
        Found::Absent(Absent { name: name.to_owned(), files, missing, hub, page, why })
    };
    let Some(id) = known.hub.as_ref().and_then(|hub| Id::parse(Kind::DataSet, hub)) else { return Ok(absent(None)) };
    let listing = match listing(sources.hub, &id, ask)? {
        Listed::Known(listing) => listing,
        Listed::Unknown(why) => return Ok(absent(why)),
    };
    let names: Vec<&str> = listing.files.iter().map(|entry| entry.name.as_str()).collect();
    let items = |patterns: &[String]| items_of(&matching(patterns, &names), &listing, sources.hub, &id);
    let (train, val) = (items(&known.train), items(&known.val));
    let missing = unmatched(&known.train, &names);
    if listing.whole && !missing.is_empty() {
        let what = format!("{} has no file {} (commit {})", sources.hub.page(&id), missing.join(", "), listing.commit);
        return Err(Error::new(what).hint("its authors may have changed it: correct the table in datasets.toml"));
    }
    if train.is_empty() {
        return Ok(absent(ask.then(|| unasked(sources.hub))));
    }
    warn_of(name, &known.val, &names, ask && listing.whole);
    let chosen = train.iter().chain(&val).map(|item| item.entry.name.as_str());
    let gaps = if listing.whole { Vec::new() } else { gaps(chosen).into_iter().chain(missing).collect() };
    Ok(Found::Plan(Plan { gaps, ..plan(origin(&id, &listing), train, val) }))
}

/// The patterns that none of `names` fits.
fn unmatched(patterns: &[String], names: &[&str]) -> Vec<String> {
    let fits_none = |pattern: &&String| matching(std::slice::from_ref(*pattern), names).is_empty();
    patterns.iter().filter(fits_none).cloned().collect()
}

/// Says, to someone who wants to train, which of the patterns of validation files fit nothing.
fn warn_of(set: &str, patterns: &[String], names: &[&str], wanted: bool) {
    for pattern in unmatched(patterns, names).iter().filter(|_| wanted) {
        tracing::warn!("the data set {set} has no validation file {pattern}");
    }
}

/// Why the hub was not asked what it should have been.
pub fn unasked(hub: &Hub) -> String {
    if hub.is_offline() { "HF_HUB_OFFLINE is set" } else { "the hub cannot be asked for it" }.to_owned()
}

/// A set that only the hub knows.
fn find_spec(name: &str, spec: &Spec, sources: Sources, ask: bool) -> Result<Found> {
    let hub = sources.hub;
    let absent = |why| {
        let (repository, page) = (Some(spec.id.id.to_owned()), Some(hub.page(&spec.id)));
        let (files, missing) = (Vec::new(), Vec::new());
        Ok(Found::Absent(Absent { name: name.to_owned(), files, missing, hub: repository, page, why }))
    };
    let own = match listing(hub, &spec.id, ask)? {
        Listed::Known(listing) => Some(listing),
        Listed::Unknown(Some(why)) => return absent(Some(why)),
        Listed::Unknown(None) => None,
    };
    let rows = |listing: &Listing, text: bool, converted: bool| {
        splits::rows(listing.files.iter().map(|entry| entry.name.as_str()), text, converted)
    };
    let fits =
        |rows: &[Placed]| !rows.is_empty() && (spec.config.is_none() || splits::choose(rows, spec.config, "").is_ok());
    let parquet = own.as_ref().map_or(Vec::new(), |own| rows(own, false, spec.id.revision == CONVERTED));
    if let Some(own) = own.as_ref().filter(|_| fits(&parquet)) {
        return chosen(name, spec, (hub, &spec.id, own), &parquet);
    }
    // The hub converts the branch `main` alone.
    let branch = Id { revision: CONVERTED, ..spec.id };
    if spec.id.revision == "main" {
        match converted(hub, &branch, ask)? {
            Listed::Known(listing) => {
                let converted = rows(&listing, false, true);
                if fits(&converted) {
                    return chosen(name, spec, (hub, &branch, &listing), &converted);
                }
            }
            Listed::Unknown(Some(why)) => return absent(Some(why)),
            Listed::Unknown(None) => {}
        }
    }
    let Some(own) = own else { return absent(None) };
    let text = rows(&own, true, false);
    if fits(&text) {
        return chosen(name, spec, (hub, &spec.id, &own), &text);
    }
    if !own.whole {
        return absent(ask.then(|| unasked(hub)));
    }
    // (The choice says what there is instead.)
    match [parquet, text].into_iter().find(|rows| !rows.is_empty()) {
        Some(rows) => chosen(name, spec, (hub, &spec.id, &own), &rows),
        None => {
            let mut others: Vec<&str> = own.files.iter().map(|entry| entry.name.as_str()).collect();
            others.truncate(5);
            let (page, others) = (hub.page(&spec.id), others.join(", "));
            Err(Error::new(format!("{page} has no Parquet, CSV, TSV or JSON-lines file, but {others}"))
                .hint("fetch what you need of it by hand, and give --pairs FILE"))
        }
    }
}

/// The plan of what a name asks for among the files `rows` of a repository.
fn chosen(name: &str, spec: &Spec, (hub, id, listing): (&Hub, &Id, &Listing), rows: &[Placed]) -> Result<Found> {
    let (train, val) = splits::choose(rows, spec.config, name)?;
    if train.iter().chain(&val).any(|file| file.partial) {
        tracing::warn!("{name}: the hub has converted only the beginning of it to Parquet");
    }
    let names = |placed: &[Placed]| placed.iter().map(|file| file.name.clone()).collect::<Vec<_>>();
    let items =
        |placed: &[Placed]| items_of(&names(placed).iter().map(String::as_str).collect::<Vec<_>>(), listing, hub, id);
    let all = [names(&train), names(&val)].concat();
    let gaps = if listing.whole { Vec::new() } else { gaps(all.iter().map(String::as_str)) };
    Ok(Found::Plan(Plan {
        name: name.to_owned(),
        licence: listing.licence.clone(),
        page: Some(hub.page(&spec.id)),
        origin: origin(id, listing),
        train: items(&train),
        val: items(&val),
        columns: None,
        reader: Reader::Pairs,
        gaps,
    }))
}

/// The answer to a question about a repository.
enum Listed {
    Known(Listing),
    /// Why not, where the hub was to be asked.
    Unknown(Option<String>),
}

/// What the repository has: from the cache, or, with `ask`, from the hub.
fn listing(hub: &Hub, id: &Id, ask: bool) -> Result<Listed> {
    let kept = hub.remembered(id);
    match kept {
        Some(listing) if listing.whole || !ask || hub.is_offline() => return Ok(Listed::Known(listing)),
        None if !ask => return Ok(Listed::Unknown(None)),
        None if hub.is_offline() => return Ok(Listed::Unknown(Some("HF_HUB_OFFLINE is set".to_owned()))),
        _ => {}
    }
    match hub.list(id) {
        Ok(listing) => Ok(Listed::Known(listing)),
        Err(failure) if failure.is_outage() => {
            let why = Error::from(failure).to_string();
            Ok(kept.map_or_else(|| Listed::Unknown(Some(format!("it cannot be fetched ({why})"))), Listed::Known))
        }
        Err(failure) => Err(hub.explain(failure, OPTION, id)),
    }
}

/// [`listing`] of the branch of converted files, which not every repository has.
fn converted(hub: &Hub, id: &Id, ask: bool) -> Result<Listed> {
    if ask && !hub.is_offline() && hub.remembered(id).is_none() {
        match hub.list(id) {
            Ok(listing) => return Ok(Listed::Known(listing)),
            Err(Failure::Status { status: 404, .. }) => return Ok(Listed::Unknown(None)),
            Err(failure) if !failure.is_outage() => return Err(hub.explain(failure, OPTION, id)),
            Err(failure) => {
                let why = format!("it cannot be fetched ({})", Error::from(failure));
                return Ok(Listed::Unknown(Some(why)));
            }
        }
    }
    Ok(hub.remembered(id).map_or(Listed::Unknown(None), Listed::Known))
}

fn origin(id: &Id, listing: &Listing) -> Origin {
    Origin::Hub { id: id.id.to_owned(), revision: id.revision.to_owned(), commit: listing.commit.clone() }
}

fn items_of(names: &[&str], listing: &Listing, hub: &Hub, id: &Id) -> Vec<Item> {
    let entries = names.iter().filter_map(|name| listing.files.iter().find(|entry| entry.name == *name));
    let item = |entry: &Entry| Item { entry: entry.clone(), path: hub.data_path(id, &listing.commit, &entry.name) };
    entries.map(item).collect()
}
