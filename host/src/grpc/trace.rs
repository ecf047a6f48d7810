//! Trace ids, carried on from the caller by the W3C's `traceparent` header.

use http::HeaderMap;

/// Where a call belongs in somebody's trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    /// 32 hexadecimal digits.
    pub(super) trace_id: String,
    /// The caller's span, 16 hexadecimal digits; empty if the trace begins here.
    pub(super) parent_id: String,
}

impl Trace {
    /// The caller's trace if the header is well formed, and a new one otherwise.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        headers
            .get("traceparent")
            .and_then(|value| Self::parse(value.to_str().ok()?))
            .unwrap_or_else(Self::begin)
    }

    /// `00-TRACE-PARENT-FLAGS`. A later version may have more fields; an
    /// unknown one is read as far as it is known, as the standard asks.
    fn parse(header: &str) -> Option<Self> {
        let mut fields = header.split('-');
        let (version, trace_id, parent_id, flags) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let well_formed = hex(version, 2)
            && version != "ff"
            && id(trace_id, 32)
            && id(parent_id, 16)
            && hex(flags, 2)
            && (version != "00" || fields.next().is_none());
        well_formed.then(|| Self {
            trace_id: trace_id.to_owned(),
            parent_id: parent_id.to_owned(),
        })
    }

    fn begin() -> Self {
        let mut bytes = [0_u8; 16];
        // Without random numbers the call goes on, with a trace id of zeros.
        let _filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        Self {
            trace_id: format!("{:032x}", u128::from_ne_bytes(bytes)),
            parent_id: String::new(),
        }
    }
}

fn hex(field: &str, digits: usize) -> bool {
    field.len() == digits
        && field
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// An id of zeros means that there is none.
fn id(field: &str, digits: usize) -> bool {
    hex(field, digits) && field.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_headers_are_carried_on() {
        #[track_caller]
        fn check(header: &str, carried: bool) {
            let parsed = Trace::parse(header);
            assert_eq!(parsed.is_some(), carried, "{header}");
            if let Some(trace) = parsed {
                assert_eq!(trace.trace_id, "0af7651916cd43dd8448eb211c80319c");
                assert_eq!(trace.parent_id, "b7ad6b7169203331");
            }
        }
        check(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            true,
        );
        check(
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            true,
        );
        check(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            false,
        );
        check(
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            false,
        );
        check(
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            false,
        );
        check(
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            false,
        );
        check(
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            false,
        );
        check(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            false,
        );
        check("00-0af7-b7ad6b7169203331-01", false);
        check(
            "00-0af7651916cd43dd8448eb211c80319\u{1b}-b7ad6b7169203331-01",
            false,
        );
        check("", false);
    }

    #[test]
    fn a_new_trace_has_an_id() {
        let trace = Trace::of(&HeaderMap::new());
        assert!(
            id(&trace.trace_id, 32) && trace.parent_id.is_empty(),
            "{trace:?}"
        );
        assert_ne!(Trace::begin(), Trace::begin());
    }
}
