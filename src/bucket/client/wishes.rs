//! What the user wants of requests and objects, beyond where the bucket is: as headers that S3 knows.
//!
//! They go into the requests in one place, before these are signed. The SDK has a setter for each of
//! them in each operation; here the table says which operation takes which.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_runtime_api::client::orchestrator::Metadata as Operation;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::bucket::StorageClass;

/// Requests that make an object, and say what it is to carry.
const MAKE: [&str; 3] = ["PutObject", "CopyObject", "CreateMultipartUpload"];
/// Requests that need the object's key, where the user keeps that (AWS: "Using server-side encryption
/// with customer-provided keys").
const NEED_KEY: [&str; 8] = [
    "PutObject",
    "CopyObject",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "GetObject",
    "HeadObject",
];
/// Requests that read another object, whose key and owner have headers of their own.
const COPY: [&str; 2] = ["CopyObject", "UploadPartCopy"];
/// Headers of Object Lock begin so.
const LOCK: &str = "x-amz-object-lock-";
/// Bytes of a customer's key: AES-256.
const KEY_BYTES: usize = 32;

/// What to ask for.
#[derive(Clone, Default)]
pub struct Wishes {
    pub requester_pays: bool,
    pub expected_bucket_owner: Option<String>,
    pub encryption: Option<Encryption>,
    /// A canned ACL.
    pub acl: Option<String>,
    pub tags: Vec<(String, String)>,
    /// How S3 keeps each version from being deleted.
    pub retention: Option<Retention>,
    /// S3 keeps each version until the hold is taken off it.
    pub legal_hold: bool,
    /// The class for a new object by its key; `None` leaves it to the bucket.
    pub storage_class: Option<ClassOfKey>,
}

/// Chooses a storage class by a key.
#[derive(Clone)]
pub struct ClassOfKey(pub Arc<ChooseClass>);

/// Names a class for a key, or leaves it to the bucket.
pub type ChooseClass = dyn Fn(&str) -> Option<StorageClass> + Send + Sync;

impl fmt::Debug for ClassOfKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClassOfKey(…)")
    }
}

impl fmt::Debug for Wishes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wishes").field("requester_pays", &self.requester_pays).finish_non_exhaustive()
    }
}

impl Wishes {
    /// Whether what is written is to be locked (AWS: "Locking objects with Object Lock").
    #[must_use]
    pub fn lock(&self) -> bool {
        self.legal_hold || self.retention.is_some()
    }

    /// The same for what is deleted again at once: a lock would keep it.
    #[must_use]
    pub fn without_lock(self) -> Self {
        Self { retention: None, legal_hold: false, ..self }
    }
}

/// A version cannot be deleted before a time has passed since it was written.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// The value of `x-amz-object-lock-mode`.
    pub mode: &'static str,
    pub span: Duration,
}

/// Who has the key that S3 encrypts an object with.
#[derive(Clone)]
pub enum Encryption {
    /// S3 or AWS KMS: the value of `x-amz-server-side-encryption`, and which key of KMS.
    Server { header: &'static str, kms_key_id: Option<String> },
    /// The user, in this file: 32 bytes or their base64.
    Customer(PathBuf),
}

/// Adds headers to requests.
#[derive(Clone)]
pub(super) struct AskedHeaders {
    table: Arc<[Asked]>,
    /// What is made is locked for so long, from the moment of its request.
    locked_for: Option<Duration>,
}

/// For which operations, and which headers.
type Asked = (Operations, Vec<(&'static str, String)>);

#[derive(Clone, Copy)]
enum Operations {
    All,
    These(&'static [&'static str]),
}

impl fmt::Debug for AskedHeaders {
    /// Without values: a key is among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AskedHeaders(…)")
    }
}

impl AskedHeaders {
    /// # Errors
    /// In a sentence, when the key's file cannot be read or holds no key.
    pub(super) fn of(wishes: &Wishes) -> Result<Self, String> {
        let mut table = Vec::new();
        if wishes.requester_pays {
            table.push((Operations::All, vec![("x-amz-request-payer", "requester".to_owned())]));
        }
        if let Some(owner) = &wishes.expected_bucket_owner {
            table.push((Operations::All, vec![("x-amz-expected-bucket-owner", owner.clone())]));
            let source = vec![("x-amz-source-expected-bucket-owner", owner.clone())];
            table.push((Operations::These(&COPY), source));
        }
        let mut make = Vec::new();
        match &wishes.encryption {
            None => {}
            Some(Encryption::Server { header, kms_key_id }) => {
                make.push(("x-amz-server-side-encryption", (*header).to_owned()));
                let key = kms_key_id.clone().map(|key| ("x-amz-server-side-encryption-aws-kms-key-id", key));
                make.extend(key);
            }
            Some(Encryption::Customer(file)) => table.extend(customer_key(file)?),
        }
        make.extend(wishes.acl.clone().map(|acl| ("x-amz-acl", acl)));
        if !wishes.tags.is_empty() {
            make.push(("x-amz-tagging", tagging(&wishes.tags)));
        }
        table.push((Operations::These(&MAKE), make));
        let hold = wishes.legal_hold.then(|| ("x-amz-object-lock-legal-hold", "ON".to_owned()));
        let mode = wishes.retention.map(|retention| ("x-amz-object-lock-mode", retention.mode.to_owned()));
        table.push((Operations::These(&MAKE), mode.into_iter().chain(hold).collect()));
        Ok(Self { table: table.into(), locked_for: wishes.retention.map(|retention| retention.span) })
    }

    /// All of them but those of Object Lock.
    pub(super) fn without_lock(&self) -> Self {
        let kept = |(operations, headers): &Asked| {
            let headers = headers.iter().filter(|(name, _)| !name.starts_with(LOCK)).cloned().collect();
            (*operations, headers)
        };
        Self { table: self.table.iter().map(kept).collect(), locked_for: None }
    }

    /// The time in the header that goes with the mode of a lock; `None` where the operation makes nothing.
    fn locked_until(&self, name: &str, now: SystemTime) -> Option<String> {
        let span = self.locked_for.filter(|_| MAKE.contains(&name))?;
        let until = OffsetDateTime::from(now + span).replace_nanosecond(0).ok()?;
        until.format(&Rfc3339).ok()
    }

    /// The headers for an operation.
    fn for_operation(&self, name: &str) -> impl Iterator<Item = &(&'static str, String)> {
        let takes = move |operations: &Operations| match operations {
            Operations::All => true,
            Operations::These(names) => names.contains(&name),
        };
        self.table.iter().filter(move |(operations, _)| takes(operations)).flat_map(|(_, headers)| headers)
    }
}

/// The key in the three headers that S3 wants, and in those for the source of a copy.
fn customer_key(file: &Path) -> Result<[Asked; 2], String> {
    let read = std::fs::read(file).map_err(|cause| format!("cannot read the key in {}: {cause}", file.display()))?;
    let decoded = || STANDARD.decode(read.trim_ascii()).ok();
    let key = if read.len() == KEY_BYTES { Some(read.clone()) } else { decoded() };
    let key = key.filter(|key| key.len() == KEY_BYTES);
    let key = key.ok_or_else(|| format!("{} holds no key: 32 bytes, or their base64", file.display()))?;
    let (sum, key) = (STANDARD.encode(Md5::digest(&key)), STANDARD.encode(key));
    let own = vec![
        ("x-amz-server-side-encryption-customer-algorithm", "AES256".to_owned()),
        ("x-amz-server-side-encryption-customer-key", key.clone()),
        ("x-amz-server-side-encryption-customer-key-md5", sum.clone()),
    ];
    let source = vec![
        ("x-amz-copy-source-server-side-encryption-customer-algorithm", "AES256".to_owned()),
        ("x-amz-copy-source-server-side-encryption-customer-key", key),
        ("x-amz-copy-source-server-side-encryption-customer-key-md5", sum),
    ];
    Ok([(Operations::These(&NEED_KEY), own), (Operations::These(&COPY), source)])
}

/// As a form's fields, which is how the header carries tags.
fn tagging(tags: &[(String, String)]) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<_> = tags.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect();
    pairs.join("&")
}

#[dyn_dispatch_hint]
impl Intercept for AskedHeaders {
    fn name(&self) -> &'static str {
        "AskedHeaders"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = config.load::<Operation>().map(Operation::name).unwrap_or_default();
        let headers = context.request_mut().headers_mut();
        for (name, value) in self.for_operation(operation) {
            headers.try_insert(*name, value.clone())?;
        }
        if let Some(until) = self.locked_until(operation, SystemTime::now()) {
            headers.try_insert("x-amz-object-lock-retain-until-date", until)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(wishes: &Wishes, operation: &str) -> Vec<String> {
        let asked = AskedHeaders::of(wishes).unwrap();
        asked.for_operation(operation).map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn each_operation_gets_what_it_takes() {
        let encryption = Some(Encryption::Server { header: "aws:kms", kms_key_id: Some("k1".to_owned()) });
        let wishes = Wishes {
            requester_pays: true,
            expected_bucket_owner: Some("123".to_owned()),
            encryption,
            acl: Some("private".to_owned()),
            tags: vec![("a b".to_owned(), "c&d".to_owned()), ("e".to_owned(), String::new())],
            ..Wishes::default()
        };
        let every = ["x-amz-request-payer: requester", "x-amz-expected-bucket-owner: 123"];
        assert_eq!(headers(&wishes, "ListObjectsV2"), every);
        assert_eq!(headers(&wishes, "UploadPart"), every);
        let make = [
            "x-amz-server-side-encryption: aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id: k1",
            "x-amz-acl: private",
            "x-amz-tagging: a%20b=c%26d&e=",
        ];
        assert_eq!(headers(&wishes, "PutObject"), [&every[..], &make[..]].concat());
        let source = ["x-amz-source-expected-bucket-owner: 123"];
        assert_eq!(headers(&wishes, "CopyObject"), [&every[..], &source[..], &make[..]].concat());
    }

    #[test]
    fn a_lock_counts_from_the_request_on_and_can_be_left_out() {
        let retention = Some(Retention { mode: "GOVERNANCE", span: Duration::from_hours(24) });
        let wishes = Wishes { retention, legal_hold: true, acl: Some("private".to_owned()), ..Wishes::default() };
        let asked = AskedHeaders::of(&wishes).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_999);
        assert_eq!(asked.locked_until("PutObject", now).as_deref(), Some("2026-01-02T00:00:00Z"));
        assert_eq!(asked.locked_until("UploadPart", now), None);
        let lock = ["x-amz-object-lock-mode: GOVERNANCE", "x-amz-object-lock-legal-hold: ON"];
        assert_eq!(headers(&wishes, "CopyObject"), [&["x-amz-acl: private"][..], &lock[..]].concat());
        assert_eq!(headers(&wishes, "DeleteObject"), Vec::<String>::new());
        let free = asked.without_lock();
        assert_eq!(free.locked_until("PutObject", now), None);
        let left: Vec<_> = free.for_operation("PutObject").map(|(name, _)| *name).collect();
        assert_eq!(left, ["x-amz-acl"]);
        assert!(wishes.lock() && !wishes.without_lock().lock());
    }

    #[test]
    fn a_key_of_ones_own_goes_wherever_bytes_or_attributes_do() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let encryption = Some(Encryption::Customer(file.path().to_owned()));
        let wishes = Wishes { encryption, ..Wishes::default() };
        std::fs::write(file.path(), [7; 32]).unwrap();
        let raw = headers(&wishes, "GetObject");
        assert_eq!(raw[0], "x-amz-server-side-encryption-customer-algorithm: AES256");
        assert!(raw[1].ends_with(&STANDARD.encode([7; 32])));
        std::fs::write(file.path(), format!("{}\n", STANDARD.encode([7; 32]))).unwrap();
        assert_eq!(headers(&wishes, "GetObject"), raw);
        assert_eq!(headers(&wishes, "UploadPartCopy").len(), 6);
        assert_eq!(headers(&wishes, "ListObjectsV2"), Vec::<String>::new());
        for wrong in [&b"short"[..], &[7; 33]] {
            std::fs::write(file.path(), wrong).unwrap();
            let told = AskedHeaders::of(&wishes).unwrap_err();
            assert!(told.contains("holds no key"), "{told}");
        }
    }
}
