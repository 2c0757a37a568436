//! `themo export`: a trained student as a folder that other programs load.

use crate::cli::{ExportArgs, ExportFor};
use crate::error::Result;
use crate::export::escape::shell;
use crate::export::{Program, Request, export};
use crate::ui::console::print;

/// Writes the folder; prints what its readers should know and the command that uploads it.
pub fn run(args: &ExportArgs) -> Result<()> {
    let program = match args.program {
        ExportFor::SentenceTransformers => Program::SentenceTransformers,
        ExportFor::OpenClip => Program::OpenClip,
    };
    let exported = export(Request {
        version: &args.run,
        settings: args.settings(),
        output: &args.output,
        program,
        with_images: args.with_images,
        hub_name: args.hub_name.as_deref(),
    })?;
    for note in &exported.notes {
        print(format!("note: {note}"))?;
    }
    let name = args.hub_name.as_deref().unwrap_or("OWNER/NAME");
    print(format!("exported to {}", exported.folder.display()))?;
    print(format!("upload it   hf upload {} {}", shell(name), shell(&exported.folder.to_string_lossy())))
}
