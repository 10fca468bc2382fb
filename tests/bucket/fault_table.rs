//! Faults at the server × what writes: each cell is right data, or the right errno within the deadline.
//!
//! A fault that passes meets one request, one that stays meets all of them. Whatever is answered, the
//! key holds the old bytes or the new ones, and no upload is left.

use futures::stream::{self, StreamExt};
use nix::errno::Errno;

use super::*;

const OPERATIONS: [&str; 6] =
    ["PutObject", "UploadPart", "CompleteMultipartUpload", "CopyObject", "DeleteObject", "DeleteObjects"];

/// Longest time for an operation here; what takes much longer hangs.
const DEADLINE: Duration = Duration::from_secs(8);
/// Most of them wait.
const CELLS_AT_A_TIME: usize = 8;
const HANGS_AFTER: Duration = Duration::from_mins(1);

/// What is answered: `None` is success.
type Answer = Option<Errno>;
const FINE: Answer = None;
const STALE: Answer = Some(Errno::ESTALE);
const AGAIN: Answer = Some(Errno::EAGAIN);
const GONE: Answer = Some(Errno::EHOSTUNREACH);
const LATE: Answer = Some(Errno::ETIMEDOUT);
const BROKEN: Answer = Some(Errno::EIO);

/// A fault, and for each operation what is answered when it passes and when it stays.
const TABLE: [(FaultKind, [(Answer, Answer); 6]); 13] = [
    (FaultKind::ResetBefore, [(FINE, GONE); 6]),
    (FaultKind::ResetDuring, [(FINE, GONE); 6]),
    // The server may take long to copy and to complete: one try has all the time there is.
    (FaultKind::Hang, [(FINE, LATE), (FINE, LATE), (LATE, LATE), (LATE, LATE), (FINE, LATE), (FINE, LATE)]),
    (FaultKind::Status(500), [(FINE, AGAIN); 6]),
    (FaultKind::Status(503), [(FINE, AGAIN); 6]),
    (FaultKind::Status(429), [(FINE, AGAIN); 6]),
    // Two writes met: S3 wants the loser to try again.
    (FaultKind::Status(409), [(FINE, STALE); 6]),
    (FaultKind::Status(412), [(STALE, STALE); 6]),
    (FaultKind::AppliedThenLostReply, [(FINE, GONE); 6]),
    (FaultKind::ErrorIn200, [(FINE, AGAIN); 6]),
    // Of what was sent: the server tells. A copy and a delete of one send nothing.
    (FaultKind::FlippedBit, [(FINE, BROKEN), (FINE, BROKEN), (FINE, AGAIN), (FINE, FINE), (FINE, FINE), (FINE, AGAIN)]),
    (FaultKind::WrongChecksum, [(FINE, FINE); 6]),
    (FaultKind::NoSuchUpload, [(STALE, STALE); 6]),
];

/// One place in the table.
#[derive(Clone, Copy, Debug)]
struct Cell {
    fault: FaultKind,
    operation: &'static str,
    stays: bool,
    wanted: Answer,
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (fault, row) in TABLE {
        for (operation, (passes, stays)) in OPERATIONS.into_iter().zip(row) {
            cells.push(Cell { fault, operation, stays: false, wanted: passes });
            cells.push(Cell { fault, operation, stays: true, wanted: stays });
        }
    }
    cells
}

impl Cell {
    /// Then the server cannot tell by a key whom the fault is for.
    fn names_many_keys(self) -> bool {
        self.operation == "DeleteObjects"
    }

    fn has_new_bytes(self) -> Bytes {
        if self.operation == "CopyObject" { "to be copied".into() } else { bytes(300_000) }
    }

    /// Does the operation on `key`, which holds `etag`.
    async fn act(self, bucket: &Arc<dyn Bucket>, key: &str, etag: ETag) -> Result<(), Errno> {
        let metadata = Metadata::from([("s3mount-op".to_owned(), key.to_owned())]);
        let over = PutOptions { metadata, ..options(Condition::IfMatch(etag)) };
        let done = match self.operation {
            "PutObject" => bucket.put(key, self.has_new_bytes(), &over).await.map(drop),
            "CopyObject" => {
                let from = format!("{key}-source");
                let request = CopyRequest { replace: Some(over), ..CopyRequest::new(from, key.to_owned()) };
                bucket.copy(&request).await.map(drop)
            }
            "DeleteObject" => bucket.delete(key, None).await,
            "DeleteObjects" => match bucket.delete_many(&[Deletion::of_any(key)]).await {
                Ok(failed) => failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error)),
                Err(error) => Err(error),
            },
            _ => {
                let settings = UploadSettings::default();
                let body = self.has_new_bytes();
                let size = body.len() as u64;
                upload::upload(bucket, key, Arc::new(body), size, &over, &settings).await.map(drop)
            }
        };
        done.map_err(|error| error.kind.errno())
    }

    /// Says what is wrong.
    async fn play(self, place: &Place, number: usize) -> Result<(), String> {
        let key = place.key(&format!("cell-{number:03}"));
        let connection = connect(&impatient(&place.server)).await.expect("the server answers");
        let bucket = &connection.bucket;
        let etag = place.bucket().put(&key, "old".into(), &PutOptions::default()).await.expect("no fault yet");
        place
            .bucket()
            .put(&format!("{key}-source"), self.has_new_bytes(), &PutOptions::default())
            .await
            .expect("no fault yet");
        let times = if self.stays { u32::MAX } else { 1 };
        let key_contains = (!self.names_many_keys()).then(|| key.clone());
        let fault = Fault { times, key_contains, ..Fault::once(self.operation, self.fault) };
        place.server.faults().add(fault.clone());
        let answer = tokio::time::timeout(HANGS_AFTER, self.act(bucket, &key, etag)).await;
        let answer = answer.map_err(|_| "no answer".to_owned())?;
        let is_met = !place.server.faults().waiting().contains(&fault);
        place.server.faults().forget(fault.key_contains.as_deref());
        let found = place.bucket().get(&key, None, None).await.ok().map(|fetched| fetched.bytes);
        let new = (!self.operation.starts_with("Delete")).then(|| self.has_new_bytes());
        if !is_met {
            return Err("the fault met nothing".to_owned());
        }
        // The answer's checksum need not be believed: what was stored is right.
        let doubted = self.fault == FaultKind::WrongChecksum && answer == Err(Errno::EIO);
        if answer.err() != self.wanted && !doubted {
            return Err(format!("answered {answer:?}"));
        }
        if found != new && (answer.is_ok() || found != Some("old".into())) {
            return Err(format!("answered {answer:?} with {:?} bytes", found.map(|bytes| bytes.len())));
        }
        match place.bucket().list_uploads(&key).await.expect("no fault any more").len() {
            0 => Ok(()),
            left => Err(format!("{left} uploads left")),
        }
    }
}

fn impatient(server: &Server) -> ConnectSettings {
    ConnectSettings { deadline: DEADLINE, max_attempts: 4, ..settings(server) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_every_write_is_right_data_or_the_right_errno() {
    let place = Place::new().await;
    let place = &place;
    let playing = cells().into_iter().enumerate().map(|(number, cell)| async move {
        let played = if cell.names_many_keys() {
            cell.play(&Place::new().await, number).await
        } else {
            cell.play(place, number).await
        };
        played.map_err(|wrong| format!("{cell:?}: {wrong}")).err()
    });
    let wrong: Vec<String> =
        stream::iter(playing).buffer_unordered(CELLS_AT_A_TIME).filter_map(|wrong| async { wrong }).collect().await;
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
