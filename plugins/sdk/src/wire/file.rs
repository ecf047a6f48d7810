//! Files and directories.

use super::{at, invalid, named, required, sandbox};
use crate::{
    ByteRange, DirEntry, Error, FileKind, Metadata, Permissions, Result, SandboxPath, Stat,
    Version, WriteMode, WriteOptions,
};

impl From<FileKind> for sandbox::FileKind {
    fn from(kind: FileKind) -> Self {
        match kind {
            FileKind::File => Self::File,
            FileKind::Directory => Self::Directory,
            FileKind::Symlink => Self::Symlink,
            FileKind::Other => Self::Other,
        }
    }
}

impl TryFrom<sandbox::FileKind> for FileKind {
    type Error = Error;

    fn try_from(kind: sandbox::FileKind) -> Result<Self> {
        Ok(match kind {
            sandbox::FileKind::Unspecified => return Err(invalid("metadata.kind", "is missing")),
            sandbox::FileKind::File => Self::File,
            sandbox::FileKind::Directory => Self::Directory,
            sandbox::FileKind::Symlink => Self::Symlink,
            sandbox::FileKind::Other => Self::Other,
        })
    }
}

impl From<Metadata> for sandbox::Metadata {
    fn from(metadata: Metadata) -> Self {
        Self {
            kind: sandbox::FileKind::from(metadata.kind).into(),
            size: metadata.size,
            permissions: metadata.permissions.map(Permissions::bits),
            modified_ms: metadata.modified_ms,
            version: metadata.version.map(|version| version.as_str().to_owned()),
            target: metadata.target,
        }
    }
}

impl TryFrom<sandbox::Metadata> for Metadata {
    type Error = Error;

    fn try_from(wire: sandbox::Metadata) -> Result<Self> {
        Ok(Self {
            kind: named::<sandbox::FileKind>("metadata.kind", wire.kind)?.try_into()?,
            size: wire.size,
            permissions: wire
                .permissions
                .map(|mode| Permissions::new(mode).map_err(at("metadata.permissions")))
                .transpose()?,
            modified_ms: wire.modified_ms,
            version: wire.version.map(Version::new),
            target: wire.target,
        })
    }
}

impl From<Stat> for sandbox::StatResponse {
    fn from(stat: Stat) -> Self {
        Self {
            path: stat.path.as_str().to_owned(),
            metadata: Some(stat.metadata.into()),
        }
    }
}

impl TryFrom<sandbox::StatResponse> for Stat {
    type Error = Error;

    fn try_from(wire: sandbox::StatResponse) -> Result<Self> {
        Ok(Self {
            path: SandboxPath::new(wire.path).map_err(at("path"))?,
            metadata: required("metadata", wire.metadata)?.try_into()?,
        })
    }
}

impl From<DirEntry> for sandbox::DirEntry {
    fn from(entry: DirEntry) -> Self {
        Self {
            name: entry.name,
            metadata: Some(entry.metadata.into()),
        }
    }
}

impl TryFrom<sandbox::DirEntry> for DirEntry {
    type Error = Error;

    /// A name with a `/` would make whoever joins it reach another directory.
    fn try_from(wire: sandbox::DirEntry) -> Result<Self> {
        if matches!(wire.name.as_str(), "" | "." | "..") || wire.name.contains(['/', '\0']) {
            return Err(invalid(
                "name",
                format_args!(
                    "'{}' cannot be the name of a directory entry",
                    wire.name.escape_debug()
                ),
            ));
        }
        Ok(Self {
            name: wire.name,
            metadata: required("metadata", wire.metadata)?.try_into()?,
        })
    }
}

impl From<&sandbox::ReadRequest> for ByteRange {
    fn from(wire: &sandbox::ReadRequest) -> Self {
        Self {
            offset: wire.offset,
            length: wire.length,
        }
    }
}

impl WriteOptions {
    /// What the fields of a request say. Which fields those are is the same in
    /// every message that writes a file.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`](crate::ErrorCode::InvalidArgument) for a
    /// number that is no mode, and for a version that only `REPLACE` can honour.
    pub fn from_wire(
        mode: i32,
        if_version: Option<String>,
        permissions: Option<u32>,
    ) -> Result<Self> {
        let mode = match (named::<sandbox::WriteMode>("mode", mode)?, if_version) {
            (sandbox::WriteMode::Unspecified | sandbox::WriteMode::Replace, None) => {
                WriteMode::Replace
            }
            (sandbox::WriteMode::Unspecified | sandbox::WriteMode::Replace, Some(version)) => {
                WriteMode::ReplaceVersion(Version::new(version))
            }
            (sandbox::WriteMode::CreateNew, None) => WriteMode::CreateNew,
            (sandbox::WriteMode::Append, None) => WriteMode::Append,
            (sandbox::WriteMode::CreateNew | sandbox::WriteMode::Append, Some(_)) => {
                return Err(invalid("if_version", "goes with the mode REPLACE only"));
            }
        };
        let permissions = permissions
            .map(|mode| Permissions::new(mode).map_err(at("permissions")))
            .transpose()?;
        Ok(Self { mode, permissions })
    }

    /// The fields that say this: mode, version and permissions.
    #[must_use]
    pub fn into_wire(self) -> (i32, Option<String>, Option<u32>) {
        let (mode, version) = match self.mode {
            WriteMode::Replace => (sandbox::WriteMode::Replace, None),
            WriteMode::ReplaceVersion(version) => (
                sandbox::WriteMode::Replace,
                Some(version.as_str().to_owned()),
            ),
            WriteMode::CreateNew => (sandbox::WriteMode::CreateNew, None),
            WriteMode::Append => (sandbox::WriteMode::Append, None),
        };
        (
            mode.into(),
            version,
            self.permissions.map(Permissions::bits),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    fn metadata(kind: FileKind) -> Metadata {
        Metadata {
            kind,
            size: 7,
            permissions: Some(Permissions::new(0o640).unwrap()),
            modified_ms: Some(1),
            version: Some(Version::new("v")),
            target: Some("t".to_owned()),
        }
    }

    #[test]
    fn metadata_survives_the_trip() {
        for kind in [
            FileKind::File,
            FileKind::Directory,
            FileKind::Symlink,
            FileKind::Other,
        ] {
            let full = metadata(kind);
            let bare = Metadata {
                permissions: None,
                modified_ms: None,
                version: None,
                target: None,
                ..full.clone()
            };
            for metadata in [full, bare] {
                let wire = sandbox::Metadata::from(metadata.clone());
                assert_eq!(Metadata::try_from(wire).unwrap(), metadata);
            }
        }
    }

    #[test]
    fn answers_survive_the_trip() {
        let stat = Stat {
            path: "/a".try_into().unwrap(),
            metadata: metadata(FileKind::File),
        };
        assert_eq!(
            Stat::try_from(sandbox::StatResponse::from(stat.clone())).unwrap(),
            stat
        );
        let entry = DirEntry {
            name: "a\nb".to_owned(),
            metadata: metadata(FileKind::Other),
        };
        assert_eq!(
            DirEntry::try_from(sandbox::DirEntry::from(entry.clone())).unwrap(),
            entry
        );
    }

    #[test]
    fn write_options_survive_the_trip() {
        let modes = [
            WriteMode::Replace,
            WriteMode::ReplaceVersion(Version::new("v")),
            WriteMode::CreateNew,
            WriteMode::Append,
        ];
        for mode in modes {
            for permissions in [None, Some(Permissions::new(0o755).unwrap())] {
                let options = WriteOptions {
                    mode: mode.clone(),
                    permissions,
                };
                let (mode, version, permissions) = options.clone().into_wire();
                assert_eq!(
                    WriteOptions::from_wire(mode, version, permissions).unwrap(),
                    options
                );
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_field() {
        #[track_caller]
        fn check<T: std::fmt::Debug>(result: Result<T>, field: &str) {
            let error = result.unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
            assert!(error.message().contains(field), "{error}");
        }
        check(WriteOptions::from_wire(99, None, None), "mode");
        check(
            WriteOptions::from_wire(2, Some("v".to_owned()), None),
            "if_version",
        );
        check(
            WriteOptions::from_wire(1, None, Some(0o4755)),
            "permissions",
        );
        check(
            Metadata::try_from(sandbox::Metadata::default()),
            "metadata.kind",
        );
        let mut wire = sandbox::Metadata::from(metadata(FileKind::File));
        wire.permissions = Some(0o1777);
        check(Metadata::try_from(wire), "metadata.permissions");
        for name in ["", ".", "..", "a/b", "a\0"] {
            let entry = DirEntry {
                name: name.to_owned(),
                metadata: metadata(FileKind::File),
            };
            check(DirEntry::try_from(sandbox::DirEntry::from(entry)), "name");
        }
        check(
            DirEntry::try_from(sandbox::DirEntry {
                name: "a".to_owned(),
                metadata: None,
            }),
            "metadata",
        );
    }
}
