use std::fmt;
use std::process::ExitCode;

/// What kind of failure ended the program; each has its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The command line asks for something that can't be.
    Usage,
    /// A file that was read is wrong.
    Input,
    /// The machine, its disk or its network refused.
    Environment,
    /// A run broke: the policy, the executor, or Metron itself.
    Internal,
    /// Ctrl-C.
    Interrupted,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Input => 3,
            Self::Environment => 4,
            Self::Internal => 6,
            Self::Interrupted => 130,
        }
    }
}

/// A failure with its kind, and the sentence that tells the user.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    /// Ctrl-C came; what was measured before has been written.
    pub(crate) fn interrupted() -> Self {
        Self {
            kind: Kind::Interrupted,
            error: anyhow::anyhow!("interrupted; the results are partial"),
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }
}

/// One line: the error and its causes, as far as they say more than it does.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.error.to_string();
        for cause in self.error.chain().skip(1).map(ToString::to_string) {
            if !said.contains(&cause) {
                said = format!("{said}: {cause}");
            }
        }
        f.write_str(&said)
    }
}

/// Gives an error its kind.
pub(crate) trait OrFail<T> {
    fn or_fail(self, kind: Kind) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    fn or_fail(self, kind: Kind) -> Result<T, Failure> {
        self.map_err(|error| Failure { kind, error: error.into() })
    }
}
