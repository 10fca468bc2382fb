//! What S3 says of objects, as queues and callers hand it over: its event message, read.

use std::time::SystemTime;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::journal::EventName;

/// What a message says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    /// What S3 sends when its notifications are set up; nothing has happened.
    Test,
    Records(Vec<Notified>),
}

/// One record of a message: this happened to this object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Notified {
    /// `None`: nothing that hooks can be told of (a restored archive, new tags).
    pub(super) name: Option<EventName>,
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) size: Option<u64>,
    pub(super) etag: Option<String>,
    pub(super) time: SystemTime,
    /// The hooks that had a hand in the object, where a mount told of it: S3 knows nothing of that.
    pub(super) lineage: Option<Vec<String>>,
    /// The same in each copy of the message, and in no other.
    pub(super) version: String,
    /// The same over all tries, on all machines.
    pub(super) id: String,
    /// As it was said.
    pub(super) record: Value,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "Records")]
    records: Vec<Value>,
    #[serde(default)]
    s3mount: Option<Own>,
}

/// What a mount adds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Own {
    #[serde(default)]
    event_id: Option<String>,
    #[serde(default)]
    lineage: Vec<String>,
}

/// What is no event, but may stand in its place.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Other {
    /// Of S3's test.
    #[serde(default)]
    event: Option<String>,
    /// Of what SNS passes on.
    #[serde(default, rename = "Type")]
    kind: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_name: String,
    #[serde(default)]
    event_time: Option<String>,
    s3: S3,
}

#[derive(Deserialize)]
struct S3 {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    key: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default, rename = "eTag")]
    etag: Option<String>,
    #[serde(default)]
    version_id: Option<String>,
    #[serde(default)]
    sequencer: Option<String>,
}

/// Reads a message of a queue: from S3, by way of SNS or not, or from a mount.
///
/// # Errors
/// A sentence about what it is instead.
pub(super) fn read(body: &str) -> Result<Told, String> {
    let other: Other = serde_json::from_str(body).map_err(|error| format!("it is no event of S3: {error}"))?;
    if other.event.as_deref() == Some("s3:TestEvent") {
        return Ok(Told::Test);
    }
    if let (Some("Notification"), Some(inner)) = (other.kind.as_deref(), &other.message) {
        let is_test =
            serde_json::from_str(inner).is_ok_and(|inner: Other| inner.event.as_deref() == Some("s3:TestEvent"));
        return if is_test { Ok(Told::Test) } else { records(inner).map(Told::Records) };
    }
    records(body).map(Told::Records)
}

/// Reads an event message.
///
/// # Errors
/// A sentence about what it is instead.
pub(super) fn records(body: &str) -> Result<Vec<Notified>, String> {
    let message: Message = serde_json::from_str(body).map_err(|error| format!("it is no event of S3: {error}"))?;
    message.records.into_iter().map(|record| notified(record, message.s3mount.as_ref())).collect()
}

fn notified(value: Value, own: Option<&Own>) -> Result<Notified, String> {
    let record = Record::deserialize(&value).map_err(|error| format!("it is no event of S3: {error}"))?;
    let Object { key, size, etag, version_id, sequencer } = record.s3.object;
    let spaced = key.replace('+', " ");
    let key = percent_decode_str(&spaced).decode_utf8().map_err(|_| format!("\"{}\" is no key", key.escape_debug()))?;
    let bucket = record.s3.bucket.name;
    let etag = etag.map(|etag| etag.trim_matches('"').to_owned());
    let when = sequencer.or_else(|| record.event_time.clone());
    let version = own.and_then(|own| own.event_id.clone()).unwrap_or_else(|| {
        let parts = [Some(record.event_name.clone()), version_id, etag.clone(), when];
        parts.map(Option::unwrap_or_default).join(" ")
    });
    Ok(Notified {
        name: event_name(&record.event_name),
        id: own.and_then(|own| own.event_id.clone()).unwrap_or_else(|| id(&bucket, &key, &version)),
        key: key.into_owned(),
        size,
        etag,
        time: record.event_time.as_deref().and_then(moment).unwrap_or_else(SystemTime::now),
        lineage: own.map(|own| own.lineage.clone()),
        version,
        bucket,
        record: value,
    })
}

/// Ours for S3's; the nearest one of what is created (`Post`) or removed (`DeleteMarkerCreated`).
fn event_name(told: &str) -> Option<EventName> {
    let name = told.strip_prefix("s3:").unwrap_or(told);
    let any = if name.starts_with("ObjectCreated:") {
        Some(EventName::CreatedPut)
    } else {
        name.starts_with("ObjectRemoved:").then_some(EventName::RemovedDelete)
    };
    EventName::ALL.into_iter().find(|event| event.s3_name() == name).or(any)
}

fn moment(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}

/// A UUID that anybody who is told the same comes to.
fn id(bucket: &str, key: &str, version: &str) -> String {
    let digest = Sha256::digest([bucket, key, version].join("\0"));
    let bytes = *digest.first_chunk().expect("a digest has 32 bytes");
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As S3 writes it, with these members of the object.
    fn body(name: &str, object: &str) -> String {
        format!(
            r#"{{"Records":[{{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"us-east-1",
            "eventTime":"2026-11-27T18:06:30.975Z","eventName":"{name}",
            "s3":{{"s3SchemaVersion":"1.0","bucket":{{"name":"b"}},"object":{{{object}}}}}}}]}}"#
        )
    }

    fn one(body: &str) -> Notified {
        let Ok(Told::Records(mut records)) = read(body) else { panic!("{body}: {:?}", read(body)) };
        records.remove(0)
    }

    #[test]
    fn a_record_of_s3_is_read_with_its_key_decoded() {
        let told = one(&body(
            "ObjectCreated:CompleteMultipartUpload",
            r#""key":"a+b/%C3%A4%2B.jpg","size":7,"eTag":"\"e-2\"","sequencer":"0055AED6DCD90281E5""#,
        ));
        assert_eq!((told.name, told.key.as_str()), (Some(EventName::CreatedMultipart), "a b/ä+.jpg"));
        assert_eq!((told.size, told.etag.as_deref(), told.lineage), (Some(7), Some("e-2"), None));
        assert_eq!(told.time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(), 1_795_802_790_975);
        assert_eq!(told.record["s3"]["object"]["sequencer"], "0055AED6DCD90281E5");
        for (name, expected) in [
            ("ObjectCreated:Post", Some(EventName::CreatedPut)),
            ("s3:ObjectRemoved:DeleteMarkerCreated", Some(EventName::RemovedDelete)),
            ("ObjectRestore:Completed", None),
            ("LifecycleExpiration:Delete", None),
        ] {
            assert_eq!(one(&body(name, r#""key":"a""#)).name, expected, "{name}");
        }
    }

    #[test]
    fn copies_of_a_message_have_one_id_and_other_versions_have_others() {
        let of = |object: &str| one(&body("ObjectCreated:Put", object));
        let first = of(r#""key":"a","eTag":"e","sequencer":"01""#);
        assert_eq!(first, of(r#""key":"a","eTag":"e","sequencer":"01""#));
        for other in [
            r#""key":"b","eTag":"e","sequencer":"01""#,
            r#""key":"a","eTag":"f","sequencer":"01""#,
            r#""key":"a","eTag":"e","sequencer":"02""#,
            r#""key":"a","eTag":"e","sequencer":"01","versionId":"v""#,
        ] {
            let other = of(other);
            assert_ne!(first.id, other.id, "{other:?}");
            assert!(first.version != other.version || first.key != other.key);
        }
    }

    #[test]
    fn an_event_of_a_mount_keeps_its_id_and_its_lineage() {
        let own = r#""s3mount":{"version":"0","eventId":"0190-id","attempt":1,"lineage":["unzip"]},"#;
        let told = one(&body("ObjectCreated:Put", r#""key":"a""#).replacen('{', &format!("{{{own}"), 1));
        assert_eq!((told.id.as_str(), told.lineage), ("0190-id", Some(vec!["unzip".to_owned()])));
    }

    #[test]
    fn what_sns_passes_on_is_unpacked_and_tests_say_nothing() {
        let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2014-10-13T15:57:02.089Z","Bucket":"b"}"#;
        assert_eq!(read(test), Ok(Told::Test));
        let by_sns = |text: &str| serde_json::json!({"Type": "Notification", "Message": text}).to_string();
        assert_eq!(read(&by_sns(test)), Ok(Told::Test));
        assert_eq!(one(&by_sns(&body("ObjectCreated:Put", r#""key":"a""#))).key, "a");
        assert_eq!(read(r#"{"Records":[]}"#), Ok(Told::Records(Vec::new())));
        for wrong in ["", "no json", "{}", "[]", r#"{"Records":[{}]}"#, &body("ObjectCreated:Put", r#""key":"%FF""#)] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
