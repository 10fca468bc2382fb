//! All of it in one test: a process has one collector.

use super::*;

fn fine(operation: &'static str, key: &str) -> impl Future<Output = Result<(), Fault>> {
    let asking = async {
        tried();
        Ok(())
    };
    asking_s3(operation, key, asking, Fault::clone)
}

fn fuse(operation: &'static str) -> impl FnOnce() -> Work {
    move || Work::Fuse { operation }
}

/// What is told in any case, on behalf of another one.
async fn operation_within(outer: &'static str, inner: &'static str) {
    let operation = Operation::begin().unwrap();
    operation.scope(async { Operation::begin_told().unwrap().end(fuse(inner), None) }).await;
    operation.end(fuse(outer), None);
}

#[tokio::test]
async fn requests_belong_to_the_operation_that_caused_them() {
    assert!(Operation::begin().is_none() && counts().is_none(), "nobody collects");
    fine("HeadObject", "before").await.unwrap();
    let mut spans = collect(1.0).unwrap();
    assert!(collect(1.0).is_none(), "one reader");

    // Other tests of this process ask on nobody's behalf; what is looked at here has names of its own.
    let operation = Operation::begin().unwrap();
    let within = operation.scope(async {
        fine("GetObject", "spans/here").await.unwrap();
        let task = tokio::spawn(carried(fine("GetObject", "spans/in a task")));
        task.await.unwrap().unwrap();
        let pending = async { std::future::pending::<Result<(), Fault>>().await };
        let mut abandoned = Box::pin(asking_s3("GetObject", "spans/given up", pending, Fault::clone));
        assert!(futures::poll!(&mut abandoned).is_pending());
    });
    within.await;
    let fault = Fault { kind: "EIO".into(), words: String::new() };
    operation.end(fuse("spans-read"), Some(fault.clone()));

    let inline = Operation::begin().unwrap();
    let (free, wait) = tokio::sync::oneshot::channel::<()>();
    let left_behind = async {
        wait.await.unwrap();
        fine("GetObject", "spans/left behind").await
    };
    let mut left = None;
    inline.scope(async { left = Some(tokio::spawn(carried(left_behind))) }).await;
    inline.end(fuse("spans-hit"), None);
    free.send(()).unwrap();
    left.unwrap().await.unwrap().unwrap();
    operation_within("spans-close", "spans-hook").await;

    let mut found = std::collections::HashMap::new();
    while let Ok(span) = spans.try_recv() {
        let name = match &span.work {
            Work::S3 { key, .. } => key.clone(),
            Work::Fuse { operation } => (*operation).to_owned(),
            Work::Hook { name, .. } => name.clone(),
        };
        found.insert(name, span);
    }
    let read = &found["spans-read"];
    assert_eq!((read.parent, &read.fault), (None, &Some(fault)));
    for (key, kind) in [("spans/here", None), ("spans/in a task", None), ("spans/given up", Some("abandoned"))] {
        let span = &found[key];
        assert_eq!((span.ids.trace, span.parent), (read.ids.trace, Some(read.ids.span)), "{key}");
        assert_eq!(span.fault.as_ref().map(|fault| fault.kind.as_str()), kind, "{key}");
        assert!(matches!(span.work, Work::S3 { tries, .. } if tries == u32::from(kind.is_none())), "{span:?}");
    }
    assert_eq!(found["spans/left behind"].parent, None, "what caused it is not told");
    assert_eq!(found["spans-hook"].parent, Some(found["spans-close"].ids.span));
    assert!(!found.contains_key("spans-hit"), "it asked for nothing and was quick");
    assert!(!found.contains_key("before"));

    for _ in 0..=MOST_WAITING {
        Operation::begin_told().unwrap().end(fuse("spans-flood"), None);
    }
    settle(SpanCounts { sent: 3, dropped: 2 });
    let SpanCounts { sent, dropped } = counts().unwrap();
    assert!(sent == 3 && dropped >= 3, "what finds no place is counted: {dropped}");
}
