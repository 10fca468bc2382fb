//! What the caller may do, found out by doing it with an object that is gone afterwards.

use bytes::Bytes;
use uuid::Uuid;

use super::{Finding, Tell};
use crate::bucket::{Bucket, CopyRequest, Deletion, ETag, Error, ListPage, Listed, PutOptions, StorageClass};
use crate::config::{Config, Source};
use crate::error::Kind;

/// What the object holds. Not every server copies empty ones.
const BODY: &[u8] = b"s3mount doctor";

/// Who asks, and for what.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) config: &'a Config,
    pub(super) source: &'a Source,
    pub(super) region: &'a str,
}

impl Caller<'_> {
    /// A request that failed: what does not work then, why, and what to do.
    pub(super) fn failed(&self, about: &'static str, error: &Error, action: &str, lost: &str) -> Finding {
        let lacks_right = error.kind == Kind::AccessDenied && !is_about_credentials(error);
        let advice = if lacks_right { Some(self.allow(action)) } else { error.hint().map(str::to_owned) };
        Finding::broken(about, error.kind, format!("{lost}: {}", error.cause), advice)
    }

    /// The advice to allow an action on what is mounted.
    pub(super) fn allow(&self, action: &str) -> String {
        if self.source.is_directory_bucket() {
            // One right for all that is done within a session.
            return "allow s3express:CreateSession on the bucket to the caller, in its IAM policy or the bucket's"
                .into();
        }
        format!("allow {action} on {} to the caller, in its IAM policy or the bucket's", self.arn(action))
    }

    /// What a policy calls the bucket, or the objects of the mount (AWS, "Amazon S3 resources").
    fn arn(&self, action: &str) -> String {
        let (bucket, prefix) = (&self.source.bucket, &self.source.prefix);
        let is_of_bucket = action.contains("Bucket");
        let partition = match self.region {
            china if china.starts_with("cn-") => "aws-cn",
            government if government.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        match (bucket.starts_with("arn:"), is_of_bucket) {
            (true, true) => bucket.clone(),
            (true, false) => format!("{bucket}/object/{prefix}*"),
            (false, true) => format!("arn:{partition}:s3:::{bucket}"),
            (false, false) => format!("arn:{partition}:s3:::{bucket}/{prefix}*"),
        }
    }

    /// A PUT takes more than one right where the mount asks for more than bytes.
    fn put_actions(&self) -> String {
        let objects = &self.config.objects;
        let extras = [
            (!objects.tags.is_empty(), ", s3:PutObjectTagging"),
            (objects.acl.is_some(), ", s3:PutObjectAcl"),
            (objects.object_lock.is_some(), ", s3:PutObjectRetention"),
            (objects.legal_hold, ", s3:PutObjectLegalHold"),
        ];
        let extras = extras.into_iter().filter(|(is_needed, _)| *is_needed).map(|(_, action)| action);
        ["s3:PutObject"].into_iter().chain(extras).collect()
    }
}

fn is_about_credentials(error: &Error) -> bool {
    let codes = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"];
    error.code().is_some_and(|code| codes.contains(&code))
}

/// Reads a byte of some object; `ours` is one that is there in any case.
pub(super) async fn reading(
    caller: &Caller<'_>,
    bucket: &dyn Bucket,
    page: &ListPage,
    ours: Option<&str>,
    tell: Tell<'_>,
) {
    const ABOUT: &str = "read";
    let is_archived = |object: &Listed| object.storage_class.as_ref().is_some_and(StorageClass::is_archive);
    let some = page.objects.iter().find(|object| object.size > 0 && !is_archived(object));
    let answer = match (some.map(|object| object.key.as_str()).or(ours), page.objects.first()) {
        (Some(key), _) => bucket.get(key, Some(0..1), None).await.map(|fetched| fetched.info),
        (None, Some(empty)) => bucket.head(&empty.key).await,
        (None, None) => return,
    };
    match answer {
        Ok(_) => tell(Finding::good(ABOUT, "allowed")),
        // Removed, or moved to an archive, since it was listed.
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::Archived) => {}
        Err(error) => {
            let lost = format!("{} cannot be read", error.key);
            tell(caller.failed(ABOUT, &error, "s3:GetObject", &lost));
        }
    }
}

/// Writes, reads, copies, begins an upload, and removes what was written. Whether it could be removed.
pub(super) async fn writing(caller: &Caller<'_>, bucket: &dyn Bucket, page: &ListPage, tell: Tell<'_>) -> bool {
    let key = format!("{}.s3mount-doctor-{}", caller.source.prefix, Uuid::new_v4().simple());
    let made = bucket.put(&key, Bytes::from_static(BODY), &PutOptions::default()).await;
    reading(caller, bucket, page, made.is_ok().then_some(key.as_str()), tell).await;
    if let Err(error) = &made {
        let found = caller.failed("write", error, &caller.put_actions(), "no file can be stored");
        let advice = found.advice.map(|advice| format!("{advice}; or mount with --read-only"));
        tell(Finding { advice, ..found });
        return false;
    }
    tell(Finding::good("write", "allowed"));
    let copy = format!("{key}-copy");
    let copied = copying(bucket, &key, &copy).await;
    tell(match &copied {
        Ok(_) => Finding::good("copy", "allowed"),
        Err(error) => {
            let actions = format!("s3:GetObject, {}", caller.put_actions());
            caller.failed("copy", error, &actions, "nothing can be renamed (mv)")
        }
    });
    multipart(caller, bucket, &key, tell).await;
    // The copy may have arrived although its answer did not: deleting what is not there succeeds.
    let made = [(key, made), (copy, copied)].map(|(key, made)| Deletion { key, etag: made.ok() });
    removing(caller, bucket, &made, tell).await
}

async fn copying(bucket: &dyn Bucket, from: &str, to: &str) -> Result<ETag, Error> {
    let (from, to) = (from.to_owned(), to.to_owned());
    let request = CopyRequest { replace: Some(PutOptions::default()), ..CopyRequest::new(from, to) };
    bucket.copy(&request).await
}

/// Begins an upload, copies a part into it, and aborts it.
async fn multipart(caller: &Caller<'_>, bucket: &dyn Bucket, key: &str, tell: Tell<'_>) {
    const ABOUT: &str = "multipart upload";
    let id = match bucket.create_upload(key, &PutOptions::default()).await {
        Ok(id) => id,
        Err(error) => {
            let lost = "no file above 16 MiB can be stored";
            return tell(caller.failed(ABOUT, &error, &caller.put_actions(), lost));
        }
    };
    let (from, to) = (key.to_owned(), key.to_owned());
    let source = CopyRequest::new(from, to);
    let copied = bucket.copy_part(key, &id, 1, &source, 0..BODY.len() as u64).await;
    let aborted = bucket.abort_upload(key, &id).await;
    match aborted {
        Err(error) if error.kind != Kind::NoSuchUpload => {
            let lost = format!("parts of broken-off uploads stay and are billed; an upload of {key} was left over");
            tell(caller.failed(ABOUT, &error, "s3:AbortMultipartUpload", &lost));
        }
        _ => tell(match copied {
            Ok(_) => Finding::good(ABOUT, "allowed"),
            Err(error) => Finding::warning(
                ABOUT,
                format!("the server copies no parts, so a change in a large file sends all of it: {}", error.cause),
                "nothing is lost; a newer server may do it",
            ),
        }),
    }
}

/// Removes in a batch, as a mount does, and one by one where the server has no batches.
async fn removing(caller: &Caller<'_>, bucket: &dyn Bucket, made: &[Deletion], tell: Tell<'_>) -> bool {
    const ABOUT: &str = "delete";
    let removed = match bucket.delete_many(made).await {
        Ok(failed) => failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error)),
        Err(error) if matches!(error.kind, Kind::Unsupported | Kind::Refused) => singly(bucket, made).await,
        Err(error) => Err(error),
    };
    let Err(error) = removed else {
        tell(Finding::good(ABOUT, "allowed"));
        return true;
    };
    let lost = format!("nothing can be removed or renamed (rm, mv); {} was left over", made[0].key);
    tell(caller.failed(ABOUT, &error, "s3:DeleteObject", &lost));
    false
}

async fn singly(bucket: &dyn Bucket, made: &[Deletion]) -> Result<(), Error> {
    for Deletion { key, etag } in made {
        bucket.delete(key, etag.as_ref()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::bucket::ListRequest;
    use crate::bucket::memory::{Effect, Fault, MemoryBucket};
    use crate::config::Options;

    fn config(source: &str) -> Config {
        let options = Options { cache_dir: Some("/c".into()), state_dir: Some("/s".into()), ..Options::default() };
        Config::of_bucket(source, options, None).unwrap()
    }

    async fn examined(bucket: &MemoryBucket) -> Vec<Finding> {
        let (config, source) = (config("b/p"), "b/p".parse().unwrap());
        let caller = Caller { config: &config, source: &source, region: "eu-west-1" };
        let page = bucket.list(&ListRequest::default()).await.unwrap();
        let mut findings = Vec::new();
        writing(&caller, bucket, &page, &mut |found| findings.push(found)).await;
        findings
    }

    #[tokio::test]
    async fn each_right_is_tried_and_nothing_is_left() {
        for wants_versions_named in [false, true] {
            let bucket = MemoryBucket::new();
            if wants_versions_named {
                bucket.insist_on_tags_of_deleted();
            }
            let findings = examined(&bucket).await;
            assert_eq!(
                findings.iter().map(|one| one.about).collect::<Vec<_>>(),
                ["read", "write", "copy", "multipart upload", "delete"]
            );
            assert!(findings.iter().all(|one| one.state == State::Good), "{findings:?}");
            assert!(bucket.keys().is_empty() && bucket.list_uploads("").await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn each_refusal_names_the_right_that_is_lacking() {
        let cases = [
            ("GetObject", "read", "s3:GetObject on arn:aws:s3:::b/p/*"),
            ("PutObject", "write", "s3:PutObject on arn:aws:s3:::b/p/*"),
            ("CopyObject", "copy", "s3:GetObject, s3:PutObject on arn:aws:s3:::b/p/*"),
            ("CreateMultipartUpload", "multipart upload", "s3:PutObject on"),
            ("AbortMultipartUpload", "multipart upload", "s3:AbortMultipartUpload on arn:aws:s3:::b/p/*"),
            ("DeleteObjects", "delete", "s3:DeleteObject on arn:aws:s3:::b/p/*"),
        ];
        for (operation, about, advice) in cases {
            let bucket = MemoryBucket::new();
            bucket.inject(Fault::once(operation, Effect::Fail(Kind::AccessDenied)));
            let findings = examined(&bucket).await;
            let broken: Vec<_> = findings.iter().filter(|one| one.state != State::Good).collect();
            let [one] = broken[..] else { panic!("{operation}: {findings:?}") };
            assert_eq!((one.about, one.state), (about, State::Broken(Kind::AccessDenied)), "{operation}");
            assert!(one.advice.as_ref().unwrap().contains(advice), "{operation}: {one:?}");
        }
    }

    #[test]
    fn resources_are_named_as_policies_name_them() {
        let arn = |source: &str, region: &str, action: &str| {
            let (config, source) = (config(source), source.parse().unwrap());
            Caller { config: &config, source: &source, region }.arn(action)
        };
        assert_eq!(arn("b", "", "s3:ListBucket"), "arn:aws:s3:::b");
        assert_eq!(arn("b", "cn-north-1", "s3:GetObject"), "arn:aws-cn:s3:::b/*");
        assert_eq!(arn("b/p", "us-gov-west-1", "s3:PutObject"), "arn:aws-us-gov:s3:::b/p/*");
        let point = "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine";
        assert_eq!(arn(&format!("{point}/p"), "eu-west-1", "s3:GetObject"), format!("{point}/object/p/*"));
        assert_eq!(arn(point, "eu-west-1", "s3:ListBucket"), point);
    }
}
