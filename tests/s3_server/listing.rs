//! LIST: order, delimiters, pages.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::EncodingType;

use crate::stage::{BUCKET, Stage};

#[tokio::test]
async fn keys_come_in_binary_order_whatever_they_look_like() {
    let stage = Stage::new().await;
    let mut keys = ["b", "B", "a", "a!", "a/", "a/b", "a//c", "a0", "é", "z", "\u{ff5e}", "😀", "a/..", "/"];
    for key in keys {
        stage.put(key, "").await;
    }
    keys.sort_unstable();
    assert_eq!(stage.keys().await, keys);
}

#[tokio::test]
async fn delimited_pages_tell_each_entry_once() {
    let stage = Stage::new().await;
    for key in ["d/a", "d/b/1", "d/b/2", "d/b/3", "d/c", "d/e/1", "d/e/2", "e"] {
        stage.put(key, "x").await;
    }
    for page_keys in 1..7 {
        let list = stage.client.list_objects_v2().bucket(BUCKET).prefix("d/").delimiter("/").max_keys(page_keys);
        let pages: Vec<ListObjectsV2Output> = list.into_paginator().send().try_collect().await.unwrap();
        let keys = pages.iter().flat_map(ListObjectsV2Output::contents);
        let keys: Vec<_> = keys.filter_map(|object| object.key()).collect();
        let prefixes = pages.iter().flat_map(ListObjectsV2Output::common_prefixes);
        let prefixes: Vec<_> = prefixes.filter_map(|prefix| prefix.prefix()).collect();
        assert_eq!((keys, prefixes), (vec!["d/a", "d/c"], vec!["d/b/", "d/e/"]), "{page_keys} to a page");
    }
}

#[tokio::test]
async fn the_first_version_of_list_goes_on_behind_its_marker() {
    let stage = Stage::new().await;
    for key in ["a", "b/1", "b/2", "c"] {
        stage.put(key, "x").await;
    }
    let list = || stage.client.list_objects().bucket(BUCKET).delimiter("/");
    let first = list().max_keys(2).send().await.unwrap();
    assert_eq!((first.is_truncated(), first.next_marker()), (Some(true), Some("b/")));
    let rest = list().marker("b/").send().await.unwrap();
    assert_eq!(rest.contents()[0].key(), Some("c"));
    assert!(rest.common_prefixes().is_empty());
}

#[tokio::test]
async fn start_after_and_url_encoding() {
    let stage = Stage::new().await;
    for key in ["a", "b c+d\n", "ü"] {
        stage.put(key, "x").await;
    }
    let list = stage.client.list_objects_v2().bucket(BUCKET).start_after("a").encoding_type(EncodingType::Url);
    let list = list.send().await.unwrap();
    let keys: Vec<_> = list.contents().iter().filter_map(|object| object.key()).collect();
    assert_eq!(keys, ["b%20c%2Bd%0A", "%C3%BC"]);
    let nothing = stage.client.list_objects_v2().bucket(BUCKET).max_keys(0).send().await.unwrap();
    assert_eq!((nothing.contents().len(), nothing.is_truncated()), (0, Some(false)));
}
