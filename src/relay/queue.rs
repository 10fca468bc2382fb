//! SQS by its JSON protocol: four operations are all that is needed.

use std::time::Duration;

use aws_smithy_types::body::SdkBody;
use hyper::{Request, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Error, Relay, Result, by_status, signing};

/// A queue by its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    url: String,
    /// Where requests go: its server.
    endpoint: String,
    /// What the name of the server says.
    region: Option<String>,
}

/// A message that was received, and is hidden from others for a while.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Message {
    pub message_id: String,
    /// Names this receipt.
    pub receipt_handle: String,
    pub body: String,
    /// What SQS tells of it: `ApproximateReceiveCount`, `SentTimestamp`.
    #[serde(default)]
    pub attributes: std::collections::HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Received {
    #[serde(default)]
    messages: Vec<Message>,
}

impl Queue {
    /// Reads `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`, or its like on another server.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn at(url: &str) -> std::result::Result<Self, String> {
        super::check_url(url)?;
        let wrong = || format!("\"{url}\" is no queue's URL: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(wrong()) };
        if uri.path().trim_matches('/').is_empty() {
            return Err(wrong());
        }
        let host = authority.host();
        let region = host.strip_prefix("sqs.").and_then(|rest| rest.split_once(".amazonaws.com"));
        let region = region.map(|(region, _)| region.to_owned());
        Ok(Self { url: url.to_owned(), endpoint: format!("{scheme}://{authority}/"), region })
    }

    /// As it was given.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    fn is_fifo(&self) -> bool {
        self.url.rsplit('.').next() == Some("fifo")
    }
}

impl Relay {
    /// Puts a message into a queue. In a FIFO queue those of one group stay in order, and the same id
    /// within five minutes counts once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn send(&self, queue: &Queue, id: &str, group: &str, body: &str) -> Result<()> {
        let mut message = json!({"QueueUrl": queue.url, "MessageBody": body});
        if queue.is_fifo() {
            message["MessageDeduplicationId"] = id.into();
            message["MessageGroupId"] = group.into();
        }
        self.operate(queue, "SendMessage", &message).await.map(drop)
    }

    /// Up to `most` messages (SQS: ten), which nobody else sees for as long as `hidden`; waits for the first
    /// as long as `wait`, 20 seconds at most.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn receive(&self, queue: &Queue, most: usize, wait: Duration, hidden: Duration) -> Result<Vec<Message>> {
        let asked = json!({
            "QueueUrl": queue.url,
            "MaxNumberOfMessages": most,
            "WaitTimeSeconds": wait.as_secs().min(20),
            "VisibilityTimeout": hidden.as_secs(),
            "AttributeNames": ["ApproximateReceiveCount", "SentTimestamp"],
        });
        let answer = self.operate(queue, "ReceiveMessage", &asked).await?;
        let received: Received = serde_json::from_value(answer)
            .map_err(|error| Error::Away(format!("{}: an answer that is none: {error}", queue.url)))?;
        Ok(received.messages)
    }

    /// Hides a message from others for as long, from now on; no time at all puts it back.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn hide(&self, queue: &Queue, message: &Message, hidden: Duration) -> Result<()> {
        let asked = json!({
            "QueueUrl": queue.url,
            "ReceiptHandle": message.receipt_handle,
            "VisibilityTimeout": hidden.as_secs(),
        });
        self.operate(queue, "ChangeMessageVisibility", &asked).await.map(drop)
    }

    /// Takes a message out of its queue.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(&self, queue: &Queue, message: &Message) -> Result<()> {
        let asked = json!({"QueueUrl": queue.url, "ReceiptHandle": message.receipt_handle});
        self.operate(queue, "DeleteMessage", &asked).await.map(drop)
    }

    async fn operate(&self, queue: &Queue, operation: &str, asked: &Value) -> Result<Value> {
        let Some(credentials) = &self.credentials else {
            return Err(Error::Refused(format!("{}: there are no credentials to sign with", queue.url)));
        };
        let request = Request::post(&queue.endpoint)
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("AmazonSQS.{operation}"))
            .body(asked.to_string())
            .map_err(|error| Error::Refused(format!("{}: {error}", queue.url)))?;
        let region = queue.region.as_ref().unwrap_or(&self.region);
        let request = signing::signed(request, credentials, region, "sqs").await?;
        let (status, body) = self.exchange(request.map(SdkBody::from)).await?;
        if status == StatusCode::OK {
            return Ok(serde_json::from_slice(&body).unwrap_or_default());
        }
        // Throttling has status 400 in this protocol.
        let is_throttled = ["Throttl", "OverLimit"].iter().any(|word| String::from_utf8_lossy(&body).contains(word));
        match by_status(&format!("{operation} of {}", queue.url), status, &body) {
            Error::Refused(problem) if is_throttled => Err(Error::Away(problem)),
            error => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_known_by_its_url() {
        let aws = Queue::at("https://sqs.eu-west-1.amazonaws.com/123/jobs.fifo").unwrap();
        assert_eq!(
            (aws.endpoint.as_str(), aws.region.as_deref()),
            ("https://sqs.eu-west-1.amazonaws.com/", Some("eu-west-1"))
        );
        assert!(aws.is_fifo());
        let other = Queue::at("http://127.0.0.1:5000/123/jobs").unwrap();
        assert_eq!((other.endpoint.as_str(), other.region), ("http://127.0.0.1:5000/", None));
        for wrong in ["", "jobs", "https://sqs.eu-west-1.amazonaws.com/", "arn:aws:sqs:eu-west-1:123:jobs"] {
            assert!(Queue::at(wrong).is_err(), "{wrong}");
        }
    }
}
