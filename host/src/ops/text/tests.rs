//! The table of files and windows, each with every size of piece.

use std::sync::atomic::Ordering;

use super::*;
use crate::ops::fake::Fake;

const ALL: TextRequest = TextRequest {
    offset: 0,
    limit: 2000,
    max_bytes: 1 << 20,
    policy: TextPolicy::Detect,
    max_binary_bytes: 512_000,
};

const fn lines(offset: u64, limit: u64) -> TextRequest {
    TextRequest {
        offset,
        limit,
        ..ALL
    }
}

const fn bytes(max_bytes: u64) -> TextRequest {
    TextRequest { max_bytes, ..ALL }
}

async fn read(content: &[u8], piece: usize, request: &TextRequest) -> Result<TextWindow> {
    let fake = Fake::new();
    fake.put("/w/f", content.to_vec());
    fake.chunk.store(piece, Ordering::Relaxed);
    read_text(&fake, &SandboxPath::new("f").unwrap(), request.clone()).await
}

/// The window as one line: its text, lines, total, what is next, and its flags.
#[track_caller]
fn check(content: impl AsRef<[u8]>, request: TextRequest, expected: &str) {
    let content = content.as_ref();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for piece in [1, 2, 3, 5, 8192, 1 << 20] {
        let shown = match runtime.block_on(read(content, piece, &request)) {
            Ok(window) => {
                let text = match &window.content {
                    Content::Text(text) => format!("{text:?}"),
                    Content::Binary(bytes) => format!("{} bytes", bytes.len()),
                };
                let number = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
                format!(
                    "{text} {}-{} of {} next {}{}{}",
                    window.start_line,
                    window.end_line,
                    number(window.total_lines),
                    number(window.next_offset),
                    if window.cut { " cut" } else { "" },
                    if window.lossy { " lossy" } else { "" },
                )
            }
            Err(error) => format!("{} {:?}", error.code(), error.count()),
        };
        assert_eq!(shown, expected, "pieces of {piece}");
    }
}

#[test]
fn lines_end_in_three_ways() {
    check("a\nb\n", ALL, r#""a\nb" 1-2 of 2 next -"#);
    check("a\nb", ALL, r#""a\nb" 1-2 of 2 next -"#);
    check("a\r\nb\rc\n", ALL, r#""a\nb\nc" 1-3 of 3 next -"#);
    check("a\n\r\n\rb", ALL, r#""a\n\n\nb" 1-4 of 4 next -"#);
    check("\r\r\n\n", ALL, r#""\n\n" 1-3 of 3 next -"#);
    check("\n", ALL, r#""" 1-1 of 1 next -"#);
    check("a\n\n", ALL, r#""a\n" 1-2 of 2 next -"#);
    check(
        "a\0b\u{2028}c\x0c",
        ALL,
        r#""a\0b\u{2028}c\u{c}" 1-1 of 1 next -"#,
    );
}

#[test]
fn a_window_has_an_offset_and_a_limit() {
    let five = "1\n2\n3\n4\n5\n";
    check(five, lines(0, 2), r#""1\n2" 1-2 of 5 next 2"#);
    check(five, lines(2, 2), r#""3\n4" 3-4 of 5 next 4"#);
    check(five, lines(4, 2), r#""5" 5-5 of 5 next -"#);
    check(five, lines(0, 5), r#""1\n2\n3\n4\n5" 1-5 of 5 next -"#);
    check(five, lines(1, u64::MAX), r#""2\n3\n4\n5" 2-5 of 5 next -"#);
    check(five, lines(5, 1), "out_of_range Some(5)");
    check(five, lines(u64::MAX, 1), "out_of_range Some(5)");
    check("x", lines(1, 1), "out_of_range Some(1)");
}

#[test]
fn no_lines_and_empty_files_are_windows_without_lines() {
    check("", ALL, r#""" 0-0 of 0 next -"#);
    check("", lines(7, 0), r#""" 0-0 of 0 next -"#);
    check(
        "",
        TextRequest {
            policy: TextPolicy::Binary,
            ..ALL
        },
        r#""" 0-0 of 0 next -"#,
    );
    check("a\n", lines(0, 0), r#""" 0-0 of - next -"#);
    check("a\n", lines(9, 0), r#""" 0-0 of - next -"#);
}

#[test]
fn bytes_cut_between_characters_and_the_cut_line_comes_again() {
    check("abc\ndef\n", bytes(7), r#""abc\ndef" 1-2 of 2 next -"#);
    check("abc\ndef\n", bytes(6), r#""abc\nde" 1-1 of 2 next 1 cut"#);
    check("abc\ndef\n", bytes(4), r#""abc" 1-1 of 2 next 1 cut"#);
    check("abc\ndef\n", bytes(3), r#""abc" 1-1 of 2 next 1 cut"#);
    check("abc\n\ndef\n", bytes(4), r#""abc\n" 1-2 of 3 next 2 cut"#);
    check("abc\n\n", bytes(3), r#""abc" 1-1 of 2 next 1 cut"#);
    check("a\nżż\nb", bytes(5), r#""a\nż" 1-1 of 3 next 1 cut"#);
    check("a\n🦀\n", bytes(5), r#""a" 1-1 of 2 next 1 cut"#);
    check("a\n🦀\n", bytes(6), r#""a\n🦀" 1-2 of 2 next -"#);
}

#[test]
fn at_least_one_line_advances() {
    check("abcdef\ng\n", bytes(3), r#""abc" 1-1 of 2 next 1 cut"#);
    check("abcdef\n", bytes(3), r#""abc" 1-1 of 1 next - cut"#);
    check("żółw", bytes(1), r#""" 1-1 of 1 next - cut"#);
    check("ab\ncd", bytes(0), r#""" 1-1 of 2 next 1 cut"#);
    check(
        "ab\ncdef\ng",
        TextRequest {
            offset: 1,
            ..bytes(2)
        },
        r#""cd" 2-2 of 3 next 2 cut"#,
    );
}

#[test]
fn what_is_not_utf8_is_binary_or_replaced() {
    let late = |bytes: &[u8]| [&[b'a'; 8192][..], b"\n", bytes, b"\n"].concat();
    check(b"\xff\xfe", ALL, "2 bytes 0-0 of - next -");
    check(b"ok\xc5", ALL, "3 bytes 0-0 of - next -");
    check(
        b"\xff",
        TextRequest {
            policy: TextPolicy::Require,
            ..ALL
        },
        "not_text None",
    );
    check(
        "text",
        TextRequest {
            policy: TextPolicy::Binary,
            ..ALL
        },
        "4 bytes 0-0 of - next -",
    );
    check(
        late(b"x\xffy"),
        lines(1, 9),
        r#""x�y" 2-2 of 2 next - lossy"#,
    );
    check(
        late(b"x\xffy"),
        TextRequest {
            policy: TextPolicy::Require,
            ..lines(1, 9)
        },
        r#""x�y" 2-2 of 2 next - lossy"#,
    );
    check(late(b"x\xc5"), lines(1, 9), r#""x�" 2-2 of 2 next - lossy"#);
    check(
        late("żółw".as_bytes()),
        lines(1, 9),
        r#""żółw" 2-2 of 2 next -"#,
    );
    check(
        late(b"ab\xff"),
        TextRequest {
            max_bytes: 2,
            ..lines(1, 9)
        },
        r#""ab" 2-2 of 2 next - cut"#,
    );
    // A character that begins within what is sniffed, and ends outside.
    let across = [&[b'a'; 8191][..], "ż".as_bytes()].concat();
    check(
        across,
        TextRequest {
            max_bytes: 1,
            ..ALL
        },
        r#""a" 1-1 of 1 next - cut"#,
    );
}

#[test]
fn a_binary_file_is_whole_or_too_large() {
    let binary = vec![0xff; 100];
    check(
        &binary,
        TextRequest {
            max_binary_bytes: 100,
            ..ALL
        },
        "100 bytes 0-0 of - next -",
    );
    check(
        &binary,
        TextRequest {
            max_binary_bytes: 99,
            ..ALL
        },
        "too_large Some(99)",
    );
}

#[tokio::test]
async fn no_more_is_read_than_needed() {
    let fake = Fake::new();
    fake.put("/w/f", "0123456789abcde\n".repeat(1 << 17));
    fake.chunk.store(4096, Ordering::Relaxed);
    let path = SandboxPath::new("f").unwrap();
    let window = read_text(&fake, &path, lines(1000, 10)).await.unwrap();
    assert_eq!((window.total_lines, window.next_offset), (None, Some(1010)));
    assert!(fake.bytes_read.load(Ordering::Relaxed) <= 1010 * 16 + 8192);

    // The last window knows how many there are.
    let window = read_text(&fake, &path, lines((1 << 17) - 1, 10))
        .await
        .unwrap();
    assert_eq!(
        (window.total_lines, window.next_offset),
        (Some(1 << 17), None)
    );
    // One that ends with the file does, too.
    let window = read_text(&fake, &path, lines((1 << 17) - 10, 10))
        .await
        .unwrap();
    assert_eq!(
        (window.total_lines, window.next_offset),
        (Some(1 << 17), None)
    );
}

#[tokio::test]
async fn pages_add_up_to_the_file() {
    let fake = Fake::new();
    let text: Vec<String> = (0..2500).map(|line| format!("line {line} żółw")).collect();
    fake.put("/w/f", text.join("\r\n"));
    fake.chunk.store(1000, Ordering::Relaxed);
    let path = SandboxPath::new("f").unwrap();
    let (mut pages, mut offset) = (Vec::new(), Some(0));
    while let Some(from) = offset {
        let request = TextRequest {
            max_bytes: 700,
            ..lines(from, 100)
        };
        let window = read_text(&fake, &path, request).await.unwrap();
        let Content::Text(page) = window.content else {
            panic!()
        };
        let whole = (window.end_line - from) as usize;
        pages.extend(page.split('\n').take(whole).map(str::to_owned));
        offset = window.next_offset;
    }
    assert_eq!(pages, text);
}
