//! The figures, as SVG that follows the page's colours.

mod blame;
mod capacity;
mod cdf;
mod roofline;
mod stream;
mod theme;
mod timeline;

pub(crate) use blame::{blame_figure, blame_keys};
pub(crate) use capacity::{bracket_figure, bracket_keys, probe_figures, probe_keys};
pub(crate) use cdf::cdfs;
pub(crate) use roofline::rooflines;
pub(crate) use stream::{Streams, stream_keys, streams};
pub(crate) use theme::{Key, policy_keys};
pub(crate) use timeline::{timeline_keys, timelines};

use serde::Serialize;

/// A picture with what stands above it.
#[derive(Serialize)]
pub(crate) struct Figure {
    pub(crate) caption: String,
    pub(crate) svg: String,
}
