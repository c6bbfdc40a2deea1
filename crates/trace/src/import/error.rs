/// Why a result of another tool is no trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// It has no requests.
    #[error("it has no requests")]
    NoRequests,
    /// Not JSON, or not an object.
    #[error("{place}not a JSON object: {cause}")]
    NotJson {
        /// The line, for a file of lines.
        place: String,
        /// What is wrong.
        cause: String,
    },
    /// A field that is needed.
    #[error("{field} is not there; {hint}")]
    Missing {
        /// The way to the field.
        field: String,
        /// What has it.
        hint: &'static str,
    },
    /// A value that can't be.
    #[error("{field} is {found}; it must be {allowed}")]
    Wrong {
        /// The way to the value.
        field: String,
        /// The value, cut to what a message can hold.
        found: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// Lists of a request each that are not as long.
    #[error("{field} has {len} entries and {other} has {expected}; both must have one a request")]
    Lengths {
        /// A list.
        field: String,
        /// Its length.
        len: usize,
        /// The first list.
        other: &'static str,
        /// The first's length.
        expected: usize,
    },
    /// Tokens without times.
    #[error(
        "{request} got {output_tokens} output tokens, and none has a time: the tool did not stream \
         them, so nothing is known of their deadlines"
    )]
    NoTimes {
        /// The request.
        request: String,
        /// Its tokens.
        output_tokens: u32,
    },
}
