//! What requests to S3 are made on behalf of.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{BEHALF, Fault, Ids, Moment, Span, Tracer, Work, tracer};

/// From here on an operation is told although it asked S3 for nothing: it waited for what another one fetches, for a
/// lock or for the disk, and somebody will want to know.
const LASTING: Duration = Duration::from_millis(100);

/// Work that has begun. Shared with the tasks that it starts.
#[derive(Debug)]
pub(super) struct Open {
    begun: Moment,
    fate: OnceLock<Fate>,
}

/// Whether there will be a span. Decided once: by the first request to S3, or else by the end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Told(Ids),
    /// It ended without: what it left running begins traces of its own.
    Untold,
    /// Its trace is not among those that are kept, whatever follows of it.
    Skipped,
}

impl Fate {
    /// Of a trace that begins now.
    pub(super) fn of_new(tracer: &Tracer) -> Self {
        let ids = Ids::root();
        if tracer.sampling.keeps(&ids) { Self::Told(ids) } else { Self::Skipped }
    }
}

impl Open {
    /// What a request that is made on its behalf belongs to.
    pub(super) fn asks(&self, tracer: &Tracer) -> Fate {
        *self.fate.get_or_init(|| Fate::of_new(tracer))
    }
}

/// What this task works for, if it is known.
pub(super) fn behalf(tracer: &Tracer) -> Option<Fate> {
    BEHALF.try_with(|open| open.as_ref().map(|open| open.asks(tracer))).ok().flatten()
}

/// An operation whose requests are its own. Told when it ends, if it asked S3 or lasted.
#[derive(Debug)]
pub struct Operation {
    open: Arc<Open>,
    tracer: &'static Tracer,
    parent: Option<[u8; 8]>,
    lasting: Duration,
}

impl Operation {
    /// Begins now; `None` where nobody collects.
    #[must_use]
    pub fn begin() -> Option<Self> {
        let tracer = tracer()?;
        let open = Arc::new(Open { begun: Moment::now(), fate: OnceLock::new() });
        Some(Self { open, tracer, parent: None, lasting: LASTING })
    }

    /// The same for what is told in any case, and may be on behalf of another operation itself.
    #[must_use]
    pub fn begin_told() -> Option<Self> {
        let tracer = tracer()?;
        let (fate, parent) = match behalf(tracer) {
            Some(Fate::Told(parent)) => (Fate::Told(parent.child()), Some(parent.span)),
            Some(Fate::Skipped) => (Fate::Skipped, None),
            Some(Fate::Untold) | None => (Fate::of_new(tracer), None),
        };
        let open = Arc::new(Open { begun: Moment::now(), fate: OnceLock::from(fate) });
        Some(Self { open, tracer, parent, lasting: Duration::ZERO })
    }

    /// What `work` asks S3 for is asked on behalf of this.
    pub fn scope<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        BEHALF.scope(Some(Arc::clone(&self.open)), work)
    }

    /// Ends now.
    pub fn end(self, work: impl FnOnce() -> Work, fault: Option<Fault>) {
        let Moment(begun, since) = self.open.begun;
        let took = since.elapsed();
        let decide = || if took >= self.lasting { Fate::of_new(self.tracer) } else { Fate::Untold };
        if let Fate::Told(ids) = *self.open.fate.get_or_init(decide) {
            self.tracer.tell(Span { ids, parent: self.parent, begun, took, work: work(), fault });
        }
    }
}
