//! Directory buckets, of S3 Express One Zone: what is done for one when it is connected to. That requests go to its zone,
//! and within a session, is the SDK's business.

use std::sync::Arc;

use super::ConnectSettings;
use crate::bucket::Bucket;
use crate::bucket::in_order::InOrder;
use crate::bucket::probe::{Capabilities, probe};
use crate::key::is_directory_bucket;

/// Has a bucket listed in order, if it does not do that itself.
pub(super) fn in_order(settings: &ConnectSettings, bucket: Arc<dyn Bucket>) -> Arc<dyn Bucket> {
    if is_directory_bucket(&settings.bucket) { Arc::new(InOrder::over(bucket)) } else { bucket }
}

/// Tries what it can do in a directory of its own, which is soon listed. At AWS, too: nobody's word is taken for what a
/// LIST tells there.
pub(super) async fn tried(settings: &ConnectSettings, wire: impl Bucket) -> Capabilities {
    probe(&InOrder::over(Arc::new(wire)), &format!("{}.s3mount-probe/", settings.prefix)).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_sdk_s3::Client;
    use aws_sdk_s3::config::http::HttpRequest;
    use aws_sdk_s3::presigning::PresigningConfig;
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use parking_lot::Mutex;

    use super::super::config::load;
    use super::super::{ClassOfKey, StaticCredentials};
    use super::*;
    use crate::bucket::properties::Header;
    use crate::bucket::s3::S3Bucket;
    use crate::bucket::{
        AppendRequest, Condition, CopyRequest, Deletion, ETag, ListRequest, Properties, PutOptions, RenameRequest,
        StorageClass,
    };
    use crate::error::Kind;

    /// Answers like a directory bucket, and keeps what it was asked.
    #[derive(Clone, Debug, Default)]
    struct Express(Arc<Mutex<Vec<HttpRequest>>>);

    impl HttpConnector for Express {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let uri = request.uri().to_owned();
            let body = match request.method() {
                "GET" if uri.contains("session") => {
                    "<CreateSessionResult><Credentials><AccessKeyId>sk</AccessKeyId><SecretAccessKey>ss</SecretAccessKey>\
                     <SessionToken>the-token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
                     </CreateSessionResult>"
                }
                "GET" if uri.contains("list-type") => {
                    "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
                }
                "GET" if uri.contains("uploads") => {
                    "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"
                }
                "PUT" if request.headers().get("x-amz-copy-source").is_some() && uri.contains("uploadId") => {
                    "<CopyPartResult><ETag>\"t\"</ETag></CopyPartResult>"
                }
                "PUT" if request.headers().get("x-amz-copy-source").is_some() => {
                    "<CopyObjectResult><ETag>\"t\"</ETag></CopyObjectResult>"
                }
                "POST" if uri.contains("?delete") => "<DeleteResult></DeleteResult>",
                "POST" if uri.contains("uploadId") => {
                    "<CompleteMultipartUploadResult><ETag>\"t\"</ETag></CompleteMultipartUploadResult>"
                }
                "POST" => "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
                _ => "",
            };
            self.0.lock().push(request);
            let body = aws_sdk_s3::primitives::SdkBody::from(body);
            let mut answer = aws_sdk_s3::config::http::HttpResponse::new(200_u16.try_into().unwrap(), body);
            answer.headers_mut().insert("etag", "\"t\"");
            answer.headers_mut().insert("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT");
            HttpConnectorFuture::ready(Ok(answer))
        }
    }

    const EXPRESS: &str = "fast--use1-az4--x-s3";

    fn settings() -> ConnectSettings {
        let (access_key, secret_key) = ("k".to_owned(), "s".to_owned());
        let credentials = Some(StaticCredentials { access_key, secret_key });
        ConnectSettings { credentials, region: Some("us-east-1".to_owned()), ..ConnectSettings::new(EXPRESS, "") }
    }

    /// What a mount says to a directory bucket, each verb once.
    async fn say_everything(bucket: &dyn Bucket) {
        let properties = Properties {
            headers: [(Header::ContentEncoding, "gzip".to_owned()), (Header::WebsiteRedirectLocation, "/x".to_owned())]
                .into(),
            storage_class: Some(StorageClass::from("STANDARD_IA".to_owned())),
            ..Properties::of_type(Some("text/plain".to_owned()))
        };
        let options = PutOptions { properties, condition: Condition::IfAbsent, ..PutOptions::default() };
        let copy = |replace: Option<PutOptions>| CopyRequest {
            from_etag: Some(ETag::new("t")),
            replace,
            storage_class: Some(StorageClass::from("GLACIER_IR".to_owned())),
            ..CopyRequest::new("d/from".to_owned(), "d/to".to_owned())
        };
        bucket.put("d/put", "x".into(), &options).await.unwrap();
        let (key, etag) = ("d/put".to_owned(), ETag::new("t"));
        let append = AppendRequest { key, etag, offset: 1, content_type: Some("text/plain".to_owned()) };
        bucket.append(&append, "x".into()).await.unwrap();
        bucket.copy(&copy(None)).await.unwrap();
        bucket.copy(&copy(Some(options.clone()))).await.unwrap();
        let id = bucket.create_upload("d/large", &options).await.unwrap();
        let sent = bucket.upload_part("d/large", &id, 1, "x".into()).await.unwrap();
        let copied = bucket.copy_part("d/large", &id, 2, &copy(None), 0..1).await.unwrap();
        bucket.complete_upload("d/large", &id, &[sent, copied], &options.condition).await.unwrap();
        bucket.head("d/put").await.unwrap();
        bucket.get("d/put", None, Some(&ETag::new("t"))).await.unwrap();
        for prefix in ["", "d/", "d/NAME"] {
            for delimited in [false, true] {
                let request = ListRequest { prefix: prefix.to_owned(), delimited, ..ListRequest::default() };
                bucket.list(&ListRequest { start_after: Some("d/a".to_owned()), ..request.clone() }).await.unwrap();
                bucket.list(&ListRequest { any_order: true, max_keys: Some(1), ..request }).await.unwrap();
            }
        }
        bucket.delete("d/put", None).await.unwrap();
        bucket.delete_many(&["d/a", "d/b"].map(Deletion::of_any)).await.unwrap();
        bucket.list_uploads("d/").await.unwrap();
        bucket.abort_upload("d/large", &id).await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_bucket_is_asked_by_its_host_within_a_session_and_for_nothing_it_has_not() {
        let (express, client) = (Express::default(), load(&settings()).await.unwrap().client());
        let connector = SharedHttpConnector::new(express.clone());
        let http = http_client_fn(move |_, _| connector.clone());
        let client = Client::from_conf(client.config().to_builder().http_client(http).build());
        let class = ClassOfKey(Arc::new(|_| Some(StorageClass::from("STANDARD_IA".to_owned()))));
        let direct = S3Bucket::new(client, EXPRESS).choosing_class(Some(class));
        say_everything(&InOrder::over(Arc::new(direct.clone()))).await;
        assert_eq!(direct.keeps_versions().await, Some(false), "not asked for");
        assert!(direct.versions("d/put").await.is_err());

        let requests = std::mem::take(&mut *express.0.lock());
        let sessions = requests.iter().filter(|request| request.uri().contains("session")).count();
        assert_eq!((sessions, requests[0].uri().contains("session")), (1, true), "one session, before all else");
        for request in &requests {
            let (uri, headers) = (request.uri(), request.headers());
            let told = format!("{} {uri}\n{headers:?}", request.method());
            let host = format!("https://{EXPRESS}.s3express-use1-az4.us-east-1.amazonaws.com/");
            assert!(uri.starts_with(&host), "{told}");
            let signed = headers.get("authorization").unwrap();
            // Copies and the session itself go with the caller's own keys.
            let is_outside = uri.contains("session") || headers.get("x-amz-copy-source").is_some();
            let (key, token) = if is_outside { ("k", None) } else { ("sk", Some("the-token")) };
            assert!(signed.contains(&format!("Credential={key}/")), "{told}");
            assert!(signed.contains("/us-east-1/s3express/aws4_request"), "{told}");
            assert_eq!(headers.get("x-amz-s3session-token"), token, "{told}");
            assert_eq!(signed.contains("x-amz-s3session-token"), token.is_some(), "{told}");
            for (name, _) in headers {
                let refused = ["x-amz-acl", "x-amz-tagging", "x-amz-object-lock", "x-amz-request-payer", "content-md5"];
                let is_refused = refused.iter().any(|refused| name.starts_with(refused))
                    || name.starts_with("x-amz-server-side-encryption")
                    || matches!(name, "content-encoding" | "x-amz-website-redirect-location" | "x-amz-storage-class");
                assert!(!is_refused, "{name}: {told}");
            }
            assert!(!uri.contains("start-after") && !uri.contains("versionId"), "{told}");
            let prefix = uri.split("prefix=").nth(1).map(|rest| rest.split('&').next().unwrap_or_default());
            assert!(prefix.is_none_or(|prefix| prefix.is_empty() || prefix.ends_with("%2F")), "{told}");
            assert!(!uri.contains("delimiter=") || uri.contains("delimiter=%2F"), "{told}");
        }
    }

    async fn asked_to_rename(bucket: &str, from: &str, to: &str) -> (Result<(), Kind>, Vec<HttpRequest>) {
        let (express, client) = (Express::default(), load(&settings()).await.unwrap().client());
        let connector = SharedHttpConnector::new(express.clone());
        let http = http_client_fn(move |_, _| connector.clone());
        let client = Client::from_conf(client.config().to_builder().http_client(http).build());
        let (from, to, token) = (from.to_owned(), to.to_owned(), "once".to_owned());
        let request = RenameRequest { from, to, from_etag: ETag::new("t"), only_if_absent: true, token };
        let answer = S3Bucket::new(client, bucket).rename(&request).await.map_err(|error| error.kind);
        let requests = std::mem::take(&mut *express.0.lock());
        (answer, requests)
    }

    #[tokio::test]
    async fn only_a_directory_bucket_is_ever_asked_to_rename() {
        for (bucket, from, to) in [("plain", "a", "b"), ("x--x-s3.example", "a", "b"), (EXPRESS, "a/", "b/")] {
            let (answer, requests) = asked_to_rename(bucket, from, to).await;
            assert_eq!((answer, requests.len()), (Err(Kind::Unsupported), 0), "{bucket}");
        }
        let (answer, requests) = asked_to_rename(EXPRESS, "d/ü b", "d/c").await;
        assert_eq!((answer, requests.len()), (Ok(()), 2), "a session, and the request");
        let (uri, headers) = (requests[1].uri(), requests[1].headers());
        assert!(requests[1].method() == "PUT" && uri.contains(".amazonaws.com/d/c?renameObject"), "{uri}");
        assert_eq!(headers.get("x-amz-rename-source"), Some("d/%C3%BC%20b"));
        assert_eq!(headers.get("x-amz-rename-source-if-match"), Some("\"t\""));
        assert_eq!(headers.get("x-amz-client-token"), Some("once"));
        assert_eq!(headers.get("if-none-match"), Some("*"));
        assert_eq!(headers.get("x-amz-s3session-token"), Some("the-token"));
    }

    fn of_express(express: &Express, client: &Client, bucket: &str) -> S3Bucket {
        let connector = SharedHttpConnector::new(express.clone());
        let http = http_client_fn(move |_, _| connector.clone());
        S3Bucket::new(Client::from_conf(client.config().to_builder().http_client(http).build()), bucket)
    }

    #[tokio::test]
    async fn only_a_directory_bucket_is_ever_asked_to_append() {
        let client = load(&settings()).await.unwrap().client();
        let request = |key: &str| {
            let (key, etag, content_type) = (key.to_owned(), ETag::new("t"), Some("text/plain".to_owned()));
            AppendRequest { key, etag, offset: 7, content_type }
        };
        let express = Express::default();
        let refusing = of_express(&express, &client, EXPRESS).appending(false);
        for bucket in [
            of_express(&express, &client, "plain"),
            of_express(&express, &client, "plain").appending(true),
            of_express(&express, &client, "x--x-s3.example"),
            refusing,
        ] {
            let refused = bucket.append(&request("d/log"), "more".into()).await.unwrap_err();
            assert_eq!((refused.kind, express.0.lock().len()), (Kind::Unsupported, 0), "{bucket:?}");
        }
        let express_bucket = of_express(&express, &client, EXPRESS);
        // Nothing at all is no append, and what is not there at the end of an object would be a new one.
        assert_eq!(express_bucket.append(&request("d/log"), "".into()).await.unwrap_err().kind, Kind::Unsupported);
        express_bucket.append(&request("d/log"), "more".into()).await.unwrap();
        let requests = std::mem::take(&mut *express.0.lock());
        assert_eq!(requests.len(), 2, "a session, and the request");
        let (uri, headers) = (requests[1].uri(), requests[1].headers());
        assert!(requests[1].method() == "PUT" && uri.contains(".amazonaws.com/d/log"), "{uri}");
        let told = ["x-amz-write-offset-bytes", "if-match", "content-length", "content-type", "x-amz-s3session-token"];
        let said = told.map(|name| headers.get(name).unwrap_or_default());
        assert_eq!(said, ["7", "\"t\"", "4", "text/plain", "the-token"]);
        assert!(headers.get("x-amz-checksum-crc32c").is_some(), "{headers:?}");
        assert!(headers.iter().all(|(name, _)| !name.starts_with("x-amz-meta-")), "{headers:?}");
    }

    /// Where a GET would go: nothing is sent.
    async fn host(change: impl FnOnce(&mut ConnectSettings)) -> String {
        let mut settings = settings();
        change(&mut settings);
        let get = load(&settings).await.unwrap().client().get_object().bucket(EXPRESS).key("key");
        let expires = PresigningConfig::expires_in(Duration::from_mins(1)).unwrap();
        // Nobody is asked for a session.
        let config = aws_sdk_s3::config::Builder::new().disable_s3_express_session_auth(true);
        let signed = get.customize().config_override(config).presigned(expires).await.unwrap();
        signed.uri().parse::<hyper::Uri>().unwrap().host().unwrap().to_owned()
    }

    #[tokio::test]
    async fn the_options_of_a_directory_bucket_choose_its_host() {
        assert_eq!(host(|_| {}).await, format!("{EXPRESS}.s3express-use1-az4.us-east-1.amazonaws.com"));
        let fips = host(|s| s.fips = Some(true)).await;
        assert_eq!(fips, format!("{EXPRESS}.s3express-fips-use1-az4.us-east-1.amazonaws.com"));
        assert_eq!(host(|s| s.endpoint_url = Some("http://nas:9000".into())).await, format!("{EXPRESS}.nas"));
    }
}
