//! `.versions`, as a bucket has it.

use futures::StreamExt;

use super::*;

async fn place() -> Place {
    Place::with(|settings| ConnectSettings { show_versions: true, ..settings }).await
}

fn of(prefix: &str) -> ListRequest {
    ListRequest { prefix: prefix.to_owned(), delimited: true, ..ListRequest::default() }
}

#[tokio::test]
async fn names_of_many_pages_come_in_one_and_in_order() {
    let place = place().await;
    let names = (0..1_010).map(|number| format!("d/{number:04}")).chain(["d/0004.x".into(), "d/0004/y".into()]);
    let put = |name: String| {
        let place = &place;
        async move { drop(place.put(&name, "x").await) }
    };
    futures::stream::iter(names).for_each_concurrent(32, put).await;
    place.fault("ListObjectVersions", FaultKind::Status(503), 1);
    let page = place.list(of("d/.versions/")).await;
    assert_eq!((page.prefixes.len(), page.next.as_deref()), (1_011, None), "the file and the directory are one name");
    assert!(page.prefixes.is_sorted() && page.prefixes.contains(&place.key("d/.versions/0004.x/")));
    let marker: Vec<_> = page.objects.iter().map(|object| object.key.clone()).collect();
    assert_eq!(marker, [place.key("d/.versions/")]);
    let start_after = Some(place.key("d/.versions/1008/"));
    let rest = place.list(ListRequest { start_after, ..of("d/.versions/") }).await;
    assert_eq!((rest.objects.len(), rest.prefixes), (0, vec![place.key("d/.versions/1009/")]));
    let both = place.list(of("d/.versions/0004/")).await;
    assert_eq!((both.objects.len(), both.prefixes), (1, vec![place.key("d/.versions/0004/y/")]));
    let flat = ListRequest { delimited: false, ..of(&place.key("d/.versions/")) };
    assert_eq!(place.bucket().list(&flat).await.unwrap_err().kind, Kind::ReadOnly);
    assert_eq!(place.list(of("d/")).await.prefixes, [place.key("d/0004/")], "no listing tells of it");
}

#[tokio::test]
async fn a_version_is_read_and_nothing_is_written() {
    let place = place().await;
    let etag = place.put("d/f", "bytes").await;
    let listed = place.list(of("d/.versions/f/")).await.objects;
    let (key, bucket) = (listed[0].key.as_str(), place.bucket());
    assert_eq!((&listed[0].etag, listed[0].size), (&etag, 5));
    assert_eq!(bucket.head(key).await.unwrap().etag, etag);
    let read = bucket.get(key, Some(1..3), Some(&etag)).await.unwrap();
    assert_eq!((read.bytes, read.info.size), (Bytes::from_static(b"yt"), 5));
    let other = ETag::new("other");
    assert_eq!(bucket.get(key, None, Some(&other)).await.unwrap_err().kind, Kind::Changed);
    for missing in [format!("{key}x"), place.key("d/.versions/f"), place.key("d/.versions/f/g")] {
        assert_eq!(bucket.get(&missing, None, None).await.unwrap_err().kind, Kind::NotFound, "{missing}");
    }
    let (from, to) = (place.key("d/f"), key.to_owned());
    let copy = CopyRequest::new(from, to);
    let none = PutOptions::default();
    let refused = [
        bucket.put(key, Bytes::new(), &none).await.unwrap_err(),
        bucket.delete(key, None).await.unwrap_err(),
        bucket.copy(&copy).await.unwrap_err(),
        bucket.create_upload(key, &none).await.unwrap_err(),
    ];
    assert!(refused.iter().all(|error| error.kind == Kind::ReadOnly), "{refused:?}");
}
