//! What a bucket does by itself: end uploads, keep versions. Asked for by nobody who reads or writes
//! files, so these are no verbs of the trait.

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{BucketVersioningStatus, ExpirationStatus, LifecycleRule};

use super::S3Bucket;

/// What is said of a bucket without Object Lock, and by a server that knows nothing of it.
const NO_LOCK: [&str; 3] = ["ObjectLockConfigurationNotFoundError", "NotImplemented", "MethodNotAllowed"];

impl S3Bucket {
    /// Whether a lifecycle rule aborts incomplete uploads below `prefix`; `None` where the caller may
    /// not ask, or the server has no such thing.
    pub async fn aborts_incomplete_uploads(&self, prefix: &str) -> Option<bool> {
        match self.client.get_bucket_lifecycle_configuration().bucket(&self.name).send().await {
            Ok(found) => Some(found.rules().iter().any(|rule| aborts(rule, prefix))),
            Err(error) => (error.code() == Some("NoSuchLifecycleConfiguration")).then_some(false),
        }
    }

    /// Whether what is deleted or overwritten stays as an old version; `None` as above.
    pub async fn keeps_versions(&self) -> Option<bool> {
        if self.is_directory {
            return Some(false);
        }
        let found = self.client.get_bucket_versioning().bucket(&self.name).send().await.ok()?;
        Some(found.status == Some(BucketVersioningStatus::Enabled))
    }

    /// Whether versions can be locked here; `None` as above.
    pub async fn has_object_lock(&self) -> Option<bool> {
        if self.is_directory {
            return Some(false);
        }
        match self.client.get_object_lock_configuration().bucket(&self.name).send().await {
            Ok(_) => Some(true),
            Err(error) => error.code().is_some_and(|code| NO_LOCK.contains(&code)).then_some(false),
        }
    }
}

fn aborts(rule: &LifecycleRule, prefix: &str) -> bool {
    let filter = rule.filter();
    // Rules of before filters have their prefix beside it.
    #[expect(deprecated, reason = "such rules are still answered")]
    let old = rule.prefix();
    let both = filter.and_then(|filter| filter.and()).and_then(|both| both.prefix());
    let below = filter.and_then(|filter| filter.prefix()).or(both).or(old).unwrap_or_default();
    rule.status() == &ExpirationStatus::Enabled
        && rule.abort_incomplete_multipart_upload().is_some()
        && prefix.starts_with(below)
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{AbortIncompleteMultipartUpload, LifecycleRuleFilter};

    use super::*;

    fn rule(status: ExpirationStatus, below: &str) -> LifecycleRule {
        LifecycleRule::builder()
            .status(status)
            .filter(LifecycleRuleFilter::builder().prefix(below).build())
            .abort_incomplete_multipart_upload(
                AbortIncompleteMultipartUpload::builder().days_after_initiation(7).build(),
            )
            .build()
            .expect("a status is all it needs")
    }

    #[test]
    fn a_rule_counts_when_it_is_enabled_and_covers_the_prefix() {
        assert!(aborts(&rule(ExpirationStatus::Enabled, ""), "photos/"));
        assert!(aborts(&rule(ExpirationStatus::Enabled, "pho"), "photos/"));
        assert!(!aborts(&rule(ExpirationStatus::Enabled, "logs/"), "photos/"));
        assert!(!aborts(&rule(ExpirationStatus::Enabled, "photos/2024/"), "photos/"));
        assert!(!aborts(&rule(ExpirationStatus::Disabled, ""), "photos/"));
        let expires = LifecycleRule::builder().status(ExpirationStatus::Enabled).build().unwrap();
        assert!(!aborts(&expires, ""));
    }
}
