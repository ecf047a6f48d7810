//! The services `Sessions`, `Executions` and `Runners`, over [`Agents`].
//!
//! [`Agents`]: crate::agents::Agents

mod executions;
mod runners;
mod sessions;

pub(super) use executions::ExecutionsService;
pub(super) use runners::RunnersService;
pub(super) use sessions::SessionsService;

use stigmer_sdk::Result;
use stigmer_sdk::wire::invalid;

use crate::agents::Slice;

/// Rows on a page, if the request does not say.
const PAGE: u32 = 100;
/// And at most: what each row asks for is mostly a few hundred bytes.
const MAX_PAGE: u32 = 1000;

/// The part of a list that a request wants. A token is the number of the last
/// row of the page before.
fn slice(page_size: u32, page_token: &str) -> Result<Slice> {
    let before = match page_token {
        "" => None,
        token => Some(
            token
                .parse()
                .map_err(|_| invalid("page_token", "is not one that this daemon gave"))?,
        ),
    };
    let limit = match page_size {
        0 => PAGE,
        size => size.min(MAX_PAGE),
    };
    Ok(Slice { before, limit })
}

fn token(next: Option<i64>) -> String {
    next.map(|number| number.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_come_back_as_they_were_given() {
        #[track_caller]
        fn check(size: u32, token: &str, expected: Option<(u32, Option<i64>)>) {
            let slice = slice(size, token);
            let have = slice.ok().map(|slice| (slice.limit, slice.before));
            assert_eq!(have, expected);
        }
        check(0, "", Some((PAGE, None)));
        check(7, &token(Some(12)), Some((7, Some(12))));
        check(u32::MAX, &token(None), Some((MAX_PAGE, None)));
        check(1, "x", None);
        check(1, "1.a", None);
    }
}
