//! What a directory bucket, of S3 Express One Zone, does not have (AWS: "Differences for directory buckets"): told
//! before anything is sent there.

use super::{Config, Error};

/// # Errors
/// The first option that the bucket cannot fulfil, and why.
pub(super) fn check(config: &Config) -> Result<(), Error> {
    if let Some((_, point, _)) = config.each().find(|(_, source, _)| source.bucket.ends_with("--xa-s3")) {
        let told = format!("{point} is an access point of a directory bucket, which is not supported");
        return Err(Error::new(told, "name the bucket itself: its name ends in --x-s3"));
    }
    let directory_buckets = config.each().filter(|(_, source, _)| source.is_directory_bucket());
    let mut refused = directory_buckets.filter_map(|(_, bucket, own)| {
        let (_, option, why) = refusals(own).into_iter().find(|(is_asked, ..)| *is_asked)?;
        Some((bucket, option, why))
    });
    match refused.next() {
        None => Ok(()),
        Some((bucket, option, why)) => Err(Error::new(
            format!("{option}: {bucket} is a directory bucket (S3 Express One Zone), which {why}"),
            format!("leave {option} out"),
        )),
    }
}

/// Whether it is asked for, what it is called, and why it cannot be.
fn refusals(config: &Config) -> [(bool, &'static str, &'static str); 13] {
    let objects = &config.objects;
    let other_class = objects.storage_classes.iter().any(|(_, class)| class != "EXPRESS_ONEZONE");
    let by_path = config.force_path_style == Some(true) && config.endpoint_url.is_none();
    [
        (objects.object_lock.is_some(), "--object-lock", "keeps no versions that could be locked"),
        (objects.legal_hold, "--legal-hold", "keeps no versions that could be held"),
        (config.show_versions, "--show-versions", "keeps no versions"),
        (objects.acl.is_some(), "--acl", "has no ACLs"),
        (!objects.tags.is_empty(), "--tags", "has no tags of objects"),
        (objects.sse_c_key_file.is_some(), "--sse-c-key-file", "takes no keys of its clients"),
        (objects.sse.is_some(), "--sse", "encrypts as its own setting says"),
        (other_class, "--storage-class", "has no class but EXPRESS_ONEZONE"),
        (objects.requester_pays, "--requester-pays", "its owner pays for"),
        (config.no_sign_request, "--no-sign-request", "is never public"),
        (config.accelerate, "--accelerate", "has no such endpoint"),
        (config.dual_stack == Some(true), "--dual-stack", "has no such endpoint"),
        (by_path, "--force-path-style", "is known by its host name alone"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::buckets::BucketOptions;
    use crate::config::{Options, Sse};

    const BUCKET: &str = "fast--use1-az4--x-s3";

    fn said(options: Options) -> Result<Config, Error> {
        let options = Options { cache_dir: Some("/c".into()), state_dir: Some("/s".into()), ..options };
        Config::of_bucket(BUCKET, options, None)
    }

    #[test]
    fn what_a_directory_bucket_lacks_is_told_with_its_option_before_anything_is_sent() {
        let said_class = |class: &str| Some(class.parse().unwrap());
        let table = [
            ("--object-lock", Options { object_lock: Some("GOVERNANCE:1d".into()), ..Options::default() }),
            ("--legal-hold", Options { legal_hold: Some(true), ..Options::default() }),
            ("--show-versions", Options { show_versions: Some(true), ..Options::default() }),
            ("--acl", Options { acl: Some("private".into()), ..Options::default() }),
            ("--tags", Options { tags: Some("a=b".parse().unwrap()), ..Options::default() }),
            ("--sse-c-key-file", Options { sse_c_key_file: Some("/key".into()), ..Options::default() }),
            ("--sse", Options { sse: Some(Sse::Kms), ..Options::default() }),
            ("--storage-class", Options { storage_class: said_class("STANDARD_IA"), ..Options::default() }),
            ("--requester-pays", Options { requester_pays: Some(true), ..Options::default() }),
            ("--no-sign-request", Options { no_sign_request: Some(true), ..Options::default() }),
            ("--accelerate", Options { accelerate: Some(true), ..Options::default() }),
            ("--dual-stack", Options { dual_stack: Some(true), ..Options::default() }),
            ("--force-path-style", Options { force_path_style: Some(true), ..Options::default() }),
        ];
        for (option, options) in table {
            let error = said(options.clone()).unwrap_err();
            let begin = format!("{option}: s3://{BUCKET} is a directory bucket");
            assert!(error.message.starts_with(&begin), "{}", error.message);
            assert_eq!(error.hint, Some(format!("leave {option} out")));
            let options = Options { cache_dir: Some("/c".into()), state_dir: Some("/s".into()), ..options };
            assert!(Config::of_bucket("fast", options, None).is_ok(), "{option} is for other buckets");
        }
    }

    #[test]
    fn what_it_has_is_taken_and_one_of_several_is_enough() {
        let fips =
            Options { fips: Some(true), expected_bucket_owner: Some("111122223333".into()), ..Options::default() };
        assert!(said(fips).is_ok());
        let class = Some("EXPRESS_ONEZONE".parse().unwrap());
        assert!(said(Options { storage_class: class, ..Options::default() }).is_ok());
        let acl = || Some("private".to_owned());
        let several = |of_mount: Option<String>, of_other: Option<String>| {
            let named =
                |bucket: &str, acl| BucketOptions(Options { bucket: Some(bucket.into()), acl, ..Options::default() });
            let buckets = [("a".to_owned(), named("plain", of_other)), ("b".to_owned(), named(BUCKET, None))];
            let options = Options {
                buckets: Some(buckets.into()),
                mountpoint: Some("/m".into()),
                acl: of_mount,
                cache_dir: Some("/c".into()),
                state_dir: Some("/s".into()),
                ..Options::default()
            };
            Config::resolve(options, None)
        };
        assert!(several(acl(), None).unwrap_err().message.starts_with("b: --acl: "));
        assert!(several(None, acl()).is_ok());
        let point = Config::of_bucket("point--use1-az4--xa-s3", Options::default(), None).unwrap_err();
        assert!(point.message.contains("access point of a directory bucket"), "{}", point.message);
    }
}
