//! Between the file system and synchronous hooks: what one proposes, the others are asked about.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::bucket::ETag;
use crate::fs::{Answer, Gatekeeper, Proposal, Proposed, Refusal};
use crate::hooks::{Bytes, Decision, Hooks, Question};
use crate::journal::EventName;

/// Asks the hooks of a mount.
pub(super) struct Gate(Arc<Hooks>);

impl Gate {
    pub(super) fn new(hooks: &Arc<Hooks>) -> Self {
        Self(Arc::clone(hooks))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

#[async_trait]
impl Gatekeeper for Gate {
    fn is_awake(&self) -> bool {
        self.0.has_synchronous()
    }

    fn guards(&self, event: EventName, key: &str) -> bool {
        self.0.is_asked(event, key)
    }

    async fn ask(&self, proposal: Proposal) -> Answer {
        let Proposal { event, key, size, bytes } = proposal;
        let bytes = bytes.map(|bytes| match bytes {
            Proposed::File(path) => Bytes::File(path),
            Proposed::Version { key, etag } => Bytes::Version { key, etag },
        });
        match self.0.ask(&Question { event, key, size, bytes }).await {
            Decision::Allowed => Answer::Allowed,
            Decision::Refused { hook, errno, reason } => Answer::Refused(Refusal { errno, by: hook, reason }),
            Decision::Unanswered => Answer::Unanswered("hooks are being stopped".into()),
        }
    }

    async fn tell_of(&self, key: &str, etag: Option<&ETag>) -> Option<String> {
        let told = self.0.standing(key, etag).await;
        told.unwrap_or_else(|error| {
            tracing::warn!(key, %error, "how far hooks are cannot be told");
            None
        })
    }
}
