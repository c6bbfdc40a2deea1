//! Files of the hub, through hf-hub and the hub's own cache.
//!
//! hf-hub 1.0.0 sets no time limit on its requests, does not begin a broken transfer again, and
//! stores an answer without looking at its length. So each download is watched here for silence,
//! repeated where it broke off, and checked before it counts.

use std::path::{Path, PathBuf};

use hf_hub::{HFClient, HFError, HFRepository, RepoTypeModel, split_id};

use super::background::BackgroundRuntime;
use super::digest::check_sha256;
use super::environment::HubEnvironment;
use super::error::{HubError, Refusal, SourceFailure};
use super::local::{
    self, CHAT_TEMPLATE, CONFIG, GENERATION_CONFIG, INDEX, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS,
};
use super::progress::Progress;
use super::transfer::{Arrival, Fault, transfer};

/// How often a file's transfer is begun in all, if it keeps breaking off.
const MAX_TRANSFERS: usize = 3;

/// Takes a file's name and a revision, and returns the file's place, or `None` if there is no such
/// file.
type Getter<'a> = dyn FnMut(&str, &str) -> Result<Option<PathBuf>, Refusal> + 'a;

/// One repository at one revision.
pub(super) struct Remote<'a> {
    repository: HFRepository<RepoTypeModel>,
    name: String,
    revision: String,
    endpoint: String,
    environment: &'a HubEnvironment,
    runtime: BackgroundRuntime,
}

impl<'a> Remote<'a> {
    /// Prepares to ask for a repository; nothing is sent yet.
    pub(super) fn new(
        name: &str,
        revision: &str,
        environment: &'a HubEnvironment,
    ) -> Result<Self, Refusal> {
        let unusable = |cause: String| {
            let source = format!("hub {name}");
            Refusal::Unavailable(SourceFailure {
                source,
                cause,
                advice: "check HF_ENDPOINT and HF_TOKEN".to_owned(),
            })
        };
        let client = client(environment).map_err(|error| unusable(error.to_string()))?;
        let runtime = BackgroundRuntime::new().map_err(|error| unusable(error.to_string()))?;
        let (owner, short_name) = split_id(name);
        Ok(Self {
            endpoint: client.endpoint().to_owned(),
            repository: client.model(owner, short_name),
            name: name.to_owned(),
            revision: revision.to_owned(),
            environment,
            runtime,
        })
    }

    /// The snapshot's directory, if all that a model needs is in the cache. Sends nothing.
    pub(super) fn cached(&self) -> Option<PathBuf> {
        self.collect(&mut |file, revision| self.cached_file(file, revision)).ok()
    }

    /// The snapshot's directory, after downloading what the cache lacks. `sha256` is the weights'
    /// hash, if known.
    pub(super) fn download(
        &self,
        sha256: Option<&str>,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, Refusal> {
        self.collect(&mut |file, revision| {
            self.file(file, revision, sha256.filter(|_| file == WEIGHTS), progress)
        })
    }

    /// The snapshot's directory with `config.json` in it and whatever else is there: enough for
    /// random weights.
    pub(super) fn config_directory(&self, progress: &mut dyn Progress) -> Result<PathBuf, Refusal> {
        let config = match self.cached_file(CONFIG, &self.revision)? {
            Some(cached) => cached,
            None => self
                .file(CONFIG, &self.revision, None, progress)?
                .ok_or_else(|| self.lacks(CONFIG))?,
        };
        Ok(directory_of(&config).to_owned())
    }

    /// `tokenizer.json`, if it is in the cache. Sends nothing.
    pub(super) fn cached_tokenizer(&self) -> Option<PathBuf> {
        self.cached_file(TOKENIZER, &self.revision).ok().flatten()
    }

    /// Asks `get` for each file of a model. `get` takes a file and a revision; `None` is a file
    /// that does not exist.
    fn collect(&self, get: &mut Getter<'_>) -> Result<PathBuf, Refusal> {
        let config = get(CONFIG, &self.revision)?.ok_or_else(|| self.lacks(CONFIG))?;
        let snapshot = directory_of(&config);
        // All other files come from the commit of the first, even if the branch moves meanwhile.
        let commit = snapshot
            .file_name()
            .map_or(self.revision.clone(), |name| name.to_string_lossy().into_owned());
        for optional in [GENERATION_CONFIG, TOKENIZER_CONFIG, CHAT_TEMPLATE, TOKENIZER] {
            get(optional, &commit)?;
        }
        if get(WEIGHTS, &commit)?.is_none() {
            let index = get(INDEX, &commit)?.ok_or_else(|| self.lacks("model.safetensors"))?;
            for shard in local::shards(&index)? {
                get(&shard, &commit)?.ok_or_else(|| self.lacks(&shard))?;
            }
        }
        Ok(snapshot.to_owned())
    }

    /// Looks into the cache only. Whether a tokenizer exists must be known; that of other files may
    /// be left open.
    fn cached_file(&self, file: &str, revision: &str) -> Result<Option<PathBuf>, Refusal> {
        let lookup = self
            .repository
            .download_file()
            .filename(file)
            .revision(revision)
            .local_files_only(true)
            .send();
        match self.runtime.block_on(lookup) {
            Ok(path) => Ok(Some(path)),
            Err(HFError::EntryNotFound { .. }) => Ok(None),
            Err(_) if file != TOKENIZER => Ok(None),
            Err(_) => Err(self.lacks(file)),
        }
    }

    /// Downloads a file unless the cache has it at this revision.
    fn file(
        &self,
        file: &str,
        revision: &str,
        sha256: Option<&str>,
        progress: &mut dyn Progress,
    ) -> Result<Option<PathBuf>, Refusal> {
        if self.environment.offline {
            return Err(self.unavailable(
                format!(
                    "HF_HUB_OFFLINE is set, and {} lacks {file}",
                    self.environment.hub_cache.display()
                ),
                "unset HF_HUB_OFFLINE to download it",
            ));
        }
        let mut transfers = 1;
        loop {
            let attempt =
                transfer(&self.repository, file, revision, self.environment.patience, progress);
            match self.runtime.block_on(attempt).and_then(Arrival::with_its_length) {
                Ok(arrival) => return self.checked(file, arrival, sha256, progress).map(Some),
                Err(Fault::NoSuchFile) => return Ok(None),
                Err(Fault::BrokeOff(cause)) if transfers < MAX_TRANSFERS => {
                    progress.note(&format!(
                        "the transfer of {file} broke off ({cause}); it begins again"
                    ));
                    transfers += 1;
                }
                Err(fault) => return Err(self.refusal(file, fault)),
            }
        }
    }

    /// Compares what arrived with the hash on the card, or else with the one that the hub announces
    /// for large files.
    fn checked(
        &self,
        file: &str,
        arrival: Arrival,
        sha256: Option<&str>,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, Refusal> {
        let announced = arrival.announced_sha256();
        if let Some(expected) = sha256.or(announced.as_deref()) {
            let what = format!("{file} from hub {}", self.name);
            check_sha256(&arrival.path, expected, &what).inspect_err(|_| arrival.discard())?;
        }
        if arrival.is_new() {
            progress.file_finished();
        }
        Ok(arrival.path)
    }

    fn refusal(&self, file: &str, fault: Fault) -> Refusal {
        const NETWORK: &str = "check the network, or set HF_ENDPOINT to a mirror";
        let endpoint = &self.endpoint;
        let (cause, advice) = match fault {
            Fault::NoSuchFile => return self.lacks(file),
            Fault::Hub(HFError::Io(source)) => {
                let path = self.environment.hub_cache.clone();
                return Refusal::Fatal(HubError::Io { action: "write to", path, source });
            }
            Fault::NoAnswer(waited) => {
                (format!("no answer from {endpoint} within {} s", waited.as_secs_f64()), NETWORK)
            }
            Fault::BrokeOff(cause) => (
                format!("the transfer of {file} broke off {MAX_TRANSFERS} times, at last: {cause}"),
                NETWORK,
            ),
            Fault::Hub(HFError::AuthRequired { .. } | HFError::Forbidden { .. }) => (
                format!("{endpoint} refuses access to {file}"),
                "check the name; for a gated model accept its licence at the hub, and set HF_TOKEN",
            ),
            Fault::Hub(error @ HFError::Request { .. }) => {
                (format!("{endpoint} can't be reached: {}", root_cause(&error)), NETWORK)
            }
            Fault::Hub(error) => (format!("{file}: {error}"), "try again later"),
        };
        self.unavailable(cause, advice)
    }

    fn offers(&self) -> String {
        format!("hub {}@{}", self.name, self.revision)
    }

    fn lacks(&self, file: &str) -> Refusal {
        self.unavailable(
            format!("{} has no {file} there", self.endpoint),
            "check the name; Metron reads repositories with config.json and safetensors",
        )
    }

    fn unavailable(&self, cause: String, advice: &str) -> Refusal {
        Refusal::Unavailable(SourceFailure {
            source: self.offers(),
            cause,
            advice: advice.to_owned(),
        })
    }
}

/// The directory that a file lies in.
fn directory_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

fn client(environment: &HubEnvironment) -> Result<HFClient, HFError> {
    // Two retries of 0.2 s and 0.4 s at most: a hub that refuses connections must be given up
    // quickly.
    let mut builder = HFClient::builder().cache_dir(&environment.hub_cache).retry_max_attempts(2);
    if let Some(endpoint) = &environment.endpoint {
        builder = builder.endpoint(endpoint);
    }
    if let Some(token) = &environment.token {
        builder = builder.token(token);
    }
    builder.build()
}

/// The innermost cause: "Connection refused" instead of "error sending request".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
