//! The two text columns of a Parquet file, nested ones too; the others are not read.
//!
//! <https://parquet.apache.org/docs/file-format/>. A value is present if its definition level is the column's highest one:
//! else it, or a struct around it, is null.

use std::fs::File;
use std::path::Path;

use parquet::basic::{ConvertedType, Type as Physical};
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use super::columns::Wanted;
use super::output::{MISSING, Output, ReadReport, Sink};
use crate::data::guard::guarded;
use crate::error::{Error, Result, ResultExt};

/// Rows that are decoded at once.
const ROWS: usize = 1024;

/// Reads the Parquet file at `path`.
pub(super) fn read<'a>(path: &Path, wanted: &Wanted, sink: &'a mut Sink<'a>) -> Result<ReadReport> {
    let name = path.display().to_string();
    let file = File::open(path).context(|| format!("cannot read {name}"))?;
    let reader = decode(&name, "the Parquet footer", || SerializedFileReader::new(file))?;
    let metadata = reader.metadata();
    let schema = metadata.file_metadata().schema_descr();
    let at = columns(schema, &name, wanted)?;
    let groups = metadata.num_row_groups();
    let [es, en] = at.map(|column| schema.column(column).path().string());
    let format = format!("Parquet, row groups: {groups}, columns {es} and {en}");
    let mut out = Output::new(&name, "row", format, sink);
    for group in 0..groups {
        let what = format!("row group {} of {groups}", group + 1);
        let (before, rows) = (out.report.rows, metadata.row_group(group).num_rows());
        let reader = decode(&name, &what, || reader.get_row_group(group))?;
        let side = |column| decode(&name, &what, || Side::new(&*reader, column));
        let mut sides = [side(at[0])?, side(at[1])?];
        loop {
            for side in &mut sides {
                decode(&name, &what, || side.fill())?;
            }
            if sides.iter().all(|side| side.rows == 0) {
                break;
            }
            put(&sides, &mut out)?;
        }
        let found = out.report.rows - before;
        if i64::try_from(found) != Ok(rows) || sides[0].read != sides[1].read {
            let [es, en] = [sides[0].read, sides[1].read];
            let what = format!("{name}: {what} is of {rows} rows, but has {es} Spanish and {en} English ones");
            return Err(Error::new(what).hint("the file is damaged; fetch or write it again"));
        }
    }
    Ok(out.report)
}

/// What `decode` gives, or why `what` of the file cannot be read. (Damage makes the crate panic here and there.)
fn decode<T>(file: &str, what: &str, decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    let decoded = guarded(|| decode().map_err(|e| Error::new(e.to_string())));
    decoded.context(|| format!("{file}: cannot read {what}")).hint(
        || "the file is damaged, cut short, or written in a way that is not supported; fetch it again or write it anew",
    )
}

/// The rows that both sides hold now.
fn put([es, en]: &[Side; 2], out: &mut Output) -> Result<()> {
    for (es, en) in es.texts().zip(en.texts()) {
        let number = out.report.rows + 1;
        match (es, en) {
            (Some(es), Some(en)) => out.put(number, es.data(), en.data())?,
            _ => {
                let shown = [es, en].map(|side| side.map_or(&b"null"[..], ByteArray::data));
                out.reject(MISSING, number, &shown.join(&b" / "[..]));
            }
        }
    }
    Ok(())
}

/// Where the two texts are among the leaves of the schema.
fn columns(schema: &SchemaDescriptor, file: &str, wanted: &Wanted) -> Result<[usize; 2]> {
    let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    let Some(at) = wanted.find(&names)? else {
        return Err(wanted.missing(file, &names));
    };
    for column in at.map(|at| schema.column(at)) {
        if let Some(what) = unsuitable(&column) {
            let what = format!("{file}: the column {} holds {what}, not a text a row", column.path().string());
            return Err(Error::new(what).hint("name two columns of strings: --columns es=NAME,en=NAME"));
        }
    }
    Ok(at)
}

/// What a column holds that is not one text a row. (Old writers mark strings as no more than bytes.)
fn unsuitable(column: &ColumnDescriptor) -> Option<String> {
    let kind = (column.physical_type(), column.converted_type());
    if column.max_rep_level() > 0 {
        return Some("lists".to_owned());
    }
    match kind {
        (Physical::BYTE_ARRAY, ConvertedType::NONE | ConvertedType::UTF8 | ConvertedType::ENUM) => None,
        (physical, ConvertedType::NONE) => Some(format!("{physical}")),
        (_, converted) => Some(format!("{converted}")),
    }
}

/// One column of a row group, decoded piece by piece.
struct Side {
    reader: ColumnReaderImpl<ByteArrayType>,
    /// The definition level of a text that is there.
    present: i16,
    values: Vec<ByteArray>,
    levels: Vec<i16>,
    /// Rows decoded at the last [`fill`](Self::fill), and in all.
    rows: usize,
    read: usize,
}

impl Side {
    fn new(group: &dyn RowGroupReader, column: usize) -> Result<Self, ParquetError> {
        let present = group.metadata().column(column).column_descr().max_def_level();
        let reader = get_typed_column_reader(group.get_column_reader(column)?);
        Ok(Self { reader, present, values: Vec::new(), levels: Vec::new(), rows: 0, read: 0 })
    }

    /// Decodes the next rows; none are left if `rows` is 0 then.
    fn fill(&mut self) -> Result<(), ParquetError> {
        self.values.clear();
        self.levels.clear();
        let read = self.reader.read_records(ROWS, Some(&mut self.levels), None, &mut self.values)?;
        self.rows = read.0;
        self.read += self.rows;
        Ok(())
    }

    /// The text of each row.
    fn texts(&self) -> impl Iterator<Item = Option<&ByteArray>> {
        let mut values = self.values.iter();
        (0..self.rows).map(move |row| {
            let is_present = self.present == 0 || self.levels.get(row) == Some(&self.present);
            is_present.then(|| values.next()).flatten()
        })
    }
}
