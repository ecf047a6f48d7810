use super::*;

fn store() -> Store {
    let mut connection = Connection::open_in_memory().unwrap();
    sqlite::migrate(&mut connection, Path::new("memory"), MIGRATIONS).unwrap();
    Store(Owner::start("store", connection).unwrap())
}

fn sample(id: &str, created_ms: u64) -> Record {
    Record {
        id: id.to_owned(),
        backend: id.split(':').next().unwrap().to_owned(),
        name: None,
        workspace: "/w".to_owned(),
        shell: vec!["/bin/sh".to_owned(), "-c".to_owned()],
        labels: BTreeMap::new(),
        created_ms,
        used_ms: created_ms,
        lifetime_ms: None,
        idle_ms: None,
        gone_ms: None,
    }
}

#[tokio::test]
async fn records_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stigmer.db");
    let full = Record {
        name: Some("n".to_owned()),
        labels: [("k\"'.".to_owned(), "v\n".to_owned())].into(),
        lifetime_ms: Some(u64::MAX),
        idle_ms: Some(2),
        ..sample("fs:a", 1)
    };
    let store = Store::open(&path).unwrap();
    store.insert(full.clone()).await.unwrap();
    store.insert(sample("fs:b", 2)).await.unwrap();
    store.delete("fs:b").await.unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    let found = store.find("fs:a").await.unwrap().unwrap();
    assert_eq!(
        found,
        Record {
            lifetime_ms: Some(i64::MAX as u64),
            ..full
        }
    );
    assert_eq!(store.find("n").await.unwrap(), Some(found));
    assert_eq!(store.find("fs:b").await.unwrap(), None);
    assert_eq!(store.count().await.unwrap(), 1);
}

#[test]
fn a_file_from_a_later_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stigmer.db");
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Store::open(&path).unwrap_err();
    assert!(error.message().contains("later"), "{error}");
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(error.message().contains("stigmer.db"), "{error}");
}

#[tokio::test]
async fn a_name_is_unique_among_the_living() {
    let store = store();
    let named = |id, created_ms| Record {
        name: Some("n".to_owned()),
        ..sample(id, created_ms)
    };
    store.insert(named("fs:a", 1)).await.unwrap();
    store.mark_gone("fs:a", 5);
    store.insert(named("fs:b", 2)).await.unwrap();
    assert_eq!(store.find("n").await.unwrap().unwrap().id, "fs:b");
    assert_eq!(store.find("fs:a").await.unwrap().unwrap().gone_ms, Some(5));
    assert_eq!(store.count().await.unwrap(), 1);
    store.mark_gone("fs:b", 6);
    assert_eq!(store.find("n").await.unwrap().unwrap().gone_ms, Some(6));
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let store = store();
    for n in 0..10_u64 {
        let labels = [
            ("parity".to_owned(), (n % 2).to_string()),
            ("n".to_owned(), n.to_string()),
        ];
        // Two at a time are created in the same millisecond.
        let id = format!("{}:{n}", if n < 8 { "fs" } else { "cloud" });
        store
            .insert(Record {
                labels: labels.into(),
                ..sample(&id, n / 2)
            })
            .await
            .unwrap();
    }
    let list = async |labels: &[(&str, &str)], backend: Option<&str>, limit| {
        let mut filter = Filter {
            labels: labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            backend: backend.map(str::to_owned),
            after: None,
            limit,
        };
        let mut ids = Vec::new();
        loop {
            let page = store.list(filter.clone()).await.unwrap();
            assert!(page.len() <= limit as usize);
            let Some(last) = page.last() else { return ids };
            filter.after = Some((last.created_ms, last.id.clone()));
            ids.extend(
                page.into_iter()
                    .map(|record| record.id.split(':').nth(1).unwrap().to_owned()),
            );
        }
    };
    assert_eq!(
        list(&[], Some("fs"), 3).await,
        ["0", "1", "2", "3", "4", "5", "6", "7"]
    );
    assert_eq!(
        list(&[("parity", "1")], None, 2).await,
        ["1", "3", "5", "7", "9"]
    );
    assert_eq!(list(&[("parity", "1"), ("n", "3")], None, 9).await, ["3"]);
    assert_eq!(list(&[("parity", "1"), ("n", "4")], None, 9).await, [""; 0]);
    assert_eq!(list(&[("none", "")], None, 9).await, [""; 0]);
}

#[tokio::test]
async fn uses_are_noted_together() {
    let store = store();
    store
        .insert(Record {
            idle_ms: Some(1),
            ..sample("fs:a", 1)
        })
        .await
        .unwrap();
    store.insert(sample("fs:b", 1)).await.unwrap();
    store
        .touch(vec![("fs:a".to_owned(), 7), ("fs:none".to_owned(), 8)])
        .await
        .unwrap();
    assert_eq!(store.find("fs:a").await.unwrap().unwrap().used_ms, 7);
    let expiring = store.expiring().await.unwrap();
    assert_eq!(expiring.len(), 1);
}
