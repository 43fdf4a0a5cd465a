//! L1 pure: how much of something may be going on at a time. A permit is a guard: it gives its place back when it is
//! dropped. What a limit is comes in as an argument, so that a reload changes it without touching what is counted.

pub(crate) mod connections;
