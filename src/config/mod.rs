//! The configuration: [`schema`] is what a file says, [`load`] turns text into it and reports all errors at once, and
//! [`diagnostics`] is how errors are shown.
//!
//! The path of a text, from the leaves up: TOML with spans (`syntax`); one tree of all texts with variables and
//! defaults filled in (`tree`); typed readers that collect every error (`reader`), which share `limits`, the known keys
//! of each table (`sections`), texts with a grammar of their own (`grammar`, [`addresses`]) and the rules of a peer set
//! member ([`member_rules`]); then contradictions between parts of the file (`cross_checks`) and what is legal but
//! surely a mistake (`lints`, `shadowed_routes`). No socket is bound, and everything that is not in the texts comes
//! from outside ([`environment`], [`secrets`]), so `check` and a live reload run the same code. [`sources`] and
//! [`watch`] read and follow the files. The file of an agent takes the same path. No part panics or runs without a
//! bound, whatever the text.

pub(crate) mod addresses;
pub(crate) mod compile;
pub(crate) mod contents;
mod cross_checks;
pub(crate) mod diagnostics;
mod draft;
pub(crate) mod environment;
mod grammar;
pub(crate) mod layers;
pub(crate) mod limits;
mod lints;
pub(crate) mod load;
pub(crate) mod member_rules;
mod reader;
pub(crate) mod schema;
pub(crate) mod secrets;
pub(crate) mod sections;
mod shadowed_routes;
pub(crate) mod sources;
mod span;
mod syntax;

#[cfg(test)]
mod tests;
mod tree;
pub(crate) mod watch;
