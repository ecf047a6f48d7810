//! The grammar of single values. Each function says what is wrong as the end
//! of a sentence that begins with the name and the value.

use std::net::SocketAddr;
use std::time::Duration;

use super::LogFormat;

/// A value, or what it should have been.
pub(super) type Parsed<T> = Result<T, String>;

/// A port to listen on; 0 is any that is free.
pub(super) fn port(value: &str) -> Parsed<u16> {
    value
        .parse()
        .map_err(|_| "a port is a number from 0 to 65535".to_owned())
}

/// A port to connect to.
pub(super) fn remote_port(value: &str) -> Parsed<u16> {
    match value.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("a port is a number from 1 to 65535".to_owned()),
    }
}

/// `90s`, `30m`, `1h 30m`. Never nothing: a limit of no time is no limit that anybody wants.
pub(super) fn duration(value: &str) -> Parsed<Duration> {
    match humantime::parse_duration(value) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(
            "a duration is a number above 0 with a unit, such as 90s, 30m or '1h 30m'".to_owned(),
        ),
    }
}

/// `off`, or an address to listen on.
pub(super) fn metrics(value: &str) -> Parsed<Option<SocketAddr>> {
    if value == "off" {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|_| {
        "metrics are 'off' or an address and a port, such as 127.0.0.1:9464".to_owned()
    })
}

/// `text` or `json`.
pub(super) fn log_format(value: &str) -> Parsed<LogFormat> {
    match value {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("a log format is 'text' or 'json'".to_owned()),
    }
}

/// A level, or directives like `warn,stigmer=debug`. Stricter than the log
/// filter itself, to which a misspelt level is the name of a module.
pub(super) fn log_level(value: &str) -> Parsed<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let directives: Vec<String> = value
        .split(',')
        .map(|directive| match directive.trim().split_once('=') {
            Some((target, level)) => (Some(target), level),
            None => (None, directive.trim()),
        })
        .map(|(target, level)| {
            let level = level.to_ascii_lowercase();
            match target {
                _ if !LEVELS.contains(&level.as_str()) => None,
                Some("") => None,
                Some(target) => Some(format!("{target}={level}")),
                None => Some(level),
            }
        })
        .collect::<Option<_>>()
        .ok_or_else(|| {
            format!(
                "a level is one of {}, alone or for a module, as in 'warn,stigmer=debug'",
                LEVELS.join(", ")
            )
        })?;
    Ok(directives.join(","))
}

/// `host:port`, `unix:/path`, `http://host[:port]` or `https://host[:port]`.
pub(super) fn endpoint(value: &str) -> Parsed<String> {
    let valid = if let Some(path) = value.strip_prefix("unix:") {
        path.starts_with('/') && path.len() > 1 && !path.contains('\0')
    } else if value.contains("://") {
        is_http_url(value)
            && value
                .parse::<http::Uri>()
                .is_ok_and(|uri| uri.path() == "/")
    } else {
        is_host_and_port(value)
    };
    if valid {
        Ok(value.to_owned())
    } else {
        Err(
            "an endpoint is host:port, unix:/path, http://host[:port] or https://host[:port]"
                .to_owned(),
        )
    }
}

/// The address of an HTTP API.
pub(super) fn url(value: &str) -> Parsed<String> {
    if is_http_url(value) {
        Ok(value.to_owned())
    } else {
        Err("an address of an API begins with http:// or https:// and a host".to_owned())
    }
}

/// The base address of an HTTP API, without a slash at its end.
pub(super) fn base_url(value: &str) -> Parsed<String> {
    url(value).map(|url| url.trim_end_matches('/').to_owned())
}

/// The name of a model. Each provider has its own grammar for these.
pub(super) fn model(value: &str) -> Parsed<String> {
    if value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Err("the name of a model has no space".to_owned())
    } else {
        Ok(value.to_owned())
    }
}

/// A bound, of which `none` is no bound.
pub(super) fn bound<T>(value: &str, parse: impl Fn(&str) -> Parsed<T>) -> Parsed<Option<T>> {
    if value == "none" {
        return Ok(None);
    }
    parse(value)
        .map(Some)
        .map_err(|rule| format!("{rule}, or 'none'"))
}

/// A whole number of something, and not none of it.
pub(super) fn count<T>(value: &str) -> Parsed<T>
where
    T: std::str::FromStr + PartialEq + Default,
{
    match value.parse::<T>() {
        Ok(count) if count != T::default() => Ok(count),
        _ => Err("this is a whole number above 0".to_owned()),
    }
}

/// Dollars, as millionths of one.
pub(super) fn dollars(value: &str) -> Parsed<u64> {
    let parse = || {
        let number = value.strip_prefix('$').unwrap_or(value);
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 6 {
            return None;
        }
        let whole: u64 = whole.parse().ok()?;
        let part: u64 = format!("{part:0<6}").parse().ok()?;
        whole.checked_mul(1_000_000)?.checked_add(part)
    };
    parse()
        .filter(|cost| *cost > 0)
        .ok_or_else(|| "a cost is dollars above 0, such as 5 or 0.50".to_owned())
}

/// What [`dollars`] reads.
pub(super) fn show_dollars(cost: u64) -> String {
    let (whole, part) = (cost / 1_000_000, cost % 1_000_000);
    let part = format!("{part:06}");
    let part = part.trim_end_matches('0');
    format!("{whole}.{part:0<2}")
}

/// The name of a machine: no port, no scheme.
pub(super) fn host(value: &str) -> Parsed<String> {
    if value.bytes().all(|byte| byte.is_ascii_graphic()) && !value.contains('/') {
        Ok(value.to_owned())
    } else {
        Err("a host is a name or an address, without a scheme or a path".to_owned())
    }
}

/// Names of variables, or their beginnings and a `*`, between commas.
pub(super) fn patterns(value: &str) -> Parsed<Vec<String>> {
    value
        .split(',')
        .map(str::trim)
        .map(|pattern| {
            let name = pattern.strip_suffix('*').unwrap_or(pattern);
            let valid = !pattern.is_empty() && !name.contains(['*', '=', '\0', ' ']);
            valid.then(|| pattern.to_owned())
        })
        .collect::<Option<_>>()
        .ok_or_else(|| {
            "denied variables are names between commas, each of which may end in *, such as 'LD_*,BASH_ENV'".to_owned()
        })
}

/// A key that can stand in a header.
pub(super) fn is_key(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_http_url(value: &str) -> bool {
    value.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| {
                let port_is_fine = authority
                    .as_str()
                    .strip_prefix(authority.host())
                    .is_some_and(|rest| {
                        rest.is_empty() || authority.port_u16().is_some_and(|port| port > 0)
                    });
                !authority.host().is_empty() && port_is_fine
            })
            && uri.query().is_none()
    })
}

fn is_host_and_port(value: &str) -> bool {
    let Some((host, port)) = value.rsplit_once(':') else {
        return false;
    };
    let bare = match host.strip_prefix('[') {
        Some(address) => match address.strip_suffix(']') {
            Some(address) => {
                return address.parse::<std::net::Ipv6Addr>().is_ok() && remote_port(port).is_ok();
            }
            None => return false,
        },
        None => host,
    };
    !bare.is_empty()
        && bare
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        && remote_port(port).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        #[track_caller]
        fn check(value: &str, valid: bool) {
            assert_eq!(endpoint(value).is_ok(), valid, "{value:?}");
        }
        check("localhost:50051", true);
        check("10.0.0.1:1", true);
        check("[::1]:50051", true);
        check("unix:/run/stigmer.sock", true);
        check("http://localhost:50051", true);
        check("https://api.stigmer.ai", true);
        check("https://api.stigmer.ai:443/", true);
        check("", false);
        check("localhost", false);
        check(":50051", false);
        check("localhost:", false);
        check("localhost:0", false);
        check("localhost:65536", false);
        check("localhost:port", false);
        check("::1:50051", false);
        check("[localhost]:1", false);
        check("a b:1", false);
        check("unix:", false);
        check("unix:relative", false);
        check("ftp://host:1", false);
        check("http://", false);
        check("http://host:99999", false);
        check("http://user@host", false);
        check("https://host/path", false);
        check("https://host?query", false);
    }

    #[test]
    fn log_levels() {
        #[track_caller]
        fn check(value: &str, expected: Option<&str>) {
            assert_eq!(log_level(value).ok().as_deref(), expected, "{value:?}");
        }
        check("info", Some("info"));
        check("DEBUG", Some("debug"));
        check("warn, stigmer=Debug", Some("warn,stigmer=debug"));
        check("inof", None);
        check("warn,", None);
        check("=info", None);
        check("stigmer=loud", None);
    }

    #[test]
    fn durations() {
        #[track_caller]
        fn check(value: &str, seconds: Option<u64>) {
            assert_eq!(
                duration(value).ok().map(|d| d.as_secs()),
                seconds,
                "{value:?}"
            );
        }
        check("90s", Some(90));
        check("1h 30m", Some(5400));
        check("30", None);
        check("0s", None);
        check("-1s", None);
        check("soon", None);
    }

    #[test]
    fn bounds() {
        #[track_caller]
        fn check(value: &str, expected: Option<Option<u32>>) {
            assert_eq!(bound(value, count::<u32>).ok(), expected, "{value:?}");
        }
        check("1", Some(Some(1)));
        check("none", Some(None));
        check("0", None);
        check("-1", None);
        check("4294967296", None);
        check("many", None);
    }

    #[test]
    fn costs() {
        #[track_caller]
        fn check(value: &str, expected: Option<(u64, &str)>) {
            let cost = dollars(value).ok();
            assert_eq!(cost, expected.map(|(cost, _)| cost), "{value:?}");
            let shown = cost.map(show_dollars);
            assert_eq!(shown.as_deref(), expected.map(|(_, shown)| shown));
            assert!(shown.is_none_or(|shown| dollars(&shown).ok() == cost));
        }
        check("5", Some((5_000_000, "5.00")));
        check("$0.5", Some((500_000, "0.50")));
        check("0.000001", Some((1, "0.000001")));
        check("10.125", Some((10_125_000, "10.125")));
        check("0", None);
        check("0.0000001", None);
        check(".5", None);
        check("1.", None);
        check("-1", None);
        check("1e3", None);
        check("5 EUR", None);
        check("99999999999999999999", None);
    }

    #[test]
    fn base_urls_and_models() {
        assert_eq!(base_url("http://h:1/v1/").unwrap(), "http://h:1/v1");
        assert!(base_url("h:1").is_err());
        assert_eq!(model("hf.co/a/b:7b").unwrap(), "hf.co/a/b:7b");
        assert!(model("a b").is_err());
    }

    #[test]
    fn denied_variables() {
        assert_eq!(patterns("LD_*, BASH_ENV").unwrap(), ["LD_*", "BASH_ENV"]);
        assert_eq!(patterns("*").unwrap(), ["*"]);
        for wrong in ["A,,B", "A*B", "A=B", "A B"] {
            assert!(patterns(wrong).is_err(), "{wrong}");
        }
    }
}
