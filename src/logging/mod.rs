//! L3 control: logs.
