//! The contract of every backend, through the door that speaks it.

use super::*;

#[tokio::test]
async fn the_backend_contract_survives_the_trip() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path(), &FakeBackend::default()).await;
    let backend = RemoteBackend::open(daemon.channel().await).await.unwrap();
    assert_eq!(backend.describe().name, "fake");
    let sandbox = backend.create(SandboxSpec::default()).await.unwrap();
    let again = backend.attach(&sandbox.info().id).await.unwrap();
    assert_eq!(again.info(), sandbox.info());
    let unknown = backend
        .attach(&SandboxId::new("fake:none").unwrap())
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::NoSandbox);

    // Output, then exactly one exit; signals also after the end of stdin.
    let command = || Command::new(["cat"]).unwrap().stdin(true);
    let input =
        stream::iter([Input::Stdin("a".into()), Input::CloseStdin]).chain(stream::pending());
    let events: Vec<_> = sandbox
        .exec(command(), input.boxed())
        .await
        .unwrap()
        .map(stigmer_sdk::Result::unwrap)
        .collect()
        .await;
    assert_eq!(
        events,
        [Event::Stdout("a".into()), Event::Exit(ExitStatus::Code(0))]
    );
    let input = stream::iter([Input::CloseStdin, Input::Signal(Signal::Terminate)])
        .chain(stream::pending());
    let sleep = Command::new(["sleep"]).unwrap();
    let events: Vec<_> = sandbox
        .exec(sleep, input.boxed())
        .await
        .unwrap()
        .map(stigmer_sdk::Result::unwrap)
        .collect()
        .await;
    assert_eq!(events, [Event::Exit(ExitStatus::Signal(15))]);

    // Dropping the events ends the command.
    let events = sandbox
        .exec(command(), stream::pending().boxed())
        .await
        .unwrap();
    assert_eq!(daemon.backend.running(), 1);
    drop(events);
    while daemon.backend.running() > 0 {
        tokio::task::yield_now().await;
    }

    // A write that breaks off leaves what was there, and says why it did.
    let path = "f".try_into().unwrap();
    let write = |data| sandbox.write(&path, WriteOptions::default(), data);
    write(stream::iter([Ok("old".into())]).boxed())
        .await
        .unwrap();
    let broken = Error::new(ErrorCode::Exhausted, "no more");
    let error = write(stream::iter([Ok("ne".into()), Err(broken)]).boxed())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (ErrorCode::Exhausted, "no more")
    );
    let (sent, receive) = oneshot::channel::<()>();
    let mut sent = Some(sent);
    let never_ends = stream::iter([Ok("ne".into())]).chain(stream::poll_fn(move |_| {
        drop(sent.take());
        std::task::Poll::Pending
    }));
    tokio::select! {
        written = write(never_ends.boxed()) => panic!("{written:?}"),
        _ = receive => {}
    }
    while daemon.backend.writing() > 0 {
        tokio::task::yield_now().await;
    }
    let (metadata, data) = sandbox.read(&path, Default::default()).await.unwrap();
    let data: Vec<_> = data.map(stigmer_sdk::Result::unwrap).collect().await;
    assert_eq!((metadata.size, data), (3, vec!["old".into()]));

    sandbox.destroy().await.unwrap();
    sandbox.destroy().await.unwrap();
    assert_eq!(
        sandbox.stat(&path, false).await.unwrap_err().code(),
        ErrorCode::NoSandbox
    );
    daemon.stop().await;
}
