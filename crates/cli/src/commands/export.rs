use std::io::Write;

use metron_report::write_perfetto;
use metron_trace::TraceReader;

use crate::args::{ExportArgs, ExportFormat};
use crate::exit::{Failure, Kind, OrFail};
use crate::output::{io_failure, write_atomically};
use crate::print;
use crate::saved::{one_trace, store_failure};

/// `metron export`: a saved trace in another program's format.
pub(crate) fn run(args: &ExportArgs) -> Result<(), Failure> {
    let dir = one_trace(&args.trace)?;
    let (trace, missing) = TraceReader::read(&dir).map_err(store_failure)?;
    for missing in missing {
        print::note(&format!("{}: {missing}", dir.display()));
    }
    let mut bytes = Vec::new();
    match args.format {
        ExportFormat::Perfetto => write_perfetto(&trace, &mut bytes).or_fail(Kind::Internal)?,
    }
    match &args.output {
        Some(path) if path.is_dir() => {
            let error = std::io::Error::from(std::io::ErrorKind::IsADirectory);
            Err(io_failure(path, &error))
        }
        Some(path) => write_atomically(path, &bytes),
        None => {
            std::io::stdout().lock().write_all(&bytes).unwrap_or_else(print::lose);
            Ok(())
        }
    }
}
