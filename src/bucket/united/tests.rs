use super::*;
use crate::bucket::Metadata;
use crate::bucket::layout::tests::root;
use crate::bucket::memory::{DELETED_KEY, Effect, Fault, MemoryBucket};

/// `a/`, `a-b/` and `logs/`, of which the last is `2026/` in its bucket.
struct House {
    buckets: [Arc<MemoryBucket>; 3],
    united: United,
}

const NAMES: [(&str, &str, &str); 3] = [("a", "one", ""), ("a-b", "two", ""), ("logs", "three", "2026/")];

impl House {
    fn new() -> Self {
        let buckets = [(); 3].map(|()| Arc::new(MemoryBucket::new()));
        for bucket in &buckets {
            for ((_, name, _), other) in NAMES.iter().zip(&buckets) {
                bucket.beside(name, other);
            }
        }
        let layout =
            Layout::of_several(NAMES.iter().map(|(name, bucket, prefix)| root(name, bucket, prefix)).collect());
        // As the layout has them: `a-b/` comes before `a/`.
        let in_order: Vec<Arc<dyn Bucket>> = [1, 0, 2].map(|at: usize| buckets[at].clone() as Arc<dyn Bucket>).into();
        Self { united: United::new(layout, in_order), buckets }
    }

    fn filled() -> Self {
        let house = Self::new();
        for (bucket, keys) in [(0, &["d/x", "d/y", "e"][..]), (1, &["d/x"]), (2, &["2025/old", "2026/", "2026/d/x"])] {
            for key in keys {
                house.buckets[bucket].insert(key, *key, Metadata::new());
            }
        }
        house
    }

    async fn pages(&self, request: ListRequest) -> Vec<Vec<String>> {
        let (mut request, mut pages) = (request, Vec::new());
        loop {
            let page = self.united.list(&request).await.unwrap();
            let objects = page.objects.into_iter().map(|object| object.key);
            let mut names: Vec<String> = objects.chain(page.prefixes).collect();
            names.sort();
            pages.push(names);
            let Some(token) = page.next else { return pages };
            request.token = Some(token);
        }
    }

    async fn listed(&self, prefix: &str, delimited: bool, after: Option<&str>) -> Vec<String> {
        let start_after = after.map(str::to_owned);
        let request = ListRequest { prefix: prefix.to_owned(), delimited, start_after, ..ListRequest::default() };
        self.pages(request).await.concat()
    }
}

fn copy(from: &str, to: &str) -> CopyRequest {
    let (from, to) = (from.to_owned(), to.to_owned());
    CopyRequest::new(from, to)
}

/// Two buckets of one name on two servers, and a part of the second that is only read.
fn apart() -> ([Arc<MemoryBucket>; 3], United) {
    let buckets = [(); 3].map(|()| Arc::new(MemoryBucket::new()));
    let second = |name| Root { client: 1, ..root(name, "b", "") };
    let layout = Layout::of_several(vec![root("a", "b", ""), second("b"), Root { read_only: true, ..second("c") }]);
    let united = United::new(layout, buckets.each_ref().map(|bucket| bucket.clone() as Arc<dyn Bucket>).into());
    (buckets, united)
}

#[tokio::test]
async fn no_server_is_asked_for_a_copy_from_another() {
    let (buckets, united) = apart();
    for bucket in &buckets {
        bucket.insert("x", "bytes", Metadata::new());
    }
    let error = united.copy(&copy("a/x", "b/y")).await.unwrap_err();
    assert_eq!((error.kind, error.key.as_str()), (Kind::Refused, "b/y"));
    let id = united.create_upload("b/y", &PutOptions::default()).await.unwrap();
    assert_eq!(united.copy_part("b/y", &id, 1, &copy("a/x", "b/y"), 0..5).await.unwrap_err().kind, Kind::Refused);
    united.copy(&copy("b/x", "b/y")).await.unwrap();
    assert_eq!(buckets[1].keys(), ["x", "y"]);
}

#[tokio::test]
async fn nothing_is_written_to_a_bucket_that_is_only_read() {
    let (buckets, united) = apart();
    buckets[2].insert("x", "bytes", Metadata::new());
    assert_eq!(united.get("c/x", None, None).await.unwrap().bytes, "bytes");
    let options = PutOptions::default();
    let before = buckets[2].requests();
    let refusals = [
        united.put("c/y", "y".into(), &options).await.map(drop),
        united.copy(&copy("c/x", "c/y")).await.map(drop),
        united.delete("c/x", None).await,
        united.create_upload("c/y", &options).await.map(drop),
    ];
    assert!(refusals.iter().all(|refusal| refusal.as_ref().is_err_and(|error| error.kind == Kind::ReadOnly)));
    let failed = united.delete_many(&[Deletion::of_any("c/x")]).await.unwrap();
    assert_eq!((failed[0].0.as_str(), failed[0].1.kind), ("c/x", Kind::ReadOnly));
    assert_eq!(buckets[2].requests(), before);
}

#[tokio::test]
async fn an_object_lies_in_the_bucket_that_its_key_names() {
    let House { buckets, united } = House::new();
    for (key, bucket, there) in [("a/x", 0, "x"), ("a-b/x/y", 1, "x/y"), ("logs/x", 2, "2026/x")] {
        let etag = united.put(key, key.into(), &PutOptions::default()).await.unwrap();
        assert_eq!(buckets[bucket].keys(), [there]);
        assert_eq!(united.head(key).await.unwrap().etag, etag);
        assert_eq!(united.get(key, None, Some(&etag)).await.unwrap().bytes, key);
        united.delete(key, None).await.unwrap();
        assert!(buckets[bucket].keys().is_empty());
        // An error is about the key that was asked for.
        assert_eq!(united.head(key).await.unwrap_err().key, key);
    }
}

#[tokio::test]
async fn what_is_in_no_bucket_is_not_there_and_cannot_be_written() {
    let House { buckets, united } = House::new();
    for key in ["x", "b/x", "a", "a/", ""] {
        assert_eq!(united.head(key).await.unwrap_err().kind, Kind::NotFound, "{key}");
        let written = united.put(key, Bytes::new(), &PutOptions::default()).await;
        assert_eq!(written.unwrap_err().kind, Kind::Refused, "{key}");
        assert_eq!(united.copy(&copy("a/x", key)).await.unwrap_err().kind, Kind::Refused, "{key}");
    }
    assert!(buckets.iter().all(|bucket| bucket.requests().is_empty()), "nobody need be asked");
    // A part of a bucket has a key of its own.
    united.put("logs/", Bytes::new(), &PutOptions::default()).await.unwrap();
    assert_eq!(buckets[2].keys(), ["2026/"]);
}

#[tokio::test]
async fn the_root_holds_the_names_and_asks_nobody() {
    let house = House::new();
    assert_eq!(house.listed("", true, None).await, ["a-b/", "a/", "logs/"]);
    assert_eq!(house.listed("a", true, None).await, ["a-b/", "a/"]);
    assert_eq!(house.listed("", true, Some("a/")).await, ["logs/"]);
    let two = ListRequest { delimited: true, max_keys: Some(2), ..ListRequest::default() };
    assert_eq!(house.pages(two).await, [vec!["a-b/", "a/"], vec!["logs/"]]);
    assert!(house.buckets.iter().all(|bucket| bucket.requests().is_empty()));
}

#[tokio::test]
async fn a_listing_below_a_name_is_that_of_its_bucket() {
    let house = House::filled();
    assert_eq!(house.listed("a/", true, None).await, ["a/d/", "a/e"]);
    assert_eq!(house.listed("a/d/", true, None).await, ["a/d/x", "a/d/y"]);
    assert_eq!(house.listed("logs/", true, None).await, ["logs/", "logs/d/"]);
    assert_eq!(house.listed("logs/", true, Some("logs/")).await, ["logs/d/"]);
    assert_eq!(house.listed("a/", false, Some("a/d/x")).await, ["a/d/y", "a/e"]);
    assert_eq!(house.listed("other/", true, None).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_flat_listing_goes_from_bucket_to_bucket_in_the_order_of_keys() {
    let house = House::filled();
    let all = ["a-b/d/x", "a/d/x", "a/d/y", "a/e", "logs/", "logs/d/x"];
    assert_eq!(house.listed("", false, None).await, all);
    for max_keys in 1..4 {
        let request = ListRequest { max_keys: Some(max_keys), ..ListRequest::default() };
        assert_eq!(house.pages(request).await.concat(), all, "{max_keys} at a time");
    }
    // From any key on, whether it is there or not.
    for after in ["", "a", "a-b/", "a-b/d/x", "a-c", "a/", "a/d/xx", "a/e", "a0", "logs/", "logs/d/x", "z"] {
        let rest: Vec<&str> = all.into_iter().filter(|key| *key > after).collect();
        assert_eq!(house.listed("", false, Some(after)).await, rest, "after {after:?}");
    }
    assert_eq!(house.listed("a", false, None).await, &all[..4]);
}

#[tokio::test]
async fn what_goes_from_one_bucket_to_another_is_copied_by_the_server() {
    let House { buckets, united } = House::filled();
    united.copy(&copy("a/d/x", "logs/copy")).await.unwrap();
    assert_eq!(buckets[2].bytes("2026/copy").unwrap(), "d/x");
    united.copy(&copy("logs/d/x", "logs/again")).await.unwrap();
    assert_eq!(buckets[2].bytes("2026/again").unwrap(), "2026/d/x");
    let id = united.create_upload("a-b/parts", &PutOptions::default()).await.unwrap();
    let part = united.copy_part("a-b/parts", &id, 1, &copy("logs/d/x", "a-b/parts"), 0..4).await.unwrap();
    let uploads = |found: Vec<PendingUpload>| found.into_iter().map(|one| one.key).collect::<Vec<_>>();
    assert_eq!(uploads(united.list_uploads("").await.unwrap()), ["a-b/parts"]);
    assert_eq!(uploads(united.list_uploads("a/").await.unwrap()), Vec::<String>::new());
    united.complete_upload("a-b/parts", &id, &[part], &Condition::IfAbsent).await.unwrap();
    assert_eq!(buckets[1].bytes("parts").unwrap(), "2026");
    assert!(buckets.iter().all(|bucket| bucket.count("GetObject") == 0 && bucket.count("PutObject") == 0));
    let gone = united.copy(&copy("a/none", "logs/none")).await.unwrap_err();
    assert_eq!((gone.kind, gone.key.as_str()), (Kind::NotFound, "logs/none"));
}

#[tokio::test]
async fn a_batch_is_split_and_each_failure_is_of_its_key() {
    let House { buckets, united } = House::filled();
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    let all = |keys: &[&str]| keys.iter().map(|key| Deletion::of_any(*key)).collect::<Vec<_>>();
    let failed = united.delete_many(&all(&["a/d/x", "a/e", "logs/d/x", "x"])).await.unwrap();
    assert_eq!(failed.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["x"]);
    assert_eq!((buckets[0].keys(), buckets[2].keys()), (keys(&["d/y"]), keys(&["2025/old", "2026/"])));
    assert!(buckets.iter().all(|bucket| bucket.count("DeleteObjects") < 2));

    buckets[0].inject(Fault::once("DeleteObjects", Effect::Fail(Kind::AccessDenied)));
    buckets[2].inject(Fault::once(DELETED_KEY, Effect::Fail(Kind::Busy)).on_key("2026/"));
    let failed = united.delete_many(&all(&["a/d/y", "a-b/d/x", "logs/"])).await.unwrap();
    let mut failed: Vec<_> = failed.into_iter().map(|(key, error)| (key, error.key, error.kind)).collect();
    failed.sort_by(|one, other| one.0.cmp(&other.0));
    let told = |key: &str, kind| (key.to_owned(), key.to_owned(), kind);
    assert_eq!(failed, [told("a/d/y", Kind::AccessDenied), told("logs/", Kind::Busy)]);
    assert!(buckets[1].keys().is_empty());

    buckets[2].inject(Fault::once("DeleteObjects", Effect::Fail(Kind::Unsupported)));
    let unknown = united.delete_many(&all(&["a/d/y", "logs/"])).await.unwrap_err();
    assert_eq!(unknown.kind, Kind::Unsupported, "whoever asks deletes one by one then");

    let etag = buckets[0].insert("d/y", "theirs", Metadata::new());
    let named = |etag: &ETag| [Deletion { key: "a/d/y".to_owned(), etag: Some(etag.clone()) }];
    let failed = united.delete_many(&named(&ETag::new("other"))).await.unwrap();
    assert_eq!((failed[0].0.as_str(), failed[0].1.kind), ("a/d/y", Kind::Changed));
    assert_eq!(united.delete("a/d/y", Some(&ETag::new("other"))).await.unwrap_err().kind, Kind::Changed);
    assert!(united.delete_many(&named(&etag)).await.unwrap().is_empty());
    assert!(buckets[0].keys().is_empty());

    // Of one bucket a failure is a failure of the request, which is tried again as a whole.
    buckets[0].inject(Fault::once("DeleteObjects", Effect::Fail(Kind::AccessDenied)));
    assert_eq!(united.delete_many(&all(&["a/d/y"])).await.unwrap_err().key, "a/d/y");
}
