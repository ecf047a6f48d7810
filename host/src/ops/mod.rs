//! Whole operations over the contract, each written once.
//!
//! They see a [`Sandbox`](stigmer_sdk::Sandbox) and nothing of where it is or
//! who asks. Memory is bounded whatever the sandbox holds or a command writes.
//!
//! | module | owns |
//! | --- | --- |
//! | [`output`] | what is kept of a command's output, and where the rest goes |
//! | [`text`] | windows of lines in a file |
//! | [`edit`] | exact replacements in a file |
//! | [`search`] | finding files by name and lines by content |

pub mod edit;
#[cfg(test)]
pub(crate) mod fake;
pub mod output;
pub mod search;
pub mod text;
