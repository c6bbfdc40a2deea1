//! The command line: arguments, files, printing, wiring.
//!
//! A library, so that a program with a policy of its own has the whole command line from one
//! call: [`main_with`].

mod args;
mod calibrations;
mod commands;
mod conditions;
mod deadline_facts;
mod derive;
mod download;
mod exit;
mod experiment;
mod facts;
mod goodput;
mod gpu;
mod header;
mod kernel;
mod machine;
mod model_rig;
mod output;
mod prepare;
mod print;
mod progress;
mod save_result;
mod saved;
mod stopwatch;
mod virtual_rig;
mod workload_draft;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use metron_schedulers::Registry;

use args::{Arguments, Command};
use exit::Failure;
use prepare::Defaulted;

/// Runs the command line with the policies of `registry`, and returns the process's exit code:
/// 0 done, 2 usage, 3 input file, 4 environment, 6 internal, 130 after Ctrl-C.
pub fn main_with(registry: &Registry) -> ExitCode {
    let words = goodput::with_limits_as_one_word(std::env::args_os());
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    match run(&arguments.command, registry).and_then(|()| whole_output()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => tell(&failure),
    }
}

fn tell(failure: &Failure) -> ExitCode {
    print::note(&format!("error: {failure}"));
    failure.exit_code()
}

fn whole_output() -> Result<(), Failure> {
    let error = |error| output::io_failure(Path::new("standard output"), error);
    print::lost().map_or(Ok(()), |lost| Err(error(lost)))
}

fn run(command: &Command, registry: &Registry) -> Result<(), Failure> {
    match command {
        Command::Compare(args) => commands::experiment::run(args, Defaulted::Compare, registry),
        Command::Capacity(args) => commands::capacity::run(args, registry),
        Command::Run(args) => commands::experiment::run(args, Defaulted::Run, registry),
        Command::Calibrate(args) => commands::calibrate::run(args),
        Command::Generate(args) => commands::generate::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Score(args) => commands::score::run(args),
        Command::Profile(args) => commands::profile::run(args),
        Command::Export(args) => commands::export::run(args),
        Command::Import(args) => commands::import::run(args),
        Command::Diff(args) => commands::diff::run(args),
        Command::Explain(args) => commands::explain::run(args),
        Command::Models(args) => commands::list::models(args),
        Command::Schedulers(args) => commands::list::schedulers(args, registry),
    }
}

/// Help and version are no failures; everything else that clap refuses is usage.
fn refuse(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if let Err(error) = error.print() {
        print::lose(error);
    }
    match whole_output() {
        Err(failure) => tell(&failure),
        Ok(()) if asked_for => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(2),
    }
}
