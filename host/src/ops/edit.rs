//! Exact edits: all or none, and only of the file that was read.
//!
//! A text that is not found as it is given is tried with CRLF line ends and
//! then with LF, together with its replacement, so that a file keeps the line
//! ends it has.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use stigmer_sdk::{
    ByteRange, Error, ErrorCode, Metadata, Result, Sandbox, SandboxPath, Version, WriteMode,
    WriteOptions,
};

/// The largest file that is edited, before and after: it is held in memory
/// twice. Source files are a thousand times smaller.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The size of the pieces a file is written in.
const PIECE: usize = 1024 * 1024;

/// One replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What is there; not empty.
    pub old_text: String,
    /// What is there afterwards.
    pub new_text: String,
    /// Otherwise more than one place is an error.
    pub replace_all: bool,
}

/// Replacements, one after the other, each on what the one before left.
#[derive(Clone, Debug)]
pub struct EditRequest {
    /// In order.
    pub edits: Vec<Edit>,
    /// Do not try the texts with other line ends.
    pub exact_newlines: bool,
    /// What the file must still be.
    pub if_version: Option<Version>,
}

/// Places changed for each edit, and the file afterwards.
///
/// # Errors
/// `InvalidArgument` for an empty text; `NoMatch`, and `MultipleMatches` with
/// their number; `NotText`; `TooLarge` with [`MAX_BYTES`]; `Conflict` if the
/// file is or becomes another version; those of [`Sandbox::read`] and
/// [`Sandbox::write`].
pub async fn edit(
    sandbox: &dyn Sandbox,
    path: &SandboxPath,
    request: EditRequest,
) -> Result<(Vec<u64>, Metadata)> {
    let count = request.edits.len();
    let at = |index: usize, error: Error| place(error, index, count).with_path(path.as_str());
    for (index, edit) in request.edits.iter().enumerate() {
        if edit.old_text.is_empty() {
            let error = Error::new(
                ErrorCode::InvalidArgument,
                "the text to replace may not be empty",
            );
            return Err(at(index, error));
        }
    }
    let (metadata, before) = read(sandbox, path, request.if_version.as_ref()).await?;
    let mut text = before.clone();
    let mut counts = Vec::with_capacity(count);
    for (index, edit) in request.edits.iter().enumerate() {
        let (changed, places) =
            apply(&text, edit, request.exact_newlines).map_err(|error| at(index, error))?;
        counts.push(places);
        text = changed;
    }
    if text == before {
        return Ok((counts, metadata));
    }
    let version = metadata.version.ok_or_else(|| {
        Error::new(
            ErrorCode::Internal,
            "the backend gave no version of the file, so it cannot be edited safely",
        )
        .with_path(path.as_str())
    })?;
    let options = WriteOptions {
        mode: WriteMode::ReplaceVersion(version),
        permissions: None,
    };
    let text = Bytes::from(text);
    let pieces: Vec<_> = text
        .chunks(PIECE)
        .map(|piece| Ok(text.slice_ref(piece)))
        .collect();
    let written = sandbox
        .write(path, options, futures_util::stream::iter(pieces).boxed())
        .await?;
    Ok((counts, written))
}

/// The file as text, if it is one, and the version that was named.
async fn read(
    sandbox: &dyn Sandbox,
    path: &SandboxPath,
    expected: Option<&Version>,
) -> Result<(Metadata, String)> {
    let (metadata, mut data) = sandbox.read(path, ByteRange::default()).await?;
    if expected.is_some() && expected != metadata.version.as_ref() {
        return Err(Error::new(
            ErrorCode::Conflict,
            "the file is no longer the version that was named",
        )
        .with_path(path.as_str()));
    }
    let mut content = Vec::new();
    loop {
        if metadata.size.max(content.len() as u64) > MAX_BYTES {
            return Err(too_large().with_path(path.as_str()));
        }
        match data.try_next().await? {
            Some(bytes) => content.extend_from_slice(&bytes),
            None => break,
        }
    }
    let text = String::from_utf8(content).map_err(|_| {
        Error::new(ErrorCode::NotText, "the file is not UTF-8 text").with_path(path.as_str())
    })?;
    Ok((metadata, text))
}

/// The text after an edit, and the places that it changed.
fn apply(text: &str, edit: &Edit, exact_newlines: bool) -> Result<(String, u64)> {
    let as_given = (edit.old_text.clone(), edit.new_text.clone());
    let mut variants = vec![as_given];
    if !exact_newlines && edit.old_text.contains('\n') {
        let lf = (with_lf(&edit.old_text), with_lf(&edit.new_text));
        variants.push((with_crlf(&lf.0), with_crlf(&lf.1)));
        variants.push(lf);
    }
    for (old, new) in variants {
        let places = text.matches(&old).count();
        if places == 0 {
            continue;
        }
        if places > 1 && !edit.replace_all {
            return Err(Error::new(
                ErrorCode::MultipleMatches,
                format!("the text to replace is there {places} times"),
            )
            .with_count(places as u64));
        }
        let after = (text.len() - places * old.len()) as u64 + places as u64 * new.len() as u64;
        if after > MAX_BYTES {
            return Err(too_large());
        }
        return Ok((text.replace(&old, &new), places as u64));
    }
    Err(Error::new(
        ErrorCode::NoMatch,
        "the text to replace is not in the file",
    ))
}

fn with_lf(text: &str) -> String {
    text.replace("\r\n", "\n")
}

fn with_crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

/// Says which edit it was, if there are more.
fn place(error: Error, index: usize, count: usize) -> Error {
    if count < 2 {
        return error;
    }
    let message = format!("edit {} of {count}: {}", index + 1, error.message());
    let placed = Error::new(error.code(), message);
    match error.count() {
        Some(count) => placed.with_count(count),
        None => placed,
    }
}

fn too_large() -> Error {
    Error::new(
        ErrorCode::TooLarge,
        format!("files of more than {MAX_BYTES} bytes are not edited"),
    )
    .with_count(MAX_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fake::Fake;

    const ONE: bool = false;
    const EVERY: bool = true;

    fn request(edits: &[(&str, &str, bool)]) -> EditRequest {
        let edits = edits.iter().map(|(old, new, replace_all)| Edit {
            old_text: (*old).to_owned(),
            new_text: (*new).to_owned(),
            replace_all: *replace_all,
        });
        EditRequest {
            edits: edits.collect(),
            exact_newlines: false,
            if_version: None,
        }
    }

    fn run(fake: &Fake, request: EditRequest) -> Result<(Vec<u64>, Metadata)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(edit(fake, &SandboxPath::new("f").unwrap(), request))
    }

    type Expected<'a> = Result<(&'a str, &'a [u64]), (ErrorCode, Option<u64>)>;

    /// The file afterwards and the counts, or the error with its count.
    #[track_caller]
    fn check(before: &str, edits: &[(&str, &str, bool)], expected: Expected<'_>) {
        let fake = Fake::new();
        fake.put("/w/f", before.to_owned());
        let result = run(&fake, request(edits));
        let after = fake.get("/w/f").unwrap();
        match expected {
            Ok((text, counts)) => {
                assert_eq!(result.unwrap().0, counts);
                assert_eq!(after, text);
            }
            Err(expected) => {
                let error = result.unwrap_err();
                assert_eq!((error.code(), error.count()), expected);
                assert_eq!(error.path(), Some("f"));
                assert_eq!(after, before);
            }
        }
    }

    #[test]
    fn one_place_or_all() {
        check("a b a", &[("b", "c", ONE)], Ok(("a c a", &[1])));
        check(
            "a b a",
            &[("a", "c", ONE)],
            Err((ErrorCode::MultipleMatches, Some(2))),
        );
        check("a b a", &[("a", "c", EVERY)], Ok(("c b c", &[2])));
        check(
            "a b a",
            &[("x", "c", EVERY)],
            Err((ErrorCode::NoMatch, None)),
        );
        check(
            "a b a",
            &[("", "c", ONE)],
            Err((ErrorCode::InvalidArgument, None)),
        );
        check("aaa", &[("aa", "b", EVERY)], Ok(("ba", &[1])));
        check("a b", &[("b", "b", ONE)], Ok(("a b", &[1])));
        check("a b", &[("b", "", ONE)], Ok(("a ", &[1])));
        check("żółw", &[("ół", "ou", ONE)], Ok(("żouw", &[1])));
        check("", &[("a", "b", ONE)], Err((ErrorCode::NoMatch, None)));
        check("a", &[], Ok(("a", &[])));
    }

    #[test]
    fn edits_follow_each_other_and_all_or_none_count() {
        check("a", &[("a", "b", ONE), ("b", "c", ONE)], Ok(("c", &[1, 1])));
        check(
            "a a",
            &[("a", "b", EVERY), ("x", "y", ONE)],
            Err((ErrorCode::NoMatch, None)),
        );
        check(
            "a",
            &[("a", "b", ONE), ("", "y", ONE)],
            Err((ErrorCode::InvalidArgument, None)),
        );
    }

    #[test]
    fn a_file_keeps_its_line_ends() {
        check(
            "a\r\nb\r\n",
            &[("a\nb", "x\ny\nz", ONE)],
            Ok(("x\r\ny\r\nz\r\n", &[1])),
        );
        check("a\nb\n", &[("a\r\nb", "x\r\ny", ONE)], Ok(("x\ny\n", &[1])));
        // The variant as given wins, although the file has both.
        check(
            "a\nb\r\na\r\nb",
            &[("a\nb", "x\ny", ONE)],
            Ok(("x\ny\r\na\r\nb", &[1])),
        );
        check("a\r\nb", &[("b", "c\nd", ONE)], Ok(("a\r\nc\nd", &[1])));
        check(
            "a\r\nb a\r\nb",
            &[("a\nb", "c", ONE)],
            Err((ErrorCode::MultipleMatches, Some(2))),
        );
    }

    #[test]
    fn exact_newlines_try_nothing_else() {
        let fake = Fake::new();
        fake.put("/w/f", "a\r\nb");
        let exact = EditRequest {
            exact_newlines: true,
            ..request(&[("a\nb", "c", ONE)])
        };
        assert_eq!(run(&fake, exact).unwrap_err().code(), ErrorCode::NoMatch);
    }

    #[test]
    fn an_error_says_which_edit_it_was() {
        let fake = Fake::new();
        fake.put("/w/f", "a");
        let error = run(&fake, request(&[("a", "b", ONE), ("x", "y", ONE)])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "'f': edit 2 of 2: the text to replace is not in the file"
        );
    }

    #[test]
    fn another_version_is_a_conflict() {
        let fake = Fake::new();
        fake.put("/w/f", "a");
        let named = |version: &str| EditRequest {
            if_version: Some(Version::new(version)),
            ..request(&[("a", "b", ONE)])
        };
        assert_eq!(
            run(&fake, named("7")).unwrap_err().code(),
            ErrorCode::Conflict
        );
        run(&fake, named("1")).unwrap();

        fake.put("/w/f", "a");
        *fake.meddle.lock().unwrap() = Some(("/w/f".to_owned(), Bytes::from_static(b"a!")));
        let error = run(&fake, request(&[("a", "b", ONE)])).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Conflict);
        assert_eq!(fake.get("/w/f").unwrap(), "a!");
    }

    #[test]
    fn only_text_of_a_certain_size_is_edited() {
        let fake = Fake::new();
        fake.put("/w/f", &b"a\xff"[..]);
        let error = run(&fake, request(&[("a", "b", ONE)])).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotText);

        fake.put("/w/f", "a".repeat(1024));
        let error = run(&fake, request(&[("a", &"b".repeat(65537), EVERY)])).unwrap_err();
        assert_eq!(
            (error.code(), error.count()),
            (ErrorCode::TooLarge, Some(MAX_BYTES))
        );

        fake.chunk
            .store(1 << 20, std::sync::atomic::Ordering::Relaxed);
        fake.put("/w/f", vec![b'a'; MAX_BYTES as usize + 1]);
        let error = run(&fake, request(&[("a", "b", ONE)])).unwrap_err();
        assert_eq!(
            (error.code(), error.count()),
            (ErrorCode::TooLarge, Some(MAX_BYTES))
        );
    }
}
