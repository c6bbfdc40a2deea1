//! The `metron` binary.

use std::process::ExitCode;

use metron_schedulers::Registry;

fn main() -> ExitCode {
    metron_cli::main_with(&Registry::default())
}
