//! Ends of operations that nobody waits for: gathered for a moment, and written in one transaction. A
//! commit of its own for each would keep the closes waiting that come meanwhile.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::store::Change;
use super::writer::Sender;
use super::{IntentId, NewEvent, Result};

/// How long the first of them waits for others.
const MOMENT: Duration = Duration::from_millis(20);

/// What has ended and is not written yet.
#[derive(Debug, Default)]
pub(super) struct Gathering(Mutex<Vec<End>>);

#[derive(Debug)]
struct End {
    intents: Vec<IntentId>,
    events: Vec<NewEvent>,
    done: oneshot::Sender<Result<()>>,
}

impl Gathering {
    /// Takes it in. The answer comes when it is written, with all that came meanwhile.
    pub(super) fn add(
        self: &Arc<Self>,
        sender: Sender,
        intents: Vec<IntentId>,
        events: Vec<NewEvent>,
    ) -> oneshot::Receiver<Result<()>> {
        let (done, outcome) = oneshot::channel();
        let is_first = {
            let mut ends = self.0.lock();
            ends.push(End { intents, events, done });
            ends.len() == 1
        };
        if is_first {
            // A task of its own: whoever came first may be given up before the others.
            let (gathering, sender) = (Arc::clone(self), sender.downgrade());
            tokio::spawn(async move {
                tokio::time::sleep(MOMENT).await;
                if let Some(sender) = sender.upgrade() {
                    gathering.commit(sender).await;
                }
            });
        }
        outcome
    }

    /// Writes what was gathered so far. Whoever waits for it hears of it.
    pub(super) async fn commit(&self, sender: Sender) {
        let ends = std::mem::take(&mut *self.0.lock());
        if ends.is_empty() {
            return;
        }
        let (mut intents, mut events, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for end in ends {
            intents.extend(end.intents);
            events.extend(end.events);
            waiting.push(end.done);
        }
        let outcome = sender.change(Change::Settle { intents, events }).await;
        for done in waiting {
            if let Err(Err(error)) = done.send(outcome.clone()) {
                // Nobody waits for it: the next start finds the records.
                tracing::debug!(cause = %error, "operations that have ended still stand in the journal");
            }
        }
    }
}
