//! Requests to S3, whoever they are for.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;

use super::work::{Fate, behalf};
use super::{Fault, Ids, Moment, Span, Tracer, Work, tracer};

/// What is called the fault of a request that nobody waits for any more.
const ABANDONED: &str = "abandoned";

tokio::task_local! {
    /// The request that this task is making.
    static REQUEST: Arc<Mutex<Seen>>;
}

/// What is seen of a request on its way.
#[derive(Debug, Default)]
struct Seen {
    tries: u32,
    http_status: Option<u16>,
    request_id: Option<String>,
}

/// A request that is told when it ends, or when it is dropped.
struct Request<'a> {
    tracer: &'static Tracer,
    ids: Ids,
    parent: Option<[u8; 8]>,
    begun: Moment,
    operation: &'static str,
    key: &'a str,
    seen: Arc<Mutex<Seen>>,
    fault: Option<Fault>,
}

/// Makes a request with all of its tries. Where nobody collects, that is all.
pub async fn asking_s3<T, E>(
    operation: &'static str,
    key: &str,
    asking: impl Future<Output = Result<T, E>>,
    fault: impl FnOnce(&E) -> Fault,
) -> Result<T, E> {
    let Some(mut request) = Request::begin(operation, key) else { return asking.await };
    let answer = REQUEST.scope(Arc::clone(&request.seen), asking).await;
    request.fault = answer.as_ref().err().map(fault);
    answer
}

/// The request of this task is sent, perhaps once more.
pub fn tried() {
    // Without a request there is nobody to tell.
    let _ = REQUEST.try_with(|seen| seen.lock().tries += 1);
}

/// The request of this task was answered so; of several answers the last one counts.
pub fn answered(http_status: u16, request_id: Option<&str>) {
    let _ = REQUEST.try_with(|seen| {
        let mut seen = seen.lock();
        seen.http_status = Some(http_status);
        seen.request_id = request_id.map(str::to_owned);
    });
}

impl<'a> Request<'a> {
    /// `None` where nobody collects, or not this trace.
    fn begin(operation: &'static str, key: &'a str) -> Option<Self> {
        let tracer = tracer()?;
        let (ids, parent) = match behalf(tracer) {
            Some(Fate::Told(parent)) => (parent.child(), Some(parent.span)),
            Some(Fate::Skipped) => return None,
            Some(Fate::Untold) | None => match Fate::of_new(tracer) {
                Fate::Told(ids) => (ids, None),
                _ => return None,
            },
        };
        // Until it ends otherwise.
        let fault = Some(Fault { kind: ABANDONED.to_owned(), words: String::new() });
        Some(Self { tracer, ids, parent, begun: Moment::now(), operation, key, seen: Arc::default(), fault })
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let Seen { tries, http_status, request_id } = std::mem::take(&mut *self.seen.lock());
        let (operation, key) = (self.operation, self.key.to_owned());
        let Moment(begun, since) = self.begun;
        self.tracer.tell(Span {
            ids: self.ids,
            parent: self.parent,
            begun,
            took: since.elapsed(),
            work: Work::S3 { operation, key, tries, http_status, request_id },
            fault: self.fault.take(),
        });
    }
}
