use std::path::PathBuf;

/// Why there is no workload.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// A number that can't be.
    #[error("{field} is {value}; it must be {allowed}")]
    BadNumber {
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// A file can't be read.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: std::io::Error,
    },
    /// A file's line is wrong.
    #[error("{}:{line}: {cause}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong, and what is allowed.
        cause: String,
    },
    /// A file is wrong as a whole.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is allowed.
        cause: String,
    },
    /// Requests that can't be served.
    #[error(
        "{count} of {all} requests are longer than the {limit} tokens that a sequence may have \
         (the longest, request {longest}, is {prompt_tokens} + {output_tokens}); raise \
         --max-model-len or --kv-blocks, or use --too-long drop or --too-long truncate"
    )]
    TooLong {
        /// How many.
        count: usize,
        /// Of how many.
        all: usize,
        /// The limit.
        limit: u32,
        /// The longest.
        longest: u32,
        /// Its prompt.
        prompt_tokens: u32,
        /// Its output.
        output_tokens: u32,
    },
    /// Nothing to make prompts of.
    #[error("{0}")]
    NoPrompts(String),
}
