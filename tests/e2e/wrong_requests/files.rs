//! Requests about files: by the daemon's own service, and by the contract's.

use bytes::Bytes;
use futures_util::stream;
use stigmer::grpc::generated::sandbox::backend_client::BackendClient;
use stigmer::grpc::status::from_status;
use stigmer_sdk::ErrorCode;
use stigmer_sdk::wire::host::{self, upload_request, upload_result};
use stigmer_sdk::wire::sandbox as contract;

use super::{Answers, first};
use crate::client::Client;

pub(super) async fn paths(client: &Client, sandbox: &str, outside: &str, answers: &mut Answers) {
    use ErrorCode::InvalidPath;
    let long = "x/".repeat(2100);
    let through_proc = format!("/proc/self/root{outside}");
    for (path, message) in [
        ("", "a path may not be empty"),
        ("a\0b", "a path may not contain a NUL byte"),
        (long.as_str(), "a path may have at most 4095 bytes"),
        ("..", "leads out of the sandbox"),
        ("a/../../b", ""),
        (outside, "leads out of the sandbox"),
        (through_proc.as_str(), "leads out of the sandbox"),
    ] {
        let (sandbox_id, path) = (sandbox.to_owned(), path.to_owned());
        let what = |operation: &str| format!("{operation} {path:.20?}");
        // Of a path whose beginning is missing, that may be said instead.
        let code = if message.is_empty() {
            ErrorCode::NotFound
        } else {
            InvalidPath
        };
        let stat = host::StatRequest {
            sandbox_id: sandbox_id.clone(),
            path: path.clone(),
            follow: true,
        };
        answers.refuse(
            &what("stat"),
            client.files().stat(stat).await,
            code,
            message,
        );
        let read = host::ReadTextRequest {
            sandbox_id: sandbox_id.clone(),
            path: path.clone(),
            ..host::ReadTextRequest::default()
        };
        answers.refuse(
            &what("read"),
            client.files().read_text(read).await,
            code,
            message,
        );
        let list = host::ListDirRequest {
            sandbox_id: sandbox_id.clone(),
            path: path.clone(),
        };
        answers.refuse(
            &what("list"),
            first(client.files().list_dir(list).await).await,
            code,
            message,
        );
        if message.is_empty() {
            continue;
        }
        let write = host::WriteFileRequest {
            sandbox_id: sandbox_id.clone(),
            path: path.clone(),
            ..host::WriteFileRequest::default()
        };
        answers.refuse(
            &what("write"),
            client.files().write_file(write).await,
            code,
            message,
        );
        let rename = host::RenameRequest {
            sandbox_id: sandbox_id.clone(),
            from_path: "file".to_owned(),
            to_path: path.clone(),
        };
        answers.refuse(
            &what("rename"),
            client.files().rename(rename).await,
            code,
            message,
        );
        let make = host::MakeDirRequest {
            sandbox_id: sandbox_id.clone(),
            path: path.clone(),
        };
        answers.refuse(
            &what("make"),
            client.files().make_dir(make).await,
            code,
            message,
        );
        // Of what contains the workspace, that is said instead. Never
        // recursively: whoever got this wrong would lose it.
        let (code, message) = if path == ".." {
            (ErrorCode::PermissionDenied, "the workspace itself stays")
        } else {
            (code, message)
        };
        let remove = host::RemoveRequest {
            sandbox_id,
            path: path.clone(),
            recursive: false,
            missing_ok: true,
        };
        answers.refuse(
            &what("remove"),
            client.files().remove(remove).await,
            code,
            message,
        );
    }
}

pub(super) async fn contents(client: &Client, sandbox: &str, answers: &mut Answers) {
    use ErrorCode::{
        AlreadyExists, Conflict, InvalidArgument, MultipleMatches, NoMatch, NotText, OutOfRange,
        TooLarge,
    };
    let edit = |old: &str| host::EditFileRequest {
        sandbox_id: sandbox.to_owned(),
        path: "file".to_owned(),
        edits: vec![host::Edit {
            old_text: old.to_owned(),
            new_text: "x".to_owned(),
            replace_all: false,
        }],
        ..host::EditFileRequest::default()
    };
    let table = [
        ("an empty text", edit(""), InvalidArgument),
        ("a text that is not there", edit("three"), NoMatch),
        ("a text that is there twice", edit("two"), MultipleMatches),
        (
            "another version",
            host::EditFileRequest {
                if_version: Some("nonsense".to_owned()),
                ..edit("one")
            },
            Conflict,
        ),
    ];
    for (what, request, code) in table {
        answers.refuse(what, client.files().edit_file(request).await, code, "");
    }
    let write = |path: &str, data: &'static [u8]| host::WriteFileRequest {
        sandbox_id: sandbox.to_owned(),
        path: path.to_owned(),
        data: Bytes::from_static(data),
        ..host::WriteFileRequest::default()
    };
    let fresh = host::WriteFileRequest {
        mode: contract::WriteMode::CreateNew.into(),
        ..write("file", b"")
    };
    answers.refuse(
        "a file that is there",
        client.files().write_file(fresh).await,
        AlreadyExists,
        "'file': already exists",
    );
    let bits = host::WriteFileRequest {
        permissions: Some(0o7777),
        ..write("new", b"")
    };
    answers.refuse(
        "more than permissions",
        client.files().write_file(bits).await,
        InvalidArgument,
        "permissions",
    );
    client
        .files()
        .write_file(write("binary", b"\0\xff"))
        .await
        .expect("a file");
    let read = |path: &str| host::ReadTextRequest {
        sandbox_id: sandbox.to_owned(),
        path: path.to_owned(),
        ..host::ReadTextRequest::default()
    };
    let text = host::ReadTextRequest {
        policy: host::TextPolicy::Require.into(),
        ..read("binary")
    };
    answers.refuse(
        "text of bytes",
        client.files().read_text(text).await,
        NotText,
        "'binary'",
    );
    let small = host::ReadTextRequest {
        max_binary_bytes: Some(1),
        ..read("binary")
    };
    answers.refuse(
        "more bytes than wanted",
        client.files().read_text(small).await,
        TooLarge,
        "'binary'",
    );
    let far = host::ReadTextRequest {
        offset: 1000,
        ..read("file")
    };
    answers.refuse(
        "past the last line",
        client.files().read_text(far).await,
        OutOfRange,
        "'file'",
    );
    let capped = host::ReadFileRequest {
        sandbox_id: sandbox.to_owned(),
        path: "file".to_owned(),
        max_bytes: Some(1),
        ..host::ReadFileRequest::default()
    };
    answers.refuse(
        "a file that is too large",
        first(client.files().read_file(capped).await).await,
        TooLarge,
        "'file'",
    );

    // Upload: protocol errors fail the call, files that cannot be fail alone.
    let part = |part| host::UploadRequest { part: Some(part) };
    let start = || {
        part(upload_request::Part::Start(host::UploadStart {
            sandbox_id: sandbox.to_owned(),
        }))
    };
    let file = |path: &str| {
        part(upload_request::Part::File(host::UploadFile {
            path: path.to_owned(),
            ..host::UploadFile::default()
        }))
    };
    let data = || part(upload_request::Part::Data(Bytes::from_static(b"new")));
    let end = || part(upload_request::Part::End(upload_request::End {}));
    answers.refuse(
        "an upload without a start",
        client.files().upload(stream::iter([file("a")])).await,
        InvalidArgument,
        "start",
    );
    answers.refuse(
        "data without a file",
        client.files().upload(stream::iter([start(), data()])).await,
        InvalidArgument,
        "file",
    );
    let answer = client
        .files()
        .upload(stream::iter([
            start(),
            file("../out"),
            data(),
            end(),
            file("good"),
            data(),
            end(),
        ]))
        .await;
    let results = answer.expect("an answer").into_inner().results;
    let outcomes: Vec<_> = results
        .iter()
        .map(|result| matches!(result.outcome, Some(upload_result::Outcome::Metadata(_))))
        .collect();
    assert_eq!(outcomes, [false, true], "{results:?}");

    let huge = host::WriteFileRequest {
        data: Bytes::from(vec![0; 40 << 20]),
        ..write("huge", b"")
    };
    let answer = client.files().write_file(huge).await;
    answers.refuse(
        "a message that is too large",
        answer.map(|_| ()),
        ErrorCode::OutOfRange,
        "",
    );
}

pub(super) async fn searches(client: &Client, sandbox: &str, answers: &mut Answers) {
    use ErrorCode::{InvalidArgument, InvalidPattern};
    let broad = "{a,b}".repeat(20);
    for (pattern, message) in [
        ("", "a pattern may not be empty"),
        ("[", "a '[' is not closed"),
        ("a/../b", "a pattern may not contain '..'"),
        ("{a", "not closed"),
        (broad.as_str(), "too broad"),
    ] {
        let request = host::GlobRequest {
            sandbox_id: sandbox.to_owned(),
            pattern: pattern.to_owned(),
            ..host::GlobRequest::default()
        };
        answers.refuse(
            &format!("glob {pattern:.20?}"),
            first(client.files().glob(request).await).await,
            InvalidPattern,
            message,
        );
    }
    let grep = |patterns: &[&str]| host::GrepRequest {
        sandbox_id: sandbox.to_owned(),
        patterns: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
        regex: true,
        ..host::GrepRequest::default()
    };
    for (patterns, code) in [
        (&[][..], InvalidArgument),
        (&["("], InvalidPattern),
        (&["(?=x)"], InvalidPattern),
        (&["(a)\\1"], InvalidPattern),
    ] {
        let answer = first(client.files().grep(grep(patterns)).await).await;
        let found = answer
            .as_ref()
            .err()
            .map(|status| from_status(status.clone()).code());
        // No pattern at all is a bad pattern as much as a bad argument.
        let code = if patterns.is_empty() && found == Some(InvalidPattern) {
            InvalidPattern
        } else {
            code
        };
        answers.refuse(&format!("grep {patterns:?}"), answer, code, "");
    }
    let nothing = host::GrepRequest {
        max_results: Some(0),
        ..grep(&["x"])
    };
    answers.refuse(
        "no results",
        first(client.files().grep(nothing).await).await,
        InvalidArgument,
        "",
    );
}

/// The contract's own service, as other hosts speak it.
pub(super) async fn backend(client: &Client, sandbox: &str, answers: &mut Answers) {
    use ErrorCode::{InvalidArgument, NoSandbox};
    let mut backend = BackendClient::new(client.channel.clone());
    let id = sandbox.to_owned();
    let attach = contract::AttachRequest {
        sandbox_id: "nope".to_owned(),
    };
    answers.refuse(
        "attach to nothing",
        backend.attach(attach).await,
        NoSandbox,
        "nope",
    );
    let write = |part| contract::WriteRequest { part: Some(part) };
    let open = contract::WriteOpen {
        sandbox_id: id.clone(),
        path: "half".to_owned(),
        ..contract::WriteOpen::default()
    };
    let data = || {
        write(contract::write_request::Part::Data(Bytes::from_static(
            b"half",
        )))
    };
    let half = [write(contract::write_request::Part::Open(open)), data()];
    answers.refuse(
        "a write without its end",
        backend.write(stream::iter(half)).await,
        ErrorCode::Cancelled,
        "",
    );
    answers.refuse(
        "a write without its open",
        backend.write(stream::iter([data()])).await,
        InvalidArgument,
        "open",
    );
    let stat = contract::StatRequest {
        sandbox_id: id,
        path: "half".to_owned(),
        follow: true,
    };
    answers.refuse(
        "what was given up",
        backend.stat(stat).await,
        ErrorCode::NotFound,
        "'half': no such file or directory",
    );
}
