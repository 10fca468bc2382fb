//! What lost against another client is kept, and told of for as long as it is there.

use super::*;

#[tokio::test]
async fn a_kept_version_is_told_until_its_file_is_removed() {
    let house = house().await;
    house.write_file(ROOT, "f", b"ours").await;
    house.bucket.insert("f", "theirs", Metadata::new());
    assert_eq!(house.fs.sync(None).await.len(), 1);
    assert_eq!(kept_conflicts(&house), [b"ours"]);
    let (bucket, state) = crash(house, None).await;
    let house = house_on(bucket, state).await;
    let status = house.fs.status();
    assert_eq!(status.conflicts, 1, "of the mount before");
    for entry in std::fs::read_dir(&status.conflicts_dir).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(house.fs.status().conflicts, 0);
}
