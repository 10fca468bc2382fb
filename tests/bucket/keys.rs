//! Keys of every kind, and listings.

use super::*;

const ODD_KEYS: [&str; 24] = [
    "plain",
    "a b",
    "a+b",
    "a%20b",
    "100%",
    "ü/ö",
    "日本",
    "a?b&c=d#e",
    "a\\b",
    "'\"<>`",
    "tab\there",
    "line\nbreak",
    "return\rhere",
    "bell\u{7}",
    "one\u{1}",
    "del\u{7f}",
    "..",
    "a/../b",
    "a//b",
    "/lead",
    "trail/",
    "dot/./x",
    "*~!()",
    "\u{1f600}",
];

#[tokio::test]
async fn odd_keys_are_written_listed_copied_and_deleted_byte_for_byte() {
    let place = Place::new().await;
    for key in ODD_KEYS {
        place.put(key, key).await;
    }
    let listed = place.list(ListRequest::default()).await;
    let names: Vec<_> = listed.objects.iter().map(|object| &object.key[place.prefix.len()..]).collect();
    let sorted: BTreeSet<&str> = ODD_KEYS.into_iter().collect();
    assert_eq!(names, sorted.into_iter().collect::<Vec<_>>(), "not the keys, or not in byte order");
    for key in ODD_KEYS {
        let copy = CopyRequest::new(place.key(key), place.key(&format!("copy/{key}")));
        place.bucket().copy(&copy).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(place.bucket().get(&copy.to, None, None).await.unwrap().bytes, key);
    }
    let all = place.list(ListRequest::default()).await.objects.into_iter().map(|object| object.key);
    let failed = place.bucket().delete_many(&all.map(Deletion::of_any).collect::<Vec<_>>()).await.unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(place.list(ListRequest::default()).await.objects, []);
}

#[tokio::test]
async fn the_longest_key_can_be_used() {
    let place = Place::new().await;
    let name = "k".repeat(1024 - place.prefix.len());
    place.put(&name, "x").await;
    assert_eq!(place.list(ListRequest::default()).await.objects[0].key, place.key(&name));
}

#[tokio::test]
async fn listings_come_in_pages_and_groups() {
    let place = Place::new().await;
    for key in ["a", "d/", "d/1", "d/2", "d0", "e/x/y", "z"] {
        place.put(key, "").await;
    }
    let mut request = ListRequest { delimited: true, max_keys: Some(2), ..ListRequest::default() };
    let mut names = Vec::new();
    loop {
        let page = place.list(request.clone()).await;
        assert!(page.objects.len() + page.prefixes.len() <= 2);
        names.extend(page.objects.into_iter().map(|object| object.key));
        names.extend(page.prefixes);
        request.token = page.next;
        if request.token.is_none() {
            break;
        }
    }
    names.sort();
    assert_eq!(names, ["a", "d/", "d0", "e/", "z"].map(|name| place.key(name)));
    let after = ListRequest { start_after: Some(place.key("d0")), ..ListRequest::default() };
    let after = place.list(after).await.objects.into_iter().map(|object| object.key).collect::<Vec<_>>();
    assert_eq!(after, ["e/x/y", "z"].map(|name| place.key(name)));
}

#[tokio::test]
async fn a_listing_tells_what_head_tells() {
    let place = Place::new().await;
    place.put("object", "12345").await;
    let page = place.list(ListRequest::default()).await;
    let info = place.bucket().head(&place.key("object")).await.unwrap();
    let listed = &page.objects[0];
    assert_eq!((&listed.etag, listed.size, listed.modified), (&info.etag, info.size, info.modified));
}
