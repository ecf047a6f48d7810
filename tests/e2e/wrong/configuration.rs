//! What is wrong with the environment, the config file and the flags of a daemon.

use super::{Wrong, wrong};

const fn with(
    env: &'static [(&'static str, &'static str)],
    args: &'static str,
    code: i32,
    message: &'static str,
) -> Wrong {
    Wrong {
        args,
        env,
        code,
        message,
    }
}

pub(super) const CONFIGURATION: &[Wrong] = &[
    with(
        &[("MODE", "prod")],
        "exec -- true",
        125,
        "MODE is 'prod': a mode is local or cloud",
    ),
    with(
        &[("MODE", "LOCAL")],
        "config show",
        2,
        "MODE is 'LOCAL': a mode is local or cloud (did you mean 'local'?)",
    ),
    with(
        &[("SANDBOX_TYPE", "docker")],
        "config show",
        2,
        "SANDBOX_TYPE is 'docker': there is no such backend: this build has filesystem",
    ),
    with(
        &[("SANDBOX_ROOT_DIR", "")],
        "config show",
        2,
        "SANDBOX_ROOT_DIR is empty: name a directory, or unset it for ./workspace",
    ),
    with(
        &[("STIGMER_PORT", "99999")],
        "config show",
        2,
        "STIGMER_PORT is '99999': a port is a number from 0 to 65535",
    ),
    with(
        &[("STIGMER_PORT", "http")],
        "config show",
        2,
        "STIGMER_PORT is 'http': a port is a number from 0 to 65535",
    ),
    with(
        &[("STIGMER_BACKEND_ENDPOINT", "localhost")],
        "config show",
        2,
        "STIGMER_BACKEND_ENDPOINT is 'localhost': an endpoint is host:port, unix:/path",
    ),
    with(
        &[("STIGMER_LOG_LEVEL", "loud")],
        "config show",
        2,
        "STIGMER_LOG_LEVEL is 'loud': a level is one of off, error, warn",
    ),
    with(
        &[("STIGMER_LOG_FORMAT", "xml")],
        "config show",
        2,
        "STIGMER_LOG_FORMAT is 'xml': a log format is 'text' or 'json'",
    ),
    with(
        &[("STIGMER_METRICS", "9464")],
        "config show",
        2,
        "STIGMER_METRICS is '9464': metrics are 'off' or an address and a port",
    ),
    with(
        &[("STIGMER_DEFAULT_TIMEOUT", "30")],
        "config show",
        2,
        "STIGMER_DEFAULT_TIMEOUT is '30': a duration is a number above 0 with a unit",
    ),
    with(
        &[
            ("STIGMER_DEFAULT_TIMEOUT", "2h"),
            ("STIGMER_MAX_TIMEOUT", "1h"),
        ],
        "config show",
        2,
        "STIGMER_DEFAULT_TIMEOUT is 2h, which is more than STIGMER_MAX_TIMEOUT, 1h",
    ),
    with(
        &[("STIGMER_DENY_ENV", "A,,B")],
        "config show",
        2,
        "STIGMER_DENY_ENV is 'A,,B': denied variables are names between commas",
    ),
    with(
        &[("STIGMER_API_KEY", "my secret")],
        "config show",
        2,
        "STIGMER_API_KEY is '***': a key has printable ASCII characters only, and no space",
    ),
    with(
        &[("STIGMER_PROT", "1")],
        "config show",
        2,
        "STIGMER_PROT is not a variable of Stigmer's (did you mean 'STIGMER_PORT'?)",
    ),
    with(
        &[("STIGMER_SERVER_BIN", "/x")],
        "config show",
        2,
        "STIGMER_SERVER_BIN is not used any more",
    ),
    with(
        &[("HOME", "-"), ("STIGMER_DATA_DIR", "-")],
        "config show",
        2,
        "HOME is not set, so there is no default data directory",
    ),
    with(
        &[("STIGMER_DATA_DIR", "plain")],
        "config show",
        2,
        "plain', which is not a directory",
    ),
    with(
        &[("SANDBOX_ROOT_DIR", "plain")],
        "config show",
        2,
        "is not a directory",
    ),
    with(
        &[("DAYTONA_API_URL", "app.daytona.io")],
        "config show",
        2,
        "DAYTONA_API_URL is 'app.daytona.io': an address of an API begins with http:// or https://",
    ),
    with(
        &[("MODE", "cloud"), ("SANDBOX_TYPE", "filesystem")],
        "config show",
        2,
        "SANDBOX_TYPE is 'filesystem': this backend belongs to MODE=local, and the mode is cloud",
    ),
    with(
        &[("MODE", "cloud")],
        "config show",
        2,
        "STIGMER_API_KEY is not set, and cloud mode needs it",
    ),
    with(
        &[("MODE", "cloud"), ("REDIS_PORT", "6379x")],
        "config show",
        2,
        "REDIS_PORT is '6379x': a port is a number from 1 to 65535",
    ),
    with(
        &[("STIGMER_DATA_DIR", "broken")],
        "config show",
        2,
        "config.toml:2 is not TOML",
    ),
    with(
        &[("STIGMER_DATA_DIR", "unknown")],
        "config show",
        2,
        "config.toml:1 has the unknown key 'prot' (did you mean 'port'?)",
    ),
    with(
        &[("STIGMER_DATA_DIR", "typed")],
        "config show",
        2,
        "config.toml:1: metrics is boolean",
    ),
    with(
        &[("STIGMER_DATA_DIR", "exposed")],
        "config show",
        2,
        "holds api_key and other users can read it (mode 644): run chmod 600",
    ),
    with(
        &[("STIGMER_DATA_DIR", "directory")],
        "config show",
        2,
        "config.toml cannot be read",
    ),
    wrong("--log-level loud config show", 2, "--log-level is 'loud'"),
    wrong(
        "--endpoint nowhere config show",
        2,
        "--endpoint is 'nowhere': an endpoint is host:port",
    ),
];

pub(super) const SERVER: &[Wrong] = &[
    wrong(
        "server",
        2,
        "MODE is not set, which means cloud for this command: set MODE=local or --mode local to serve this machine",
    ),
    wrong(
        "server --mode cloud",
        2,
        "STIGMER_BACKEND_ENDPOINT is not set, and cloud mode needs it",
    ),
    wrong(
        "server --mode local --port 70000",
        2,
        "--port is '70000': a port is a number from 0 to 65535",
    ),
    wrong(
        "server --mode local --port http",
        2,
        "--port is 'http': a port is a number from 0 to 65535",
    ),
    wrong(
        "server --mode local --port 0 --metrics nonsense",
        2,
        "--metrics is 'nonsense': metrics are 'off' or an address and a port",
    ),
    wrong(
        "server --mode local --port 0 --root plain",
        2,
        "is not a directory",
    ),
    wrong(
        "server --mode local --port 0 --data-dir plain",
        2,
        "is not a directory",
    ),
    wrong(
        "server --mode local extra",
        2,
        "unexpected argument 'extra' found",
    ),
];
