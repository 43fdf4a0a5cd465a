//! L3 control: the file: [`schema`] (what it says), [`load`] (text to schema, all errors at once) and
//! [`diagnostics`] (how errors are shown).

pub mod diagnostics;
pub mod load;
pub mod schema;
