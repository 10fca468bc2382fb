//! What the server really does, found out by effect: many answer 200 to headers they ignore.

use std::time::Duration;

use bytes::Bytes;
use futures::join;
use uuid::Uuid;

use super::{AppendRequest, Bucket, Condition, CopyRequest, Deletion, ETag, ListRequest, Listed, PutOptions, Result};
use crate::error::Kind;

/// What the objects hold.
const PROBED: &[u8] = b"s3mount";
/// The tag of no object: MD5 of nothing that anybody stores.
const NO_ETAG: &str = "00000000000000000000000000000000";
/// The probe has ended by then; what it did not find out stays unknown.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// What was found out. `None` = not tried; then the server is taken at its word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Capabilities {
    /// Whether PUT honours `If-None-Match: *` and `If-Match`, and a copy the tag that its source is to have.
    pub conditional_writes: Option<bool>,
    /// Whether DELETE honours the tag that an object is to have, each in a batch its own.
    pub conditional_deletes: Option<bool>,
    /// Whether LIST tells the checksum algorithm of an object that was put, and of a copy.
    pub list_checksums: Option<bool>,
    /// Whether a directory bucket appends; others are not asked.
    pub appends: Option<bool>,
}

impl Capabilities {
    /// What AWS itself does: nothing to try there.
    pub const AWS: Self = Self {
        conditional_writes: Some(true),
        conditional_deletes: Some(true),
        list_checksums: Some(true),
        appends: None,
    };

    /// What holds for two buckets: it is known of both, or one of them cannot do it.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let weaker = |one: Option<bool>, other: Option<bool>| match (one, other) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        };
        Self {
            conditional_writes: weaker(self.conditional_writes, other.conditional_writes),
            conditional_deletes: weaker(self.conditional_deletes, other.conditional_deletes),
            list_checksums: weaker(self.list_checksums, other.list_checksums),
            appends: weaker(self.appends, other.appends),
        }
    }
}

/// Tries things on two objects below `prefix` that are gone afterwards: eight small requests, and four more in a
/// directory bucket. What gives no proof, e.g. because writing is not allowed, stays unknown.
///
/// Done when a bucket outside AWS is mounted for writing; who mounts read-only writes nothing, not
/// even this.
pub async fn probe(bucket: &dyn Bucket, prefix: &str) -> Capabilities {
    let key = format!("{prefix}.s3mount-probe-{}", Uuid::new_v4().simple());
    let found = tokio::time::timeout(PROBE_DEADLINE, try_all(bucket, &key)).await;
    let removed = tokio::time::timeout(PROBE_DEADLINE, remove(bucket, &key)).await;
    // Where the first PUT was refused there is nothing to remove, and no permission for it either.
    let Ok(Some(mut found)) = found else { return Capabilities::default() };
    match removed {
        Ok(Ok(conditional_deletes)) => found.conditional_deletes = conditional_deletes,
        Ok(Err(error)) => tracing::warn!(key, %error, "the probe object could not be removed"),
        Err(_) => {}
    }
    found
}

/// Deletes both objects, of one at first a version that it never was: whether that was refused.
async fn remove(bucket: &dyn Bucket, key: &str) -> Result<Option<bool>> {
    let (key, copy) = (key.to_owned(), copy_of(key));
    let never = Deletion { key: key.clone(), etag: Some(ETag::new(NO_ETAG)) };
    let tried = bucket.delete_many(&[never, Deletion::of_any(&copy)]).await;
    let is_left = |key: &String| tried.as_ref().map_or(true, |failed| failed.iter().any(|(left, _)| left == key));
    for key in [&key, &copy].into_iter().filter(|key| is_left(key)) {
        bucket.delete(key, None).await?;
    }
    let Ok(failed) = &tried else { return Ok(None) };
    Ok(match failed.iter().find(|(left, _)| *left == key).map(|(_, error)| error.kind) {
        Some(Kind::Changed) => Some(true),
        None | Some(Kind::Unsupported | Kind::Refused) => Some(false),
        Some(_) => None,
    })
}

/// `None` when nothing could be written.
async fn try_all(bucket: &dyn Bucket, key: &str) -> Option<Capabilities> {
    let made = put(bucket, key, Condition::IfAbsent).await;
    let tag = match made {
        Ok(tag) => tag,
        // A key that nobody else knows cannot exist already: the condition is misread.
        Err(error) if error.kind == Kind::Changed => {
            return Some(Capabilities { conditional_writes: Some(false), ..Capabilities::default() });
        }
        Err(error) => {
            tracing::debug!(%error, "the server could not be probed");
            return None;
        }
    };
    let (to, replace) = (copy_of(key), Some(PutOptions::default()));
    let copy = CopyRequest { replace, ..CopyRequest::new(key.to_owned(), to) };
    let of_another_version = CopyRequest { from_etag: Some(ETag::new(NO_ETAG)), ..copy.clone() };
    // Right tag: must be taken (old Ceph answers 412). Existing key, and a copy of a version that is not
    // there: must be refused (garage, rclone and JuiceFS take the first).
    let (right_tag, existing, copied, other_copied) = join!(
        put(bucket, key, Condition::IfMatch(tag)),
        put(bucket, key, Condition::IfAbsent),
        bucket.copy(&copy),
        bucket.copy(&of_another_version)
    );
    let listing = ListRequest { prefix: key.to_owned(), max_keys: Some(2), ..ListRequest::default() };
    let list_checksums = match (&copied, bucket.list(&listing).await) {
        (Ok(_), Ok(page)) => Some(page.objects.len() == 2 && page.objects.iter().all(Listed::has_our_checksum)),
        _ => None,
    };
    let appends = match copied {
        Ok(tag) => appends_to(bucket, copy_of(key), tag).await,
        Err(_) => None,
    };
    let conditional_writes = match other_copied {
        Ok(_) => Some(false),
        Err(_) => honoured(&right_tag, &existing),
    };
    Some(Capabilities { conditional_writes, conditional_deletes: None, list_checksums, appends })
}

/// Success alone proves nothing: servers are known that have nothing but the new bytes then.
async fn appends_to(bucket: &dyn Bucket, key: String, etag: ETag) -> Option<bool> {
    let request = AppendRequest { key, etag, offset: PROBED.len() as u64, content_type: None };
    match bucket.append(&request, Bytes::from_static(PROBED)).await {
        Ok(tag) => {
            let is_longer = bucket.head(&request.key).await.ok()?.size == 2 * PROBED.len() as u64;
            Some(is_longer && restates(bucket, &request, &tag).await)
        }
        // Any other bucket, which was not asked.
        Err(error) if error.kind == Kind::Unsupported && error.http_status.is_none() => None,
        Err(_) => Some(false),
    }
}

/// Attributes follow an append in a copy onto itself, which must not take away what is appended meanwhile.
async fn restates(bucket: &dyn Bucket, appended: &AppendRequest, tag: &ETag) -> bool {
    let copied = |condition: &ETag| {
        let replace = Some(PutOptions { condition: Condition::IfMatch(condition.clone()), ..PutOptions::default() });
        let request = CopyRequest { replace, ..CopyRequest::new(appended.key.clone(), appended.key.clone()) };
        async move { bucket.copy(&request).await }
    };
    let with_older = copied(&appended.etag).await;
    with_older.is_err_and(|error| error.kind == Kind::Changed) && copied(tag).await.is_ok()
}

fn copy_of(key: &str) -> String {
    format!("{key}-copy")
}

/// What the two conditional writes prove, if anything.
fn honoured(right_tag: &Result<ETag>, existing: &Result<ETag>) -> Option<bool> {
    match (right_tag, existing) {
        (Ok(_), Err(error)) if error.kind == Kind::Changed => Some(true),
        (_, Ok(_)) => Some(false),
        (Err(error), _) if error.kind == Kind::Changed => Some(false),
        _ => None,
    }
}

async fn put(bucket: &dyn Bucket, key: &str, condition: Condition) -> Result<ETag> {
    // Not every server copies empty objects.
    bucket.put(key, Bytes::from_static(PROBED), &PutOptions { condition, ..PutOptions::default() }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::memory::{Effect, Fault, MemoryBucket};

    #[tokio::test]
    async fn a_server_that_honours_conditions_is_told_from_one_that_ignores_them() {
        for (ignores, found) in [(false, Some(true)), (true, Some(false))] {
            let bucket = MemoryBucket::new();
            if ignores {
                bucket.ignore_conditions();
            }
            let (conditional_writes, conditional_deletes) = (found, found);
            let expected = Capabilities { conditional_writes, conditional_deletes, ..Capabilities::AWS };
            assert_eq!(probe(&bucket, "p/").await, expected);
            assert!(bucket.keys().is_empty(), "the probe is left behind");
            // What was deleted although it was another version need not be deleted again.
            assert_eq!(bucket.requests().values().sum::<u64>(), if ignores { 7 } else { 8 });
        }
    }

    #[tokio::test]
    async fn a_server_that_copies_another_version_than_was_asked_for_is_found_out() {
        let bucket = MemoryBucket::new();
        bucket.ignore_tags_of_copied();
        assert_eq!(probe(&bucket, "").await.conditional_writes, Some(false));
        assert!(bucket.keys().is_empty(), "the probe is left behind");
    }

    #[tokio::test]
    async fn a_server_that_hides_checksums_or_loses_them_in_copies_is_found_out() {
        let bucket = MemoryBucket::new();
        bucket.hide_checksums();
        assert_eq!(probe(&bucket, "").await.list_checksums, Some(false));
        let bucket = MemoryBucket::new();
        bucket.lose_checksums_of_copies();
        assert_eq!(probe(&bucket, "").await.list_checksums, Some(false));
    }

    #[tokio::test]
    async fn a_server_without_conditions_of_deletions_is_found_out_and_nothing_is_left_there() {
        let bucket = MemoryBucket::new();
        bucket.refuse_tags_of_deleted();
        let found = probe(&bucket, "").await;
        assert_eq!((found.conditional_writes, found.conditional_deletes), (Some(true), Some(false)));
        assert!(bucket.keys().is_empty(), "the probe is left behind");
        // Without batches nothing is known of them.
        let bucket = MemoryBucket::new();
        bucket.inject(Fault::once("DeleteObjects", Effect::Fail(Kind::Unsupported)));
        assert_eq!(probe(&bucket, "").await.conditional_deletes, None);
        assert!(bucket.keys().is_empty(), "the probe is left behind");
    }

    #[test]
    fn of_several_buckets_the_weakest_decides() {
        let all = |able| Capabilities {
            conditional_writes: able,
            conditional_deletes: able,
            list_checksums: able,
            appends: able,
        };
        for (one, other, both) in [
            (Some(true), Some(true), Some(true)),
            (Some(true), Some(false), Some(false)),
            (None, Some(false), Some(false)),
            (None, Some(true), None),
        ] {
            assert_eq!(all(one).and(all(other)), all(both));
            assert_eq!(all(other).and(all(one)), all(both));
        }
    }

    #[tokio::test]
    async fn a_refused_probe_proves_nothing() {
        let bucket = MemoryBucket::new();
        bucket.inject(Fault::always(Effect::Fail(Kind::AccessDenied)));
        assert_eq!(probe(&bucket, "").await, Capabilities::default());
    }

    #[tokio::test]
    async fn a_server_that_refuses_the_right_tag_does_not_honour_conditions() {
        let bucket = MemoryBucket::new();
        bucket.inject(Fault::once("PutObject", Effect::Fail(Kind::Changed)).after(1));
        assert_eq!(probe(&bucket, "").await.conditional_writes, Some(false));
    }
}
