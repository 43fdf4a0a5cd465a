//! L3 control: the file: [`schema`] (what it says), [`load`] (text to schema, all errors at once) and
//! [`diagnostics`] (how errors are shown).
//!
//! The way of a text: TOML with places (`syntax`), one tree of all texts with variables and defaults filled in (`tree`),
//! typed readers that collect every error (`reader`, with the table of known keys in `keys`, and what to write for a
//! wrong address in `addresses`), then the relations between parts (`relations`) and what is legal but surely a
//! mistake (`suspicions`, `shadow`). No socket is bound, and what is not in the texts is asked from outside ([`world`],
//! [`secrets`]), so that `check` and a live reload run the same code; [`sources`] and [`watch`] read and follow the texts.
//! The file of an
//! agent goes the same way, with its rules in [`agent`]. No part panics or loses its bound on any text.

pub(crate) mod addresses;
pub(crate) mod agent;
pub(crate) mod compile;
pub(crate) mod contents;
pub(crate) mod diagnostics;
mod keys;
pub(crate) mod load;
mod reader;
mod relations;
pub(crate) mod schema;
pub(crate) mod secrets;
mod shadow;
pub(crate) mod sources;
mod suspicions;
mod syntax;

#[cfg(test)]
mod tests;
mod tree;
pub(crate) mod watch;
pub(crate) mod world;
