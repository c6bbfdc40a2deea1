use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The random streams of an experiment. Each is independent of the others, so that what one draws
/// does not change what another draws.
#[derive(Debug, Clone, Copy)]
pub enum Stream {
    /// The gaps between arrivals.
    Arrivals,
    /// Each request's class.
    Classes,
    /// Prompt and output lengths.
    Lengths,
    /// The prompts' tokens.
    Text,
    /// The seeds of sampling.
    Sampling,
    /// The order in which policies take their turns.
    Turns,
}

/// The generator of one stream of one replicate. `ChaCha8` gives the same numbers on every
/// platform.
pub fn stream(seed: u64, replicate: u32, stream: Stream) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..12].copy_from_slice(&replicate.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(stream as u64);
    rng
}
