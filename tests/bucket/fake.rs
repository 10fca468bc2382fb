//! A server of canned answers that keeps what it was asked.

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

pub const EMPTY_LISTING: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

/// What to answer to the head of a request (lower case): status line, further headers, body.
pub type Answer = fn(&str) -> (&'static str, &'static str, &'static str);

pub struct Fake {
    pub url: String,
    /// Heads of all requests so far, in lower case.
    pub heads: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Fake {
    pub async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer, Arc::clone(&kept)));
            }
        });
        Self { url, heads, accepting }
    }

    pub fn settings(&self) -> ConnectSettings {
        let credentials = Some(StaticCredentials { access_key: KEY.into(), secret_key: KEY.into() });
        let endpoint_url = Some(self.url.clone());
        ConnectSettings { endpoint_url, credentials, read_only: true, ..ConnectSettings::new(BUCKET, "") }
    }
}

async fn serve(mut stream: TcpStream, answer: Answer, heads: Arc<Mutex<Vec<String>>>) {
    let mut received = Vec::new();
    while stream.read_buf(&mut received).await.is_ok_and(|count| count > 0) {
        let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        if received.len() < end + 4 + length {
            continue;
        }
        received.drain(..end + 4 + length);
        let (status, headers, body) = answer(&head);
        // The answer to HEAD has the length of a body, and none.
        let sent = if head.starts_with("head ") { "" } else { body };
        heads.lock().push(head);
        let answer = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{sent}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
