use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{ImportError, ImportNote, Imported, Tool};
use crate::{
    EndStatus, ExecutorInfo, FORMAT_VERSION, Header, Limits, Machine, ModelInfo, Origin,
    PolicyInfo, Request, RequestEnd, RequestId, Sampling, Timestamp, Token, Trace,
};

/// A result as its reader understood it.
pub(super) struct Foreign {
    pub(super) tool: Tool,
    /// How the tool's user called the run.
    pub(super) label: Option<String>,
    pub(super) model: Option<String>,
    /// What else the result says of itself, kept in the header.
    pub(super) says: Map<String, Value>,
    pub(super) requests: Vec<ForeignRequest>,
}

/// One request of a result.
pub(super) struct ForeignRequest {
    /// When it was sent, by any clock; `None` for all of them where the tool did not keep it.
    pub(super) sent_at: Option<Timestamp>,
    pub(super) prompt_tokens: u32,
    /// As the tool counted them.
    pub(super) output_tokens: u32,
    /// `T_0 .. T_{n-1}`, in seconds.
    pub(super) inter_token_s: Vec<f64>,
    pub(super) status: EndStatus,
}

impl Foreign {
    /// The trace: the first request arrives at 0.
    pub(super) fn into_trace(mut self) -> Result<Imported, ImportError> {
        self.requests.sort_by_key(|request| request.sent_at);
        let first = self.requests.first().ok_or(ImportError::NoRequests)?.sent_at;
        let header = self.header(first.is_some());
        let mut trace = Trace {
            header,
            requests: Vec::new(),
            steps: Vec::new(),
            tokens: Vec::new(),
            ends: Vec::new(),
        };
        let (mut other_times, all) = (0, self.requests.len());
        for (id, request) in (0..).map(RequestId).zip(self.requests) {
            let since_first = request.sent_at.zip(first).map(|(sent, first)| sent - first);
            let arrived_at = Timestamp::ZERO + since_first.unwrap_or_default();
            let is_whole = request.inter_token_s.len() == request.output_tokens as usize;
            other_times += usize::from(!is_whole && request.status == EndStatus::Finished);
            request.append_to(&mut trace, id, arrived_at);
        }
        trace.tokens.sort_by_key(|token| token.at);
        trace.ends.sort_by_key(|end| end.ended_at);
        let notes = (other_times > 0)
            .then_some(ImportNote::OtherTimes { requests: other_times, all })
            .into_iter()
            .collect();
        Ok(Imported { trace, notes })
    }

    fn header(&mut self, knows_arrivals: bool) -> Header {
        let name = self.tool.name().to_owned();
        Header {
            format_version: FORMAT_VERSION,
            metron_version: env!("CARGO_PKG_VERSION").to_owned(),
            created_at: None,
            command_line: Vec::new(),
            origin: if knows_arrivals { Origin::Imported } else { Origin::ImportedWithoutArrivals },
            seed: 0,
            replicate: 0,
            max_concurrency: None,
            policy: PolicyInfo {
                label: self.label.take().unwrap_or_else(|| name.clone()),
                name: name.clone(),
                options: Value::Null,
            },
            model: ModelInfo {
                id: self.model.take().unwrap_or_else(|| "unknown model".to_owned()),
                source: format!("imported from {name}"),
                format: "unknown format".to_owned(),
                parameters: 0,
                sha256: None,
                dummy: false,
            },
            executor: ExecutorInfo {
                device: "unknown device".to_owned(),
                dtype: None,
                threads: None,
                batch_invariant: None,
            },
            machine: Machine::default(),
            limits: Limits { block_size: 0, num_blocks: 0, max_num_seqs: 0, max_model_len: 0 },
            experiment: json!({ "imported": { "from": name, "says": std::mem::take(&mut self.says) } }),
            classes: Vec::new(),
            dropped_requests: 0,
            truncated_requests: 0,
            calibration: None,
        }
    }
}

impl ForeignRequest {
    fn append_to(self, trace: &mut Trace, id: RequestId, arrived_at: Timestamp) {
        let mut ended_at = arrived_at;
        let mut since_arrival_s = 0.0;
        for (index, gap) in (0..).zip(&self.inter_token_s) {
            since_arrival_s += gap;
            let since = Duration::try_from_secs_f64(since_arrival_s).unwrap_or(Duration::MAX);
            ended_at = arrived_at + since;
            trace.tokens.push(Token { request: id, index, step: None, id: None, at: ended_at });
        }
        trace.requests.push(Request {
            id,
            arrived_at,
            prompt_tokens: self.prompt_tokens,
            output_tokens: Some(self.output_tokens),
            max_tokens: self.output_tokens,
            class: 0,
            priority: 0,
            deadlines: None,
            sampling: Sampling::GREEDY,
        });
        trace.ends.push(RequestEnd { request: id, status: self.status, ended_at });
    }
}
