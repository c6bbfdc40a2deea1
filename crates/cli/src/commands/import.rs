use std::fs::File;
use std::io::Read;
use std::path::Path;

use metron_trace::{Imported, Tool, TraceWriter};

use crate::args::{ImportArgs, ToolArg};
use crate::exit::{Failure, Kind, OrFail};
use crate::output::{OutputDir, io_failure};
use crate::print;

/// A file larger than this is no result of one run.
const LARGEST_FILE: u64 = 1 << 28;

/// `metron import`: another tool's result as a trace, to be scored as if it were Metron's.
pub(crate) fn run(args: &ImportArgs) -> Result<(), Failure> {
    let tool = match args.tool {
        ToolArg::Etalon => Tool::Etalon,
        ToolArg::Vllm => Tool::Vllm,
        ToolArg::Aiperf => Tool::Aiperf,
    };
    let Imported { mut trace, notes } = tool
        .import(&read(&args.file)?)
        .map_err(|error| anyhow::anyhow!("{}: {error}", args.file.display()))
        .or_fail(Kind::Input)?;
    trace.header.command_line = std::env::args().collect();
    if let Some(label) = &args.label {
        trace.header.policy.label.clone_from(label);
    }
    let output = OutputDir::create(Some(&args.output), "import")?;
    TraceWriter::write(&output.path, &trace).or_fail(Kind::Environment)?;
    for note in notes {
        print::note(&note.to_string());
    }
    let arrivals = if trace.header.origin.knows_arrivals() { "" } else { ", nor arrivals" };
    let dir = output.path.display();
    print::note(&format!(
        "{} requests with {} tokens written to {dir}; {} does not know steps{arrivals}. \
         Score them: metron score {dir} --ttft-deadline 500ms --tbt-deadline 50ms",
        trace.requests.len(),
        trace.tokens.len(),
        tool.name(),
    ));
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    let input = |error| Failure { kind: Kind::Input, error };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure { kind: Kind::Input, ..io_failure(path, &error) })?;
    if bytes.len() as u64 > LARGEST_FILE {
        let error = anyhow::anyhow!("{}: it is larger than 256 MiB", path.display());
        return Err(input(error));
    }
    String::from_utf8(bytes)
        .map_err(|_| input(anyhow::anyhow!("{}: it is not UTF-8", path.display())))
}
