//! Experiments: calibrate, run, compare.
