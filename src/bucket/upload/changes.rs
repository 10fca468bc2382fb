//! The next version of an object, made of parts of the version before and of others that are sent.
//!
//! What is known goes first: a part that lacks bytes is sent while they come, and neither they nor the copies
//! wait for each other. The upload begins beside all of it, as soon as it is known what the version will carry.

use std::future::Future;
use std::sync::Arc;

use futures::future::{join, try_join};
use tokio::sync::{Notify, watch};

use super::plan::PlannedPart;
use super::{Arriving, PartSource, Session, UploadSettings, local};
use crate::bucket::{self, Bucket, CopyRequest, ETag, Error, Part, PutOptions};
use crate::error::Kind;

/// What all parts need.
struct Making<'a> {
    from: &'a CopyRequest,
    source: &'a dyn PartSource,
    settings: &'a UploadSettings,
    /// The upload, once it has begun.
    session: watch::Receiver<Option<Arc<Session>>>,
}

/// Makes the next version of `from.to` of these parts: what is copied comes from the version
/// `from.from_etag` of `from.from`, what is sent from `source`. As in [`super::copy_large`], `options` is all
/// that the new object has; they may become known by what the source fetches. Where it is `likely` what they
/// will be, the upload begins with that, and once more if they are others.
///
/// # Errors
/// Those of the requests and of `options`; [`Kind::Changed`] or [`Kind::NotFound`] when the version to copy
/// from is gone. The upload is aborted then.
pub async fn upload_changes<E: From<Error>>(
    bucket: &Arc<dyn Bucket>,
    from: &CopyRequest,
    parts: Vec<PlannedPart>,
    source: &dyn PartSource,
    options: impl Future<Output = Result<PutOptions, E>>,
    likely: Option<PutOptions>,
    settings: &UploadSettings,
) -> Result<ETag, E> {
    let (tell, session) = watch::channel(None);
    let given_up = Notify::new();
    let making = Making { from, source, settings, session };
    let parts = async {
        let parts = Session::make_all(in_order(parts, source), settings.concurrency, |part| making.make(part)).await;
        given_up.notify_one();
        parts
    };
    let begin = Beginning { bucket, key: &from.to, settings, given_up: &given_up }.begin(options, likely, tell);
    match join(begin, parts).await {
        (Ok(Some((session, options))), parts) => Ok(session.finish(parts, &options).await?),
        (Err(error), _) => Err(error),
        (Ok(None), parts) => Err(parts.err().unwrap_or_else(|| not_begun(from)).into()),
    }
}

/// An upload that begins as soon as it is known what it will carry.
struct Beginning<'a> {
    bucket: &'a Arc<dyn Bucket>,
    key: &'a str,
    settings: &'a UploadSettings,
    given_up: &'a Notify,
}

impl Beginning<'_> {
    /// Begins the upload and tells those who wait for it, unless the parts are given up before it is known what
    /// it will carry.
    async fn begin<E: From<Error>>(
        self,
        options: impl Future<Output = Result<PutOptions, E>>,
        likely: Option<PutOptions>,
        tell: watch::Sender<Option<Arc<Session>>>,
    ) -> Result<Option<(Arc<Session>, PutOptions)>, E> {
        let options = async {
            tokio::select! {
                biased;
                () = self.given_up.notified() => Ok(None),
                options = options => options.map(Some),
            }
        };
        // Not dropped from here on, whatever becomes of the parts: nobody would know what to abort.
        let (options, begun) = join(options, self.begin_likely(likely)).await;
        let session = match (options, begun) {
            (Ok(Some(options)), Some((session, likely))) if likely.makes_same(&options, self.key) => {
                Some((session, options))
            }
            (Ok(Some(options)), begun) => {
                let (session, ()) = join(self.begin_with(&options), give_up(begun)).await;
                Some((session?, options))
            }
            (options, begun) => {
                give_up(begun).await;
                options?;
                None
            }
        };
        Ok(session.map(|(session, options)| {
            let session = Arc::new(session);
            tell.send_replace(Some(session.clone()));
            (session, options)
        }))
    }

    async fn begin_with(&self, options: &PutOptions) -> bucket::Result<Session> {
        Session::begin(self.bucket, self.key, options, self.settings.on_begin.as_ref()).await
    }

    async fn begin_likely(&self, likely: Option<PutOptions>) -> Option<(Session, PutOptions)> {
        let likely = likely?;
        match self.begin_with(&likely).await {
            Ok(session) => Some((session, likely)),
            Err(error) => {
                tracing::debug!(cause = %error, "an upload could not begin before it was known what it carries");
                None
            }
        }
    }
}

async fn give_up(begun: Option<(Session, PutOptions)>) {
    if let Some((session, _)) = begun {
        session.abort().await;
    }
}

/// The parts with their numbers, those first that lack something: others may wait for what comes with it.
fn in_order(parts: Vec<PlannedPart>, source: &dyn PartSource) -> impl Iterator<Item = (u16, PlannedPart)> {
    let mut parts: Vec<_> = (1..).zip(parts).collect();
    parts.sort_by_key(|(_, part)| match part {
        PlannedPart::Send(range) if source.lacks(range) => 0,
        PlannedPart::Send(_) => 1,
        PlannedPart::Copy(_) => 2,
    });
    parts.into_iter()
}

impl Making<'_> {
    async fn make(&self, (number, part): (u16, PlannedPart)) -> bucket::Result<Part> {
        match part {
            PlannedPart::Copy(range) => self.session().await?.copy_part(self.from, number, range).await,
            PlannedPart::Send(range) if self.source.lacks(&range) => self.send_while_it_comes(number, range).await,
            PlannedPart::Send(range) => {
                self.session().await?.send_part(self.source, number, range, self.settings).await
            }
        }
    }

    async fn send_while_it_comes(&self, number: u16, range: std::ops::Range<u64>) -> bucket::Result<Part> {
        let size = range.end - range.start;
        let _memory = self.settings.lend(size).await;
        let part = Arc::new(Arriving::new(size));
        let send = async { self.session().await?.send_arriving(number, &part).await };
        // What fails first is the cause.
        let ((), part) = try_join(self.source.bring(range, &part), send).await?;
        Ok(part)
    }

    async fn session(&self) -> bucket::Result<Arc<Session>> {
        let mut begins = self.session.clone();
        let session = begins.wait_for(Option::is_some).await.map_err(|_| not_begun(self.from))?;
        session.clone().ok_or_else(|| not_begun(self.from))
    }
}

/// Somebody else has the cause of this.
fn not_begun(from: &CopyRequest) -> Error {
    Error { kind: Kind::Local, ..local(&from.to, "the upload has not begun".to_owned()) }
}
