//! A sandbox as the tools see it: its workspace, and the daemon's calls on it.

use bytes::{Bytes, BytesMut};
use std::time::Duration;
use stigmer_sdk::wire::host::{self, read_file_response};
use stigmer_sdk::{Error, ErrorCode, Result};

use crate::daemon::{Daemon, call, from_status, incomplete};

/// Where the runner keeps what is its own in a workspace.
pub(crate) const HOUSE: &str = ".stigmer";

/// A sandbox behind a daemon.
#[derive(Clone, Debug)]
pub struct Sandbox {
    pub(crate) daemon: Daemon,
    pub(crate) id: String,
    /// Absolute: where commands start and relative paths begin.
    pub(crate) workspace: String,
    /// The longest timeout that the daemon accepts.
    pub(crate) max_timeout: Duration,
}

impl Sandbox {
    /// Asks the daemon for it.
    ///
    /// # Errors
    /// [`ErrorCode::NoSandbox`] if there is none, [`ErrorCode::Unavailable`] if
    /// the daemon does not answer.
    pub async fn open(daemon: Daemon, id: &str) -> Result<Self> {
        let request = host::GetSandboxRequest {
            sandbox_id: id.to_owned(),
        };
        let answer = daemon.sandboxes().get(call(request)).await;
        let sandbox = answer
            .map_err(from_status)?
            .into_inner()
            .sandbox
            .ok_or_else(|| incomplete("sandbox"))?;
        let info = daemon.daemon().info(call(host::InfoRequest {})).await;
        let info = info.map_err(from_status)?.into_inner();
        Ok(Self {
            daemon,
            id: sandbox.sandbox_id,
            workspace: sandbox.workspace,
            max_timeout: Duration::from_millis(info.max_timeout_ms),
        })
    }

    /// One that cannot be reached, for what is tested without a daemon.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        Self {
            daemon: Daemon::nowhere(),
            id: "filesystem:none".to_owned(),
            workspace: "/workspace".to_owned(),
            max_timeout: Duration::from_secs(3600),
        }
    }

    /// A file's bytes, if there are no more than `max_bytes`.
    ///
    /// # Errors
    /// [`ErrorCode::TooLarge`] if there are more, and those of `Files.ReadFile`.
    pub(crate) async fn read(&self, path: &str, max_bytes: u64) -> Result<Bytes> {
        let request = host::ReadFileRequest {
            max_bytes: Some(max_bytes),
            ..self.read_request(path)
        };
        self.read_parts(request).await
    }

    /// A file's first bytes.
    ///
    /// # Errors
    /// Those of `Files.ReadFile`.
    pub(crate) async fn read_head(&self, path: &str, bytes: u64) -> Result<Bytes> {
        let request = host::ReadFileRequest {
            length: Some(bytes),
            ..self.read_request(path)
        };
        self.read_parts(request).await
    }

    fn read_request(&self, path: &str) -> host::ReadFileRequest {
        host::ReadFileRequest {
            sandbox_id: self.id.clone(),
            path: path.to_owned(),
            ..host::ReadFileRequest::default()
        }
    }

    async fn read_parts(&self, request: host::ReadFileRequest) -> Result<Bytes> {
        let answer = self.daemon.files().read_file(call(request)).await;
        let mut parts = answer.map_err(from_status)?.into_inner();
        let mut bytes = BytesMut::new();
        while let Some(part) = parts.message().await.map_err(from_status)? {
            if let Some(read_file_response::Part::Data(data)) = part.part {
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes.freeze())
    }

    /// A small file as text, or `None` if there is none, or it is something else.
    pub(crate) async fn text(&self, path: &str, max_bytes: u64) -> Result<Option<String>> {
        match self.read(path, max_bytes).await {
            Ok(bytes) => Ok(String::from_utf8(bytes.into()).ok()),
            Err(error) if error.code() == ErrorCode::TooLarge => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a file, or creates it with its parents.
    ///
    /// # Errors
    /// Those of `Files.WriteFile`.
    pub(crate) async fn write(
        &self,
        path: &str,
        data: Bytes,
        permissions: Option<u32>,
    ) -> Result<()> {
        let request = host::WriteFileRequest {
            sandbox_id: self.id.clone(),
            path: path.to_owned(),
            data,
            permissions,
            ..host::WriteFileRequest::default()
        };
        let answer = self.daemon.files().write_file(call(request)).await;
        answer.map_err(from_status)?;
        Ok(())
    }

    /// Removes a path, if it is there.
    ///
    /// # Errors
    /// Those of `Files.Remove`.
    pub(crate) async fn remove(&self, path: &str, recursive: bool, missing_ok: bool) -> Result<()> {
        let request = host::RemoveRequest {
            sandbox_id: self.id.clone(),
            path: path.to_owned(),
            recursive,
            missing_ok,
        };
        let answer = self.daemon.files().remove(call(request)).await;
        answer.map_err(from_status)?;
        Ok(())
    }

    /// Makes the place for what is the runner's own, which no repository is to
    /// take for its own.
    ///
    /// # Errors
    /// Those of `Files.WriteFile`.
    pub(crate) async fn house(&self) -> Result<()> {
        let path = format!("{HOUSE}/.gitignore");
        match self.read_head(&path, 16).await {
            Ok(text) if text.trim_ascii() == b"*" => Ok(()),
            Ok(_) => self.write(&path, Bytes::from_static(b"*\n"), None).await,
            Err(error) if error.code() == ErrorCode::NotFound => {
                self.write(&path, Bytes::from_static(b"*\n"), None).await
            }
            Err(error) => Err(error),
        }
    }

    /// A path with nothing to resolve in it but links: absolute, without `.`,
    /// `..` and doubled `/`.
    pub(crate) fn absolute(&self, path: &str) -> String {
        let from = if path.starts_with('/') {
            ""
        } else {
            &self.workspace
        };
        let mut names: Vec<&str> = Vec::new();
        for name in from.split('/').chain(path.split('/')) {
            match name {
                "" | "." => {}
                ".." => {
                    names.pop();
                }
                name => names.push(name),
            }
        }
        format!("/{}", names.join("/"))
    }

    /// A path as people read it: below the workspace, if it is there.
    pub(crate) fn shown(&self, path: &str) -> String {
        let absolute = self.absolute(path);
        let workspace = self.absolute("");
        match absolute.strip_prefix(&workspace) {
            Some("") => ".".to_owned(),
            Some(below) if workspace == "/" => below.to_owned(),
            Some(below) if below.starts_with('/') => below[1..].to_owned(),
            _ => absolute,
        }
    }
}

/// An error as the model and people read it: what it says, and of which path.
pub(crate) fn told(error: &Error) -> String {
    let mut text = error.message().to_owned();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    match error.path() {
        Some(path) => format!("{path}: {text}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn paths_are_the_same_however_they_are_spelled() {
        let sandbox = Sandbox::nowhere();
        #[track_caller]
        fn check(sandbox: &Sandbox, path: &str, absolute: &str, shown: &str) {
            assert_eq!(sandbox.absolute(path), absolute);
            assert_eq!(sandbox.shown(path), shown);
        }
        check(&sandbox, "a/b", "/workspace/a/b", "a/b");
        check(&sandbox, "./a//b/", "/workspace/a/b", "a/b");
        check(&sandbox, "x/../a", "/workspace/a", "a");
        check(&sandbox, "/workspace/a", "/workspace/a", "a");
        check(&sandbox, "/workspace", "/workspace", ".");
        check(&sandbox, "/workspaces/a", "/workspaces/a", "/workspaces/a");
        check(&sandbox, "../../../etc", "/etc", "/etc");
    }
}
