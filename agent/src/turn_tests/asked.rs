//! What people say to an execution: yes, no, and stop.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_somebodys_word() {
    let rule = |pattern: &str, answer: Ruled| ApprovalRule {
        tool: "execute".to_owned(),
        pattern: pattern.to_owned(),
        answer: answer.into(),
    };
    let approvals = Approvals {
        mode: Mode::Ask.into(),
        rules: vec![rule("rm *", Ruled::Deny), rule("ls*", Ruled::Allow)],
    };
    let execute =
        |id: &str, command: &str| call(id, "execute", &format!(r#"{{"command":"{command}"}}"#));
    let mut bench = Bench::new(vec![
        Ok(vec![
            execute("1", "rm -rf /"),
            execute("2", "ls"),
            execute("3", "make hunter2"),
            execute("4", "make install"),
            CALLS,
        ]),
        Ok(vec![text("ok"), DONE]),
    ]);
    bench.job.policy = Policy::of([Some(&approvals), None, None]);
    let held = Arc::clone(&bench.job.held);
    let record = bench.record.clone();
    let decide = async {
        let waiting = || {
            record
                .events()
                .iter()
                .filter(|what| matches!(what, What::Approval(_)))
                .count()
        };
        while waiting() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for (call, allow) in [("3", true), ("4", false), ("9", true)] {
            held.decide(DecideRequest {
                execution_id: "exe-1".to_owned(),
                tool_call_id: call.to_owned(),
                allow,
                reason: "not on a Friday".to_owned(),
            });
        }
    };
    let (result, ()) = tokio::join!(bench.run(), decide);
    result.unwrap();
    let approvals: Vec<_> = bench
        .record
        .events()
        .into_iter()
        .filter_map(|what| match what {
            What::Approval(approval) => Some(approval),
            _ => None,
        })
        .collect();
    assert_eq!(approvals.len(), 2);
    assert_eq!(approvals[0].summary, "make ***");
    assert_eq!(approvals[0].why, "it changes something (approve: ask)");
    assert!(
        approvals
            .iter()
            .all(|approval| approval.state() == ApprovalState::Pending)
    );
    let result = |id: &str| {
        let call = bench
            .calls()
            .into_iter()
            .rfind(|call| call.tool_call_id == id)
            .unwrap();
        (call.result, call.started_ms.is_some())
    };
    assert_eq!(
        result("1"),
        (
            "error: denied by the rule for execute with 'rm *'; it was not run".to_owned(),
            false
        )
    );
    assert!(
        result("2").1 && result("3").1,
        "they ran, as far as they could"
    );
    assert_eq!(
        result("4"),
        (
            "error: denied by the person, who says: not on a Friday; it was not run".to_owned(),
            false
        )
    );
}

#[tokio::test(start_paused = true)]
async fn cancelling_ends_whatever_goes_on() {
    // While the model answers.
    let mut bench = Bench::new(vec![Ok(vec![text("so f")])]);
    bench.model.replies.lock().unwrap().clear();
    let held = Arc::clone(&bench.job.held);
    let later = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        held.ending.end(Why::Cancelled("enough".to_owned()));
    };
    let (result, ()) = tokio::join!(bench.run(), later);
    assert!(matches!(result, Err(Halt::Ended)), "{result:?}");
    assert!(!bench.job.reporter.has_begun());

    // While a call waits for approval: it is over, and says so.
    let mut bench = Bench::new(vec![Ok(vec![
        text("now"),
        call("1", "execute", r#"{"command":"ls"}"#),
        CALLS,
    ])]);
    let always = Approvals {
        mode: Mode::Always.into(),
        rules: Vec::new(),
    };
    bench.job.policy = Policy::of([Some(&always), None, None]);
    let held = Arc::clone(&bench.job.held);
    let later = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        held.ending.end(Why::Stopped);
    };
    let (result, ()) = tokio::join!(bench.run(), later);
    assert!(matches!(result, Err(Halt::Ended)), "{result:?}");
    assert!(bench.job.reporter.has_begun());
    let call = bench.calls().pop().unwrap();
    assert_eq!(call.status(), ToolCallStatus::Failed);
    assert_eq!(call.error.as_deref(), Some("the agent runner was stopped"));
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_a_cancel_stays() {
    #[derive(Debug)]
    struct Slow;
    #[async_trait::async_trait]
    impl Model for Slow {
        fn provider(&self) -> Provider {
            Provider::Ollama
        }
        async fn ask(&self, _request: &Request) -> Result<model::Answer, Failure> {
            Ok(stream::iter([text("so far")])
                .chain(stream::pending())
                .boxed())
        }
        fn context_tokens(&self, _model: &str) -> Option<u64> {
            None
        }
        fn cost_microusd(&self, _model: &str, _usage: &Usage) -> Option<u64> {
            None
        }
    }
    let mut bench = Bench::new(Vec::new());
    bench.job.model = Arc::new(Slow);
    let held = Arc::clone(&bench.job.held);
    let later = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        held.ending.end(Why::Cancelled(String::new()));
    };
    let (result, ()) = tokio::join!(bench.run(), later);
    assert!(matches!(result, Err(Halt::Ended)));
    assert_eq!(bench.story().last().unwrap(), "ai 2: so far");
    assert!(bench.job.reporter.has_begun());
    bench.tasks.abort_all();
}
