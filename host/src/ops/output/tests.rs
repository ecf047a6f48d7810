//! Commands whose output is kept, captured, or cannot be.

use super::*;
use crate::ops::fake::{Fake, events};

fn stdout(bytes: &'static str) -> Event {
    Event::Stdout(Bytes::from_static(bytes.as_bytes()))
}

fn stderr(bytes: &'static str) -> Event {
    Event::Stderr(Bytes::from_static(bytes.as_bytes()))
}

const EXIT: Event = Event::Exit(ExitStatus::Code(3));

fn capture(path: &str, max_bytes: u64, always: bool) -> Capture {
    Capture {
        path: SandboxPath::new(path).unwrap(),
        max_bytes,
        always,
    }
}

fn limits(capture: Option<Capture>) -> OutputLimits {
    OutputLimits {
        max_inline_bytes: 8,
        preview: None,
        capture,
    }
}

#[tokio::test]
async fn streams_are_kept_apart_and_the_status_passes() {
    let output = vec![
        stdout("out"),
        stderr("err!"),
        stdout("put"),
        stderr("12345"),
        EXIT,
    ];
    let finished = collect(Arc::new(Fake::new()), events(output), limits(None))
        .await
        .unwrap();
    assert_eq!(finished.stdout.head, "output");
    assert_eq!(
        (finished.stderr.head, finished.stderr.tail),
        ("err!".into(), "2345".into())
    );
    assert_eq!(finished.stderr.omitted_bytes, 1);
    assert_eq!(finished.status, ExitStatus::Code(3));
    assert!(finished.captured.is_none() && finished.capture_error.is_none());
}

#[tokio::test]
async fn an_odd_limit_is_used_whole() {
    let odd = OutputLimits {
        max_inline_bytes: 5,
        ..limits(None)
    };
    let output = vec![stdout("1234567"), EXIT];
    let finished = collect(Arc::new(Fake::new()), events(output), odd)
        .await
        .unwrap();
    assert_eq!(
        (finished.stdout.head, finished.stdout.tail),
        ("123".into(), "67".into())
    );
}

/// What is in the file after these events, by `collect`, and what is said of it.
#[track_caller]
fn check_capture(output: &[Event], max_bytes: u64, always: bool, file: Option<(&str, bool)>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let fake = Arc::new(Fake::new());
    let output = [output, &[EXIT]].concat();
    let limits = limits(Some(capture("log/out", max_bytes, always)));
    let finished = runtime
        .block_on(collect(fake.clone(), events(output), limits))
        .unwrap();
    assert!(finished.capture_error.is_none());
    let expected = file.map(|(content, truncated)| Captured {
        path: SandboxPath::new("log/out").unwrap(),
        bytes: content.len() as u64,
        truncated,
    });
    assert_eq!(finished.captured, expected);
    assert_eq!(
        fake.get("/w/log/out"),
        file.map(|(content, _)| Bytes::copy_from_slice(content.as_bytes()))
    );
}

#[test]
fn output_that_is_too_long_goes_to_a_file_in_order() {
    let fits = [stdout("12345678"), stderr("12345678")];
    check_capture(&fits, 100, false, None);
    check_capture(&fits, 100, true, Some(("1234567812345678", false)));
    check_capture(&[], 100, true, Some(("", false)));
    check_capture(&[], 100, false, None);
    let long = [
        stdout("out"),
        stderr("err"),
        stdout("123456"),
        stderr("end"),
    ];
    check_capture(&long, 100, false, Some(("outerr123456end", false)));
    check_capture(&long, 15, false, Some(("outerr123456end", false)));
    check_capture(&long, 14, false, Some(("outerr123456en", true)));
    check_capture(&long, 4, false, Some(("oute", true)));
    check_capture(&long, 0, false, Some(("", true)));
    let many: Vec<Event> = (0..100).map(|_| stdout("0123456789")).collect();
    check_capture(
        &many,
        10_000,
        false,
        Some((&"0123456789".repeat(100), false)),
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_written_costs_no_result() {
    let output: Vec<Event> = (0..100)
        .map(|_| stdout("0123456789"))
        .chain([EXIT])
        .collect();
    let limits = limits(Some(capture("/full/out", 100_000, false)));
    let finished = collect(Arc::new(Fake::new()), events(output), limits)
        .await
        .unwrap();
    assert_eq!(finished.status, ExitStatus::Code(3));
    assert_eq!(finished.stdout.omitted_bytes, 992);
    assert_eq!(finished.captured, None);
    assert_eq!(finished.capture_error.unwrap().code(), ErrorCode::Exhausted);
}

#[tokio::test]
async fn output_that_was_lost_leaves_no_file() {
    let fake = Arc::new(Fake::new());
    let output = vec![stdout("0123456789"), stdout("0123456789")];
    let limits = limits(Some(capture("out", 100, false)));
    let error = collect(fake.clone(), events(output), limits)
        .await
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert_eq!(fake.get("/w/out"), None);
}

#[tokio::test]
async fn tee_passes_on_what_it_writes() {
    let fake = Arc::new(Fake::new());
    let output = vec![stdout("out"), stderr("err"), stdout("put"), EXIT];
    let (teed, captured) = tee(
        fake.clone(),
        events(output.clone()),
        capture("out", 7, false),
    );
    let passed: Vec<Event> = teed.map(|event| event.unwrap()).collect().await;
    assert_eq!(passed, output);
    let captured = captured.await.unwrap().unwrap().unwrap();
    assert_eq!((captured.bytes, captured.truncated), (7, true));
    assert_eq!(fake.get("/w/out").unwrap(), "outerrp");
}

#[tokio::test]
async fn the_file_is_complete_before_the_exit_passes() {
    let fake = Arc::new(Fake::new());
    let output = vec![stdout("out"), EXIT];
    let (mut teed, mut captured) = tee(fake.clone(), events(output), capture("out", 7, false));
    teed.next().await.unwrap().unwrap();
    assert_eq!(fake.get("/w/out"), None);
    teed.next().await.unwrap().unwrap();
    assert_eq!(fake.get("/w/out").unwrap(), "out");
    assert!(captured.try_recv().unwrap().is_some());
}

#[tokio::test]
async fn tee_without_output_writes_only_if_always() {
    for (always, file) in [(false, None), (true, Some(Bytes::new()))] {
        let fake = Arc::new(Fake::new());
        let (teed, captured) = tee(fake.clone(), events(vec![EXIT]), capture("out", 7, always));
        assert_eq!(teed.count().await, 1);
        assert_eq!(captured.await.unwrap().is_some(), always);
        assert_eq!(fake.get("/w/out"), file);
    }
}

#[tokio::test]
async fn tee_goes_on_without_a_file() {
    let output: Vec<Event> = (0..50).map(|_| stdout("x")).chain([EXIT]).collect();
    let (teed, captured) = tee(
        Arc::new(Fake::new()),
        events(output),
        capture("/full/x", 70, false),
    );
    assert_eq!(teed.count().await, 51);
    assert_eq!(
        captured.await.unwrap().unwrap().unwrap_err().code(),
        ErrorCode::Exhausted
    );
}

#[tokio::test]
async fn tee_passes_on_that_a_command_was_lost() {
    let fake = Arc::new(Fake::new());
    let (teed, captured) = tee(
        fake.clone(),
        events(vec![stdout("x")]),
        capture("out", 70, false),
    );
    let last = teed.collect::<Vec<_>>().await.pop().unwrap();
    assert_eq!(last.unwrap_err().code(), ErrorCode::Unavailable);
    assert!(captured.await.unwrap().unwrap().is_err());
    assert_eq!(fake.get("/w/out"), None);
}
