//! The event as AWS writes it: what a Lambda function would get from S3.
//!
//! Field for field after "Event message structure" of the S3 user guide; what is our own stands
//! under the extra top-level member `s3mount`, which AWS parsers pass over.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;

use super::sandbox;
use crate::bucket::Layout;
use crate::journal::{EventName, NewEvent, Task};

/// What form-urlencoding leaves as it is, and `/`, which S3 leaves too.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'/').remove(b' ');

/// An object by its names in S3.
struct Origin<'a> {
    bucket: &'a str,
    region: &'a str,
    key: Cow<'a, str>,
}

impl<'a> Origin<'a> {
    /// What lies in no bucket (a call is about nothing) is told as of the first.
    fn of(layout: &'a Layout, key: &'a str) -> Self {
        let root = layout.root_of(key).or(layout.roots().first());
        let (bucket, region) = root.map(|root| (root.bucket.as_str(), root.region.as_str())).unwrap_or_default();
        let there = root.and_then(|root| root.there(key));
        Self { bucket, region, key: there.map_or(Cow::Borrowed(key), Cow::Owned) }
    }
}

/// The region that a hook runs in: of its object's bucket.
pub(super) fn region<'a>(layout: &'a Layout, task: &'a Task) -> &'a str {
    Origin::of(layout, &task.event.fact.key).region
}

/// How the guest finds the event's object.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    /// Path in the mount: the key below the mount's prefix.
    pub(super) path: &'a str,
    /// The path below the directory of the hook's rule.
    pub(super) name: &'a str,
    /// The file that the guest can read; `None` for a removal.
    pub(super) input: Option<String>,
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "Records")]
    records: [Told<'a>; 1],
    s3mount: Own<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Told<'a> {
    Here(Box<Record<'a>>),
    ByS3(Value),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    event_version: &'static str,
    event_source: &'static str,
    aws_region: &'a str,
    event_time: String,
    event_name: &'static str,
    user_identity: Principal,
    request_parameters: RequestParameters,
    response_elements: ResponseElements<'a>,
    s3: S3<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Principal {
    principal_id: &'static str,
}

#[derive(Serialize)]
struct RequestParameters {
    #[serde(rename = "sourceIPAddress")]
    source_ip_address: &'static str,
}

#[derive(Serialize)]
struct ResponseElements<'a> {
    #[serde(rename = "x-amz-request-id")]
    request_id: &'a str,
    #[serde(rename = "x-amz-id-2")]
    id_2: &'a str,
}

#[derive(Serialize)]
struct S3<'a> {
    #[serde(rename = "s3SchemaVersion")]
    schema_version: &'static str,
    #[serde(rename = "configurationId")]
    configuration_id: &'a str,
    bucket: Bucket<'a>,
    object: Object<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bucket<'a> {
    name: &'a str,
    owner_identity: Principal,
    arn: String,
}

#[derive(Serialize)]
struct Object<'a> {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(rename = "eTag", skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    sequencer: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Own<'a> {
    version: &'static str,
    event_id: &'a str,
    attempt: u32,
    path: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a str>,
    lineage: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
}

const NOBODY: Principal = Principal { principal_id: "s3mount" };

/// The message for one task.
pub(super) fn message(layout: &Layout, task: &Task, place: &Place) -> String {
    let event = &task.event;
    let told = match &task.record {
        Some(said) => Told::ByS3(said_by_s3(said, &event.fact)),
        None => Told::Here(Box::new(record_of(layout, task))),
    };
    let own = Own {
        version: env!("CARGO_PKG_VERSION"),
        event_id: &event.id,
        attempt: task.failures + 1,
        path: place.path,
        name: place.name,
        input: place.input.as_deref(),
        lineage: &event.fact.lineage,
        replayed: !event.fact.replayed_for.is_empty(),
    };
    serde_json::to_string(&Message { records: [told], s3mount: own }).expect("strings and numbers make JSON")
}

fn record_of<'a>(layout: &'a Layout, task: &'a Task) -> Record<'a> {
    let event = &task.event;
    let origin = Origin::of(layout, &event.fact.key);
    let removed = event.fact.name == EventName::RemovedDelete;
    Record {
        event_version: "2.1",
        event_source: "aws:s3",
        aws_region: origin.region,
        event_time: timestamp(event.fact.time),
        event_name: event.fact.name.s3_name(),
        user_identity: NOBODY,
        request_parameters: RequestParameters { source_ip_address: "127.0.0.1" },
        response_elements: ResponseElements { request_id: &event.id, id_2: &event.id },
        s3: S3 {
            schema_version: "1.0",
            configuration_id: &task.hook,
            bucket: Bucket {
                name: origin.bucket,
                owner_identity: NOBODY,
                arn: format!("arn:aws:s3:::{}", origin.bucket),
            },
            object: Object {
                key: encode_key(&origin.key),
                size: (!removed).then_some(event.fact.size),
                etag: event.fact.etag.as_deref().filter(|_| !removed),
                sequencer: event.sequencer(),
            },
        },
    }
}

/// Word for word, but for the version that the hook is given: another may be there by now.
fn said_by_s3(said: &Value, fact: &NewEvent) -> Value {
    let mut record = said.clone();
    if let (Some(etag), Some(Value::Object(object))) = (&fact.etag, record.pointer_mut("/s3/object"))
        && object.get("eTag").and_then(Value::as_str).map(|said| said.trim_matches('"')) != Some(etag)
    {
        object.insert("eTag".into(), etag.as_str().into());
        object.insert("size".into(), fact.size.into());
        object.remove("versionId");
    }
    record
}

/// S3's own, where it told of the event.
fn sequencer(task: &Task) -> String {
    let said = task.record.as_ref().and_then(|record| record.pointer("/s3/object/sequencer")?.as_str());
    said.map_or_else(|| task.event.sequencer(), str::to_owned)
}

/// The same for a typed hook, which is stopped at `deadline`.
pub(super) fn record(
    layout: &Layout,
    task: &Task,
    place: &Place,
    deadline: SystemTime,
    json: String,
) -> sandbox::Event {
    let event = &task.event;
    let fact = &event.fact;
    let origin = Origin::of(layout, &fact.key);
    sandbox::Event {
        id: event.id.clone(),
        name: fact.name.s3_name().to_owned(),
        time_ms: sandbox::since_1970_ms(fact.time),
        bucket: origin.bucket.to_owned(),
        key: origin.key.into_owned(),
        path: place.path.to_owned(),
        size: fact.size,
        etag: fact.etag.clone(),
        sequencer: sequencer(task),
        hook: task.hook.clone(),
        attempt: task.failures + 1,
        deadline_ms: sandbox::since_1970_ms(deadline),
        depth: fact.lineage.len() as u32,
        json,
    }
}

/// `a b/ü` → `a+b/%C3%BC`.
fn encode_key(key: &str) -> String {
    utf8_percent_encode(key, ENCODED).to_string().replace(' ', "+")
}

/// ISO 8601 in UTC with milliseconds.
pub(super) fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    // A clock beyond the year 9999 has no such form; the epoch says as little and breaks no parser.
    OffsetDateTime::from_unix_timestamp_nanos(since.as_nanos().cast_signed())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .format(format)
        .expect("a date in this range has every part of the format")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bucket::Root;
    use crate::journal::Event;

    fn task(name: EventName) -> Task {
        let fact = NewEvent {
            name,
            key: "home/my photos/ä+1(2).jpg".into(),
            size: 1024,
            etag: Some("d41d8cd98f00b204e9800998ecf8427e".into()),
            time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            lineage: vec!["unzip".into()],
            rewritten: false,
            replayed_for: Vec::new(),
        };
        let event = Event { id: "0190-id".into(), sequence: 0x61_8F0A, fact };
        Task { failures: 1, ..Task::new("thumbnail".into(), 1, None, event) }
    }

    #[test]
    fn of_several_buckets_the_event_names_the_one_that_has_the_object() {
        let root = |at: &str, bucket: &str, prefix: &str, region: &str| Root {
            at: at.into(),
            bucket: bucket.into(),
            prefix: prefix.into(),
            region: region.into(),
            ..Root::default()
        };
        let roots = vec![root("home/", "demo", "2026/", "eu-west-1"), root("away/", "other", "", "us-east-1")];
        let layout = Layout::of_several(roots);
        let place = Place { path: "home/my photos/ä+1(2).jpg", name: "ä+1(2).jpg", input: None };
        let told: Value = serde_json::from_str(&message(&layout, &task(EventName::CreatedPut), &place)).unwrap();
        let record = &told["Records"][0];
        assert_eq!(record["awsRegion"], "eu-west-1");
        assert_eq!(record["s3"]["bucket"]["name"], "demo");
        assert_eq!(record["s3"]["object"]["key"], "2026/my+photos/%C3%A4%2B1%282%29.jpg");
        assert_eq!(told["s3mount"]["path"], place.path);
        let typed = super::record(&layout, &task(EventName::CreatedPut), &place, UNIX_EPOCH, String::new());
        assert_eq!((typed.bucket.as_str(), typed.key.as_str()), ("demo", "2026/my photos/ä+1(2).jpg"));
    }

    fn written(name: EventName, input: Option<&str>) -> String {
        let source = Layout::of_bucket("demo", "eu-central-1", "");
        let place = Place { path: "my photos/ä+1(2).jpg", name: "ä+1(2).jpg", input: input.map(str::to_owned) };
        message(&source, &task(name), &place)
    }

    #[test]
    fn a_created_object_is_told_as_s3_tells_it() {
        let expected = concat!(
            r#"{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"eu-central-1","#,
            r#""eventTime":"2023-11-14T22:13:20.123Z","eventName":"ObjectCreated:Put","#,
            r#""userIdentity":{"principalId":"s3mount"},"requestParameters":{"sourceIPAddress":"127.0.0.1"},"#,
            r#""responseElements":{"x-amz-request-id":"0190-id","x-amz-id-2":"0190-id"},"#,
            r#""s3":{"s3SchemaVersion":"1.0","configurationId":"thumbnail","#,
            r#""bucket":{"name":"demo","ownerIdentity":{"principalId":"s3mount"},"arn":"arn:aws:s3:::demo"},"#,
            r#""object":{"key":"home/my+photos/%C3%A4%2B1%282%29.jpg","size":1024,"#,
            r#""eTag":"d41d8cd98f00b204e9800998ecf8427e","sequencer":"0000000000618F0A"}}}],"#,
            r#""s3mount":{"version":"VERSION","eventId":"0190-id","attempt":2,"#,
            r#""path":"my photos/ä+1(2).jpg","name":"ä+1(2).jpg","input":"/in/my photos/ä+1(2).jpg","#,
            r#""lineage":["unzip"]}}"#,
        )
        .replace("VERSION", env!("CARGO_PKG_VERSION"));
        assert_eq!(written(EventName::CreatedPut, Some("/in/my photos/ä+1(2).jpg")), expected);
    }

    #[test]
    fn a_removed_object_has_neither_size_nor_tag() {
        let json: serde_json::Value = serde_json::from_str(&written(EventName::RemovedDelete, None)).unwrap();
        let object = &json["Records"][0]["s3"]["object"];
        assert_eq!(json["Records"][0]["eventName"], "ObjectRemoved:Delete");
        assert_eq!((object.get("size"), object.get("eTag")), (None, None));
        assert_eq!(object["sequencer"], "0000000000618F0A");
    }

    #[test]
    fn what_s3_said_is_passed_on_but_for_a_version_that_is_gone() {
        let said = serde_json::json!({"eventName": "ObjectCreated:Post", "s3": {"object":
            {"key": "a", "size": 7, "eTag": "then", "versionId": "v1", "sequencer": "0055AED6DCD90281E5"}}});
        let mut told = Task { record: Some(said.clone()), ..task(EventName::CreatedPut) };
        let passed_on = |task: &Task| {
            let source = Layout::of_bucket("demo", "eu-central-1", "");
            let place = Place { path: "a", name: "a", input: None };
            serde_json::from_str::<Value>(&message(&source, task, &place)).unwrap()
        };
        told.event.fact.etag = Some("then".into());
        assert_eq!(passed_on(&told)["Records"][0], said);
        assert_eq!(passed_on(&told)["s3mount"]["eventId"], "0190-id");
        assert_eq!(sequencer(&told), "0055AED6DCD90281E5");
        told.event.fact.etag = Some("now".into());
        let object = &passed_on(&told)["Records"][0]["s3"]["object"];
        assert_eq!((&object["eTag"], &object["size"], object.get("versionId")), (&"now".into(), &1024.into(), None));
    }

    #[test]
    fn keys_are_encoded_as_forms_are() {
        assert_eq!(encode_key("a b+c/d&e=f*-_.~"), "a+b%2Bc/d%26e%3Df*-_.%7E");
        assert_eq!(encode_key("\n\u{1F600}"), "%0A%F0%9F%98%80");
    }
}
