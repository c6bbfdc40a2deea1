//! The executor that runs a transformer.
