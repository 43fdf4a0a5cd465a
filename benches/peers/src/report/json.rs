//! The report as JSON: all medians, all rounds, all goals.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::Report;

pub(super) fn write(report: &Report, file: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    serde_json::to_writer_pretty(&mut out, report)?;
    out.write_all(b"\n")?;
    out.flush()
}
