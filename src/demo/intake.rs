//! Takes in the body of an upload: hashed once, written once, checked against all that was claimed.
//!
//! Bytes are gathered to a piece, then hashed and written on a blocking thread while the next piece
//! arrives: at most two pieces are in memory, whatever the size of the object.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::StreamExt;
use hyper::StatusCode;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{self, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, TrailingHeaders, s3_error};
use tokio::task::JoinHandle;

use super::bodies::Body;
use super::checksums::{self, Algorithm, Checksum};
use super::digests::{Digested, Digests, Sum};
use super::outlet::Pinned;
use super::record::Extent;
use super::store::Store;

/// How much is gathered before it is hashed and written.
const PIECE_BYTES: usize = 1 << 20;
/// Largest object of one PUT and largest part (AWS: 5 GiB).
const MAX_UPLOAD_BYTES: u64 = 5 << 30;

/// What a client claims about the body that it sends.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub content_length: Option<i64>,
    pub content_md5: Option<String>,
    /// Value of an `x-amz-checksum-` header.
    pub checksum: Option<(Algorithm, String)>,
    /// Algorithm whose value follows in the trailer, or that the client wants computed.
    pub algorithm: Option<Algorithm>,
    /// An `x-amz-trailer` header announced the value of `algorithm`.
    is_announced: bool,
    pub trailers: Option<TrailingHeaders>,
}

/// A body that was taken in and is what its claims say; loose until a commit keeps it.
#[derive(Debug)]
pub(super) struct Received {
    /// `None` = no bytes.
    pub body: Option<Arc<Body>>,
    pub size: u64,
    pub md5: [u8; 16],
    digested: Digested,
    claimed: Option<Algorithm>,
}

impl Claims {
    /// Reads the claims that the input types of uploads have under the same names.
    ///
    /// # Errors
    /// `InvalidRequest` for more than one checksum, or one that is none.
    pub fn new(
        headers: &hyper::HeaderMap,
        checksum: dto::Checksum,
        algorithm: Option<&dto::ChecksumAlgorithm>,
        trailers: Option<TrailingHeaders>,
    ) -> S3Result<Self> {
        let checksum = checksums::claimed(checksum)?;
        if let Some((algorithm, value)) = &checksum {
            checksums::check_form(*algorithm, value)?;
        }
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let announced = header("x-amz-trailer").and_then(Algorithm::of_header);
        let algorithm = match (announced, algorithm) {
            (Some(announced), _) => Some(announced),
            (None, Some(named)) => Some(Algorithm::parse(named.as_str())?),
            (None, None) => None,
        };
        if header("x-amz-sdk-checksum-algorithm").is_some() && checksum.is_none() && algorithm.is_none() {
            return Err(s3_error!(
                InvalidRequest,
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found."
            ));
        }
        Ok(Self { checksum, algorithm, is_announced: announced.is_some(), trailers, ..Self::default() })
    }

    /// The algorithm that the client chose, in whichever way.
    pub fn chosen(&self) -> Option<Algorithm> {
        self.checksum.as_ref().map(|(algorithm, _)| *algorithm).or(self.algorithm)
    }

    fn check(&self, received: &Received) -> S3Result<()> {
        if self.content_length.is_some_and(|length| u64::try_from(length) != Ok(received.size)) {
            return Err(s3_error!(IncompleteBody));
        }
        if let Some(claimed) = &self.content_md5 {
            check_md5(claimed, received.md5)?;
        }
        let trailer = self.algorithm.and_then(|algorithm| Some((algorithm, self.trailer(algorithm)?)));
        if self.is_announced && trailer.is_none() {
            return Err(s3_error!(InvalidRequest, "The trailer that x-amz-trailer announced did not come."));
        }
        for (algorithm, value) in self.checksum.iter().chain(trailer.iter()) {
            checksums::check_form(*algorithm, value)?;
            if received.digested.sum(*algorithm) != value {
                return Err(s3_error!(
                    BadDigest,
                    "The {} you specified did not match what we received.",
                    algorithm.name()
                ));
            }
        }
        Ok(())
    }

    fn trailer(&self, algorithm: Algorithm) -> Option<String> {
        let value =
            |trailers: &hyper::HeaderMap| Some(trailers.get(algorithm.header())?.to_str().ok()?.trim().to_owned());
        self.trailers.as_ref()?.read(value)?
    }
}

impl Received {
    /// The checksum of an algorithm that was asked for.
    pub fn sum(&self, algorithm: Algorithm) -> &str {
        self.digested.sum(algorithm)
    }

    /// The checksum that is stored with the object.
    pub fn checksum(&self) -> Checksum {
        let algorithm = self.claimed.unwrap_or(Algorithm::DEFAULT);
        Checksum::full(algorithm, self.sum(algorithm).to_owned())
    }

    /// The content of an object that is just this body.
    pub fn content(&self) -> Vec<Extent> {
        let extent = |body: &Arc<Body>| Extent { body: body.id(), offset: 0, length: self.size };
        self.body.iter().map(extent).collect()
    }
}

/// Receives a whole body and checks it. `wanted` is computed besides what the client chose.
///
/// # Errors
/// `BadDigest`, `IncompleteBody`, `EntityTooLarge`, and `InternalError` when the disk fails.
pub(super) async fn receive(
    store: &Store,
    stream: Option<StreamingBlob>,
    claims: &Claims,
    wanted: Algorithm,
) -> S3Result<Received> {
    let claimed = claims.checksum.iter().map(|(algorithm, _)| *algorithm).chain(claims.algorithm);
    let algorithms: Vec<_> = claimed.chain([wanted]).collect();
    let mut spool = Spool::new(store, &algorithms);
    if let Some(mut stream) = stream {
        while let Some(chunk) = stream.next().await {
            spool.push(chunk.map_err(|error| stream_error(&error))?).await?;
        }
    }
    let received = spool.finish(claims.chosen()).await?;
    claims.check(&received)?;
    Ok(received)
}

/// The MD5 of bytes that are in the store already.
///
/// # Errors
/// `InternalError` when the disk fails.
pub(super) async fn md5(pinned: Vec<Pinned>) -> S3Result<[u8; 16]> {
    Ok(read_again(pinned, Md5::new(), Md5::update).await?.finalize())
}

/// A checksum of bytes that are in the store already.
///
/// # Errors
/// `InternalError` when the disk fails.
pub(super) async fn checksum(pinned: Vec<Pinned>, algorithm: Algorithm) -> S3Result<String> {
    Ok(read_again(pinned, Sum::new(algorithm), Sum::update).await?.finish())
}

async fn read_again<H: Send + 'static>(pinned: Vec<Pinned>, mut hash: H, update: fn(&mut H, &[u8])) -> S3Result<H> {
    let task = tokio::task::spawn_blocking(move || {
        for piece in &pinned {
            piece.read_all(PIECE_BYTES, |bytes| update(&mut hash, bytes))?;
        }
        Ok::<_, io::Error>(hash)
    });
    joined(task).await
}

struct Spool {
    body: Arc<Body>,
    size: u64,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    /// `None` while a piece is being written.
    writer: Option<Writer>,
    writing: Option<JoinHandle<io::Result<Writer>>>,
}

struct Writer {
    body: Arc<Body>,
    file: Option<File>,
    digests: Digests,
}

impl Spool {
    fn new(store: &Store, algorithms: &[Algorithm]) -> Self {
        let body = store.create_body();
        let writer = Writer { body: Arc::clone(&body), file: None, digests: Digests::new(algorithms) };
        Self { body, size: 0, gathered: Vec::new(), gathered_bytes: 0, writer: Some(writer), writing: None }
    }

    async fn push(&mut self, chunk: Bytes) -> S3Result<()> {
        self.size += chunk.len() as u64;
        if self.size > MAX_UPLOAD_BYTES {
            return Err(s3_error!(EntityTooLarge));
        }
        self.gathered_bytes += chunk.len();
        self.gathered.push(chunk);
        if self.gathered_bytes >= PIECE_BYTES { self.start_write().await } else { Ok(()) }
    }

    async fn start_write(&mut self) -> S3Result<()> {
        let mut writer = self.idle_writer().await?;
        let piece = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        self.writing = Some(tokio::task::spawn_blocking(move || {
            writer.write(&piece)?;
            Ok(writer)
        }));
        Ok(())
    }

    async fn idle_writer(&mut self) -> S3Result<Writer> {
        match self.writing.take() {
            Some(task) => joined(task).await,
            None => Ok(self.writer.take().expect("the writer is idle when it is not writing")),
        }
    }

    async fn finish(mut self, claimed: Option<Algorithm>) -> S3Result<Received> {
        if self.gathered_bytes > 0 {
            self.start_write().await?;
        }
        let digested = self.idle_writer().await?.digests.finish();
        let body = (self.size > 0).then_some(self.body);
        Ok(Received { body, size: self.size, md5: digested.md5, digested, claimed })
    }
}

impl Writer {
    fn write(&mut self, piece: &[Bytes]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            slot => slot.insert(self.body.create_file()?),
        };
        for bytes in piece {
            self.digests.update(bytes);
            file.write_all(bytes)?;
        }
        Ok(())
    }
}

/// Waits for a blocking task.
///
/// # Errors
/// `InternalError` when the disk failed, or the server stops.
pub(super) async fn joined<T>(task: JoinHandle<io::Result<T>>) -> S3Result<T> {
    task.await.map_err(S3Error::internal_error)?.map_err(S3Error::internal_error)
}

fn check_md5(claimed: &str, md5: [u8; 16]) -> S3Result<()> {
    match BASE64.decode(claimed) {
        Ok(digest) if digest.len() != md5.len() => Err(s3_error!(InvalidDigest)),
        Err(_) => Err(s3_error!(InvalidDigest)),
        Ok(digest) if digest == md5 => Ok(()),
        Ok(_) => Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received.")),
    }
}

/// `s3s` verifies the payload's hash and the signatures of its chunks while it is read, and tells
/// what it found in error types of its own that have no public name: their text has to do.
fn stream_error(error: &StdError) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        let code = S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into());
        let mut error = S3Error::with_message(code, "The provided 'x-amz-content-sha256' header does not match.");
        error.set_status_code(StatusCode::BAD_REQUEST);
        return error;
    }
    if text.contains("SignatureMismatch") {
        return s3_error!(SignatureDoesNotMatch);
    }
    s3_error!(IncompleteBody, "The upload broke off: {text}")
}
