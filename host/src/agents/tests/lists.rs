//! Lists, and those who follow.

use super::*;

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let bench = Bench::new().await;
    let mut first = None;
    for number in 0..10_u32 {
        let parity = ("parity".to_owned(), (number % 2).to_string());
        let labels: std::collections::HashMap<_, _> = [parity].into();
        let labelled = pb::ExecutionSpec {
            message: number.to_string(),
            labels: labels.clone(),
            ..Default::default()
        };
        if number < 7 {
            let session = pb::SessionSpec {
                subject: number.to_string(),
                labels,
                ..Default::default()
            };
            let created = bench.create_in(session, labelled).await;
            first.get_or_insert(created);
        } else {
            let request = pb::CreateExecutionRequest {
                session: first.as_ref().map(|execution: &pb::Execution| {
                    create::Session::SessionId(execution.session_id.clone())
                }),
                spec: Some(labelled),
                key: None,
            };
            bench.agents.create_execution(request).await.unwrap();
        }
    }
    for _ in 0..3 {
        let mut claim = bench.claim().await.unwrap();
        claim
            .report(vec![ended(pb::Phase::Completed)])
            .await
            .unwrap();
    }
    drop(bench.claim().await.unwrap());

    let list = async |filter: Filter| {
        let mut messages = Vec::new();
        let mut page = filter.page;
        loop {
            let filter = Filter {
                page,
                ..filter.clone()
            };
            let answer = bench.agents.executions(filter).await.unwrap();
            assert!(answer.items.len() <= page.limit as usize);
            messages.extend(answer.items.into_iter().map(|e| e.spec.unwrap().message));
            match answer.next {
                None => return messages.join(" "),
                next => page.before = next,
            }
        }
    };
    let by = |limit| Filter {
        page: Slice {
            before: None,
            limit,
        },
        ..Filter::default()
    };
    assert_eq!(list(by(3)).await, "9 8 7 6 5 4 3 2 1 0");
    assert_eq!(list(by(10)).await, "9 8 7 6 5 4 3 2 1 0");
    let phases = |phases: &[pb::Phase], limit| Filter {
        phases: phases.to_vec(),
        ..by(limit)
    };
    use pb::Phase::{Completed, Failed, InProgress, Pending};
    assert_eq!(list(phases(&[Completed], 2)).await, "2 1 0");
    assert_eq!(list(phases(&[Pending], 4)).await, "9 8 7 6 5 4");
    assert_eq!(
        list(phases(&[InProgress, Completed, Completed], 2)).await,
        "3 2 1 0"
    );
    assert_eq!(list(phases(&[Failed], 2)).await, "");
    let odd = Filter {
        labels: [("parity".to_owned(), "1".to_owned())].into(),
        ..by(2)
    };
    assert_eq!(list(odd.clone()).await, "9 7 5 3 1");
    let session_id = first.map(|execution| execution.session_id);
    let within = Filter {
        session_id: session_id.clone(),
        ..odd
    };
    assert_eq!(list(within).await, "9 7");
    let pending = Filter {
        session_id,
        ..phases(&[Pending], 1)
    };
    assert_eq!(list(pending).await, "9 8 7");
    let counts = bench.agents.counts().await.unwrap();
    assert_eq!(
        (counts.sessions, counts.pending, counts.in_progress),
        (7, 6, 1)
    );

    let even = BTreeMap::from([("parity".to_owned(), "0".to_owned())]);
    let slice = Slice {
        before: None,
        limit: 3,
    };
    let page = bench.agents.sessions(even.clone(), slice).await.unwrap();
    let subjects = |page: &Page<pb::Session>| -> Vec<String> {
        page.items
            .iter()
            .map(|s| s.spec.clone().unwrap().subject)
            .collect()
    };
    assert_eq!(subjects(&page), ["6", "4", "2"]);
    let slice = Slice {
        before: page.next,
        limit: 3,
    };
    let page = bench.agents.sessions(even, slice).await.unwrap();
    assert_eq!((subjects(&page), page.next), (vec!["0".to_owned()], None));
}

#[tokio::test]
async fn skills_are_whole_for_the_runner_and_light_in_lists() {
    let bench = Bench::new().await;
    let file = pb::skill::File {
        path: "SKILL.md".to_owned(),
        data: "how".into(),
        executable: false,
    };
    let session = pb::SessionSpec {
        agent: Some(pb::AgentSpec {
            skills: vec![pb::Skill {
                name: "s".to_owned(),
                files: vec![file],
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let created = bench.create_in(session, spec()).await;
    let files = |session: &pb::Session| {
        let skills = &session
            .spec
            .as_ref()
            .unwrap()
            .agent
            .as_ref()
            .unwrap()
            .skills;
        assert_eq!(skills[0].name, "s");
        skills[0].files.len()
    };
    assert_eq!(
        files(&bench.claim().await.unwrap().work.session.unwrap()),
        1
    );
    let shown = bench.agents.session(&created.session_id).await.unwrap();
    assert_eq!(files(&shown), 1);
    let listed = bench
        .agents
        .sessions(BTreeMap::new(), Slice::default())
        .await
        .unwrap();
    assert_eq!(files(&listed.items[0]), 0);
}

#[tokio::test]
async fn followers_see_every_event_once_and_then_the_end() {
    let bench = Bench::new().await;
    let execution = bench.create(spec()).await;
    let follow = async |from: u64| -> Vec<u64> {
        let events = bench.agents.subscribe(&execution.execution_id, from).await;
        let seqs = events.unwrap().map(|event| event.unwrap().seq);
        tokio::time::timeout(SOON, seqs.collect()).await.unwrap()
    };
    let write = async {
        let mut claim = bench.claim().await.unwrap();
        for _ in 0..50 {
            // More than a page in all.
            let text = "x".repeat(10_000);
            claim
                .report(vec![said("m", &text), said("n", "y")])
                .await
                .unwrap();
        }
        claim
            .report(vec![ended(pb::Phase::Completed)])
            .await
            .unwrap();
    };
    let all: Vec<u64> = (1..=103).collect();
    let (early, ahead, beyond, ()) = tokio::join!(follow(0), follow(50), follow(1000), write);
    assert_eq!(early, all);
    assert_eq!(ahead, all[49..]);
    assert_eq!(beyond, [0; 0]);
    assert_eq!(follow(1).await, all);
    assert_eq!(follow(103).await, [103]);
    assert_eq!(follow(104).await, [0; 0]);
    let unknown = bench.agents.subscribe("exe-0", 1).await;
    assert_eq!(unknown.err().unwrap().code(), ErrorCode::NotFound);
}

#[tokio::test]
async fn a_follower_is_told_that_the_daemon_ends() {
    let bench = Bench::new().await;
    let execution = bench.create(spec()).await;
    let events = bench.agents.subscribe(&execution.execution_id, 2).await;
    let mut events = events.unwrap();
    bench.agents.close();
    let cut = events.next().await.unwrap().unwrap_err();
    assert_eq!(cut.code(), ErrorCode::Unavailable);
    assert!(events.next().await.is_none());
}
