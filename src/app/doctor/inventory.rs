//! What lies in the bucket: keys without a path, uploads that nobody completes, what is kept and billed.

use std::collections::HashSet;
use std::future::Future;
use std::time::{Duration, SystemTime};

use super::rights::Caller;
use super::{Finding, Tell};
use crate::bucket::client::Connection;
use crate::bucket::s3::S3Bucket;
use crate::bucket::{Bucket, ListPage};
use crate::error::Kind;
use crate::key::{self, Oddity};

/// What is older is under way nowhere.
const OLD: Duration = Duration::from_hours(24);
/// For questions whose answer is no condition of a mount.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn examine(caller: &Caller<'_>, connection: &Connection, page: &ListPage, tell: Tell<'_>) {
    let source = caller.source;
    tell(keys(page, &source.prefix));
    if caller.config.no_sign_request {
        return;
    }
    if let Some(found) = uploads(caller, connection.bucket.as_ref()).await {
        tell(found);
    }
    let Ok((direct, _)) = connection.direct.at(&source.prefix) else { return };
    if let Some(found) = lifecycle(direct, caller).await {
        tell(found);
    }
    if soon(direct.keeps_versions()).await == Some(true) {
        let told = "kept: what is removed or overwritten stays as an old version, and is billed";
        tell(Finding::good("versions", told));
    }
    let asks_for_lock = caller.config.objects.lock() && !caller.config.read_only;
    if asks_for_lock && soon(direct.has_object_lock()).await == Some(false) {
        let told = "the bucket has none: what --object-lock and --legal-hold ask for is refused".to_owned();
        let advice = "switch it on for the bucket, or leave these options out".to_owned();
        tell(Finding::broken("object lock", Kind::Usage, told, Some(advice)));
    }
}

async fn soon<T>(asking: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::time::timeout(PATIENCE, asking).await.ok().flatten()
}

fn keys(page: &ListPage, prefix: &str) -> Finding {
    const ABOUT: &str = "keys";
    let paths = || page.objects.iter().filter_map(|object| Some((object, object.key.strip_prefix(prefix)?)));
    let directories: HashSet<&str> = paths().flat_map(|(_, path)| parents(path)).collect();
    let odd = paths().filter(|(object, path)| oddity(path, object.size, &directories).is_some());
    let odd: Vec<&str> = odd.map(|(object, _)| object.key.as_str()).collect();
    let seen = page.objects.len();
    if seen == 0 {
        return Finding::good(ABOUT, "none yet");
    }
    let first = if page.next.is_some() { "the first " } else { "" };
    let Some(example) = odd.first() else {
        return Finding::good(ABOUT, format!("each of {first}{seen} has a path"));
    };
    let told =
        format!("{} of {first}{seen} have no path and cannot be seen in a mount, such as {example:?}", odd.len());
    Finding::warning(ABOUT, told, "rename them with another tool; a mount leaves them as they are")
}

/// `a/b/c` → `a`, `a/b`.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

fn oddity(path: &str, size: u64, directories: &HashSet<&str>) -> Option<Oddity> {
    // The marker of the root.
    if path.is_empty() {
        return None;
    }
    let named = path.strip_suffix('/').unwrap_or(path);
    let wrong = named.split('/').find_map(key::oddity);
    let is_marker = named.len() < path.len();
    wrong
        .or((is_marker && size > 0).then_some(Oddity::MarkerWithBody))
        .or((!is_marker && directories.contains(path)).then_some(Oddity::Shadowed))
}

/// `None` where the server does not list them.
async fn uploads(caller: &Caller<'_>, bucket: &dyn Bucket) -> Option<Finding> {
    const ABOUT: &str = "incomplete uploads";
    let source = caller.source;
    let found = match bucket.list_uploads(&source.prefix).await {
        Ok(found) => found,
        Err(error) if error.kind == Kind::AccessDenied => {
            let told = "could not be listed: what nobody completes is billed";
            return Some(Finding::warning(ABOUT, told, caller.allow("s3:ListBucketMultipartUploads")));
        }
        Err(_) => return None,
    };
    let now = SystemTime::now();
    let is_old = |initiated: SystemTime| now.duration_since(initiated).is_ok_and(|age| age >= OLD);
    let old = found.iter().filter(|upload| is_old(upload.initiated)).count();
    if old == 0 {
        return Some(Finding::good(ABOUT, "none is older than a day"));
    }
    let told = format!("{old} older than a day: their parts are billed");
    Some(Finding::warning(ABOUT, told, format!("`s3mount gc {source} --delete` aborts them")))
}

async fn lifecycle(bucket: &S3Bucket, caller: &Caller<'_>) -> Option<Finding> {
    const ABOUT: &str = "lifecycle";
    let source = caller.source;
    if soon(bucket.aborts_incomplete_uploads(&source.prefix)).await? {
        return Some(Finding::good(ABOUT, "a rule aborts incomplete uploads"));
    }
    let advice = format!(
        "add a rule with AbortIncompleteMultipartUpload to the bucket's lifecycle, e.g. after 7 days; or run \
         `s3mount gc {source} --delete` now and then"
    );
    Some(Finding::warning(ABOUT, "no rule aborts incomplete uploads: their parts stay and are billed", advice))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::bucket::{ETag, Listed};

    fn page(keys: &[(&str, u64)]) -> ListPage {
        let listed = |(key, size): &(&str, u64)| Listed {
            key: (*key).to_owned(),
            etag: ETag::new("e"),
            size: *size,
            modified: SystemTime::UNIX_EPOCH,
            storage_class: None,
            checksums: Vec::new(),
        };
        ListPage { objects: keys.iter().map(listed).collect(), ..ListPage::default() }
    }

    #[test]
    fn keys_that_fit_are_no_matter() {
        let found = keys(&page(&[("p/", 0), ("p/a", 5), ("p/d/", 0), ("p/d/e", 1), ("p/d-", 1)]), "p/");
        assert_eq!((found.state, found.told.as_str()), (State::Good, "each of 5 has a path"));
    }

    #[test]
    fn keys_without_a_path_are_counted_with_an_example() {
        for odd in ["p//x", "p/../x", "p/a\0b", "p/d/", "p/s"] {
            let found = keys(&page(&[("p/good", 1), (odd, 7), ("p/s/below", 1)]), "p/");
            assert_eq!(found.state, State::Warning, "{odd:?}");
            assert!(found.told.starts_with("1 of 3") && found.told.contains(&format!("{odd:?}")), "{found:?}");
        }
    }
}
