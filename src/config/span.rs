//! Where something stands in the text of a configuration.

use std::ops::Range;

/// Byte range of a piece of the text. In a configuration of several files it counts through all of them, joined.
pub(super) type TextSpan = Range<usize>;
