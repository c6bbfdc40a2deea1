use candle_core::Device;
use metron_trace::{BatchShape, Operator};

use crate::config::ModelConfig;
use crate::dtype::Dtype;

/// What a step of some shape asks of each operator: floating-point operations, and the bytes that
/// have to move at least, each weight, each cached position and each activation once.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepWork {
    layers: f64,
    hidden: f64,
    /// Columns of the queries.
    queries: f64,
    /// Columns of the keys, and of the values.
    keys: f64,
    intermediate: f64,
    vocabulary: f64,
    /// Bytes of a weight.
    weight: f64,
    /// Bytes of an activation.
    activation: f64,
    /// Whether logits have to be brought to the host.
    copies_logits: bool,
    tokens: f64,
    /// Rows that sample.
    rows: f64,
    decodes: Attended,
    prefills: Attended,
}

/// What the sequences of one kind attend to.
#[derive(Debug, Clone, Copy, Default)]
struct Attended {
    tokens: f64,
    /// Pairs of a token and a position that it sees.
    pairs: f64,
    /// Positions read.
    positions: f64,
}

impl StepWork {
    pub(super) fn new(
        config: &ModelConfig,
        shape: &BatchShape,
        dtype: Dtype,
        device: &Device,
    ) -> Self {
        let (mut decodes, mut prefills) = (Attended::default(), Attended::default());
        for (tokens, context) in shape.sequences() {
            let kind = if tokens == 1 { &mut decodes } else { &mut prefills };
            let (tokens, context) = (f64::from(tokens), f64::from(context));
            kind.tokens += tokens;
            kind.pairs += tokens.mul_add(context, tokens * (tokens + 1.0) / 2.0);
            kind.positions += tokens + context;
        }
        Self {
            layers: config.num_hidden_layers as f64,
            hidden: config.hidden_size as f64,
            queries: (config.num_attention_heads * config.head_width()) as f64,
            keys: (config.kv_heads() * config.head_width()) as f64,
            intermediate: config.intermediate_size as f64,
            vocabulary: config.vocab_size as f64,
            weight: dtype.bytes_per_weight(),
            activation: dtype.of_activations(device).size_in_bytes() as f64,
            copies_logits: !device.is_cpu(),
            tokens: f64::from(shape.tokens()),
            rows: shape.sequences().count() as f64,
            decodes,
            prefills,
        }
    }

    /// Floating-point operations, and bytes.
    pub(super) fn of(&self, operator: Operator) -> (f64, f64) {
        let Self { layers, hidden, queries, keys, tokens, rows, activation, .. } = *self;
        let (intermediate, vocabulary) = (self.intermediate, self.vocabulary);
        let elementwise = |elements: f64, flops: f64, moved: f64| {
            (elements * flops, elements * moved * activation)
        };
        match operator {
            Operator::Embedding => (0.0, tokens * hidden * (self.weight + activation)),
            Operator::Norm => elementwise((2.0 * layers).mul_add(tokens, rows) * hidden, 4.0, 2.0),
            Operator::Qkv => self.product(layers, tokens, hidden, 2.0f64.mul_add(keys, queries)),
            Operator::Rope => elementwise(layers * tokens * (queries + keys), 3.0, 2.0),
            Operator::CacheWrite => elementwise(layers * tokens * 2.0 * keys, 0.0, 2.0),
            Operator::AttentionPrefill => self.attention(&self.prefills),
            Operator::AttentionDecode => self.attention(&self.decodes),
            Operator::Output => self.product(layers, tokens, queries, hidden),
            Operator::GateUp => self.product(layers, tokens, hidden, 2.0 * intermediate),
            Operator::Activation => elementwise(layers * tokens * intermediate, 5.0, 3.0),
            Operator::Down => self.product(layers, tokens, intermediate, hidden),
            Operator::Residual => elementwise(2.0 * layers * tokens * hidden, 1.0, 3.0),
            Operator::Logits => self.product(1.0, rows, hidden, vocabulary),
            Operator::TransferBack if self.copies_logits => (0.0, rows * vocabulary * 2.0 * 4.0),
            Operator::TransferBack => (0.0, 0.0),
            Operator::Sampling => (rows * vocabulary, rows * vocabulary * 4.0),
        }
    }

    /// `count` products `[m, k] x [k, n]`.
    fn product(&self, count: f64, m: f64, k: f64, n: f64) -> (f64, f64) {
        let bytes = (k * n).mul_add(self.weight, m * (k + n) * self.activation);
        (count * 2.0 * m * k * n, count * bytes)
    }

    /// Scores and weighted values of each pair, in every query head; keys and values read once.
    fn attention(&self, attended: &Attended) -> (f64, f64) {
        let values =
            attended.positions.mul_add(2.0 * self.keys, 2.0 * attended.tokens * self.queries);
        (self.layers * 4.0 * attended.pairs * self.queries, self.layers * values * self.activation)
    }
}
