use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use metron_engine::Scheduler;
use metron_trace::{Limits, PolicyInfo};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Orca, Sarathi, SarathiOptions, StaticBatching, VllmV0, VllmV0Options};

/// A policy as the user asked for it: a name and some of its options.
///
/// On the command line `sarathi:token_budget=256`, with further options after further colons; in
/// an experiment file a table with `name`, `label` and the options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// The registered name, or an alias.
    pub name: String,
    /// How tables call it; `None` for the name with the options given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Options given; the others have their defaults.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

impl PolicySpec {
    /// How tables call it.
    pub fn label(&self) -> String {
        self.label.clone().unwrap_or_else(|| {
            let options = self.options.iter().map(|(key, value)| format!(":{key}={value}"));
            format!("{}{}", self.name, options.collect::<String>())
        })
    }
}

impl FromStr for PolicySpec {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default().trim().to_owned();
        let mut options = Map::new();
        for part in parts {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| PolicyError::NotAnOption { text: part.to_owned() })?;
            let value = serde_json::from_str(value.trim())
                .unwrap_or_else(|_| Value::String(value.trim().to_owned()));
            let key = key.trim().to_owned();
            if options.insert(key.clone(), value).is_some() {
                return Err(PolicyError::GivenTwice { policy: name, key });
            }
        }
        Ok(Self { name, label: None, options })
    }
}

/// What policies' defaults depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// The engine's limits.
    pub limits: Limits,
    /// The most tokens of a step that is to stay within the deadline of its decodes.
    pub token_budget: u32,
}

/// Why a policy can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Nobody of this name.
    #[error("there is no policy `{name}`{}; there are {}", nearest(name, known), list(known))]
    Unknown {
        /// The name given.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Not of the form `key=value`.
    #[error("`{text}` is not an option: options follow a policy as `name:key=value:key=value`")]
    NotAnOption {
        /// What was given.
        text: String,
    },
    /// Two values for one option.
    #[error("policy `{policy}`: its option `{key}` is given twice; leave one out")]
    GivenTwice {
        /// The policy.
        policy: String,
        /// The option.
        key: String,
    },
    /// The policy has no such option.
    #[error(
        "policy `{policy}` has no option `{key}`{}; its options are {}",
        nearest(key, known),
        list(known)
    )]
    UnknownOption {
        /// The policy.
        policy: String,
        /// The option given.
        key: String,
        /// The options there are.
        known: Vec<String>,
    },
    /// The option can't have this value.
    #[error("policy `{policy}`: {cause}")]
    BadOption {
        /// The policy.
        policy: String,
        /// What is wrong, with the allowed values.
        cause: String,
    },
}

fn nearest(name: &str, known: &[String]) -> String {
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(String::new, |(_, candidate)| format!(" (did you mean `{candidate}`?)"))
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

type Build = dyn Fn(&PolicySpec, &Defaults) -> Result<(Box<dyn Scheduler>, Value), PolicyError>
    + Send
    + Sync;

#[derive(Clone)]
struct Entry {
    names: Vec<String>,
    about: String,
    build: Arc<Build>,
}

/// The policies that can be asked for by name.
#[derive(Clone)]
pub struct Registry(Vec<Entry>);

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Default for Registry {
    /// The policies of this crate.
    fn default() -> Self {
        Self(Vec::new())
            .with("static", "request-level batching: a batch drains before the next", || {
                Box::new(StaticBatching::default())
            })
            .with("orca", "whole prompts join running decodes", || Box::new(Orca::default()))
            .with_options(
                &["vllm-v0", "vllm"],
                "prefills first, apart from decodes; preempts by recomputation",
                |defaults| VllmV0Options {
                    max_num_batched_tokens: defaults.limits.max_model_len.max(2048),
                },
                |options| at_least_one("max_num_batched_tokens", options.max_num_batched_tokens),
                |options| Box::new(VllmV0::new(options)),
            )
            .with_options(
                &["sarathi"],
                "stall-free: chunked prefills share a token budget with decodes",
                |defaults| SarathiOptions { token_budget: defaults.token_budget },
                |options| at_least_one("token_budget", options.token_budget),
                |options| Box::new(Sarathi::new(options)),
            )
    }
}

fn at_least_one(key: &str, value: u32) -> Result<(), String> {
    if value == 0 { Err(format!("{key} is 0; it must be at least 1")) } else { Ok(()) }
}

impl Registry {
    /// Adds a policy without options.
    #[must_use]
    pub fn with(
        self,
        name: &str,
        about: &str,
        build: impl Fn() -> Box<dyn Scheduler> + Send + Sync + 'static,
    ) -> Self {
        #[derive(Serialize, Deserialize)]
        struct NoOptions {}
        self.with_options(&[name], about, |_| NoOptions {}, |_| Ok(()), move |_| build())
    }

    /// Adds a policy with options: the names it answers to (the first is the one shown), its
    /// options' defaults, a check of their values, and how to build it from them. A name that
    /// another policy answers to is this one's from now on.
    #[must_use]
    pub fn with_options<O: Serialize + DeserializeOwned + 'static>(
        mut self,
        names: &[&str],
        about: &str,
        defaults: impl Fn(&Defaults) -> O + Send + Sync + 'static,
        check: impl Fn(&O) -> Result<(), String> + Send + Sync + 'static,
        build: impl Fn(O) -> Box<dyn Scheduler> + Send + Sync + 'static,
    ) -> Self {
        let build = move |spec: &PolicySpec, context: &Defaults| {
            let options = merge(spec, &defaults(context))?;
            let bad = |cause| PolicyError::BadOption { policy: spec.name.clone(), cause };
            let typed: O = serde_path_to_error::deserialize(options.clone())
                .map_err(|error| bad(format!("option {error}")))?;
            check(&typed).map_err(bad)?;
            Ok((build(typed), options))
        };
        for entry in &mut self.0 {
            entry.names.retain(|name| !names.contains(&name.as_str()));
        }
        self.0.retain(|entry| !entry.names.is_empty());
        self.0.push(Entry {
            names: names.iter().map(ToString::to_string).collect(),
            about: about.to_owned(),
            build: Arc::new(build),
        });
        self
    }

    /// Every name with a line about the policy, in order of registration.
    pub fn list(&self) -> impl Iterator<Item = (&[String], &str)> {
        self.0.iter().map(|entry| (entry.names.as_slice(), entry.about.as_str()))
    }

    /// Builds a policy, fresh: it has seen no events. Also what the trace's header says of it.
    pub fn build(
        &self,
        spec: &PolicySpec,
        defaults: &Defaults,
    ) -> Result<(Box<dyn Scheduler>, PolicyInfo), PolicyError> {
        let entry =
            self.0.iter().find(|entry| entry.names.contains(&spec.name)).ok_or_else(|| {
                PolicyError::Unknown {
                    name: spec.name.clone(),
                    known: self.names().cloned().collect(),
                }
            })?;
        let (scheduler, options) = (entry.build)(spec, defaults)?;
        let name = entry.names[0].clone();
        Ok((scheduler, PolicyInfo { label: spec.label(), name, options }))
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.0.iter().flat_map(|entry| &entry.names)
    }
}

/// The default options with the given ones in their place.
fn merge<O: Serialize>(spec: &PolicySpec, defaults: &O) -> Result<Value, PolicyError> {
    let mut options = match serde_json::to_value(defaults) {
        Ok(Value::Object(options)) => options,
        _ => Map::new(),
    };
    for (key, value) in &spec.options {
        let Some(slot) = options.get_mut(key) else {
            return Err(PolicyError::UnknownOption {
                policy: spec.name.clone(),
                key: key.clone(),
                known: options.keys().cloned().collect(),
            });
        };
        *slot = value.clone();
    }
    Ok(Value::Object(options))
}
