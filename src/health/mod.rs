//! L3 control: health.
