//! Pure functions from a trace.
