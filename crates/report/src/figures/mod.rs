//! The figures, as SVG that follows the page's colours.

mod cdf;
mod stream;
mod theme;
mod timeline;

pub(crate) use cdf::cdfs;
pub(crate) use stream::streams;
pub(crate) use timeline::timelines;
