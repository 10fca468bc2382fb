//! How far a hook is with one version of a key, looked for by key. Tasks have no index by key, so what is looked
//! through is bounded, and only what names the key is decoded.

use redb::ReadableDatabase;

use super::store::{DEAD, EVENTS, Store, TASKS, decode, storage};
use super::{DeadTask, Error, Event, Journal, NewEvent, Result, Seen, Task, seen};

/// Events, and tasks of a hook, that are looked through: some milliseconds.
const LOOK_THROUGH: usize = 10_000;
/// The same of tasks that were given up, which have some kilobytes each.
const LOOK_THROUGH_DEAD: usize = 1000;

/// How far a hook is with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It runs for the key at this moment.
    Running,
    /// Its turn, or its next try, is to come.
    Pending,
    Done,
    /// It was given up.
    Failed,
    /// The journal remembers nothing of it: it is older than the hook, or than what is remembered.
    Unknown,
}

impl Journal {
    /// How far a hook is with a version of a key, to which such events lead as are wanted.
    ///
    /// # Errors
    /// [`Error`] when the file can't be read or a record can't be decoded.
    pub fn standing(&self, hook: &str, key: &str, etag: &str, wanted: impl Fn(&NewEvent) -> bool) -> Result<Standing> {
        if self.leases.is_running(hook, key) {
            return Ok(Standing::Running);
        }
        self.store()?.standing(hook, key, etag, wanted)
    }
}

impl Store {
    /// At one moment: an event becomes a task, and a task ends, in a transaction each.
    fn standing(&self, hook: &str, key: &str, etag: &str, wanted: impl Fn(&NewEvent) -> bool) -> Result<Standing> {
        let transaction = self.database.begin_read().map_err(|error| Error::storage("read", error))?;
        let named = named(key);
        let names_it = |record: &[u8]| str::from_utf8(record).is_ok_and(|record| record.contains(&named));
        let events = transaction.open_table(EVENTS).map_err(storage)?;
        for row in events.range(0..=u64::MAX).map_err(storage)?.take(LOOK_THROUGH) {
            let record = row.map_err(storage)?.1;
            if names_it(record.value()) {
                let fact = decode::<Event>("event", record.value())?.fact;
                if fact.key == key && wanted(&fact) {
                    return Ok(Standing::Pending);
                }
            }
        }
        let tasks = transaction.open_table(TASKS).map_err(storage)?;
        for row in tasks.range((hook, 0)..=(hook, u64::MAX)).map_err(storage)?.take(LOOK_THROUGH) {
            let record = row.map_err(storage)?.1;
            if names_it(record.value()) && decode::<Task>("task", record.value())?.event.fact.key == key {
                return Ok(Standing::Pending);
            }
        }
        if let Some(row) = transaction.open_table(seen::TABLE).map_err(storage)?.get((key, hook)).map_err(storage)?
            && decode::<Seen>("seen version", row.value())?.etag == etag
        {
            return Ok(Standing::Done);
        }
        let dead = transaction.open_table(DEAD).map_err(storage)?;
        for row in dead.range(0..=u64::MAX).map_err(storage)?.rev().take(LOOK_THROUGH_DEAD) {
            let record = row.map_err(storage)?.1;
            if names_it(record.value()) {
                let task = decode::<DeadTask>("dead task", record.value())?.task;
                let fact = &task.event.fact;
                if task.hook == hook && fact.key == key && fact.etag.as_deref() == Some(etag) {
                    return Ok(Standing::Failed);
                }
            }
        }
        Ok(Standing::Unknown)
    }
}

/// As the key stands in each record that is about it.
fn named(key: &str) -> String {
    format!("\"key\":{}", serde_json::Value::from(key))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::journal::EventName;

    const KEY: &str = "in/a \"quoted\".txt";

    async fn appended(journal: &Journal, etag: &str) -> Event {
        let fact = NewEvent { etag: Some(etag.into()), ..NewEvent::now(EventName::CreatedPut, KEY) };
        journal.settle(&[], vec![fact]).await.unwrap();
        journal.events(1).unwrap().remove(0)
    }

    /// The hook's task for a new version.
    async fn taken(journal: &Journal, etag: &str) -> Task {
        let event = appended(journal, etag).await;
        journal.fan_out(vec![(event, vec!["h".into()])]).await.unwrap();
        journal.take("h", 1, SystemTime::now()).unwrap().tasks.remove(0)
    }

    #[tokio::test]
    async fn a_version_is_followed_from_its_event_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let standing = |etag: &str| journal.standing("h", KEY, etag, |_| true).unwrap();
        assert_eq!(standing("1"), Standing::Unknown);
        let event = appended(&journal, "1").await;
        assert_eq!(standing("1"), Standing::Pending);
        assert_eq!(journal.standing("h", KEY, "1", |_| false).unwrap(), Standing::Unknown, "it wants no such event");
        journal.fan_out(vec![(event, vec!["h".into()])]).await.unwrap();
        assert_eq!(standing("1"), Standing::Pending);
        assert_eq!(journal.standing("other", KEY, "1", |_| true).unwrap(), Standing::Unknown);
        assert_eq!(journal.standing("h", "in/a", "1", |_| true).unwrap(), Standing::Unknown);
        let task = journal.take("h", 1, SystemTime::now()).unwrap().tasks.remove(0);
        assert_eq!(standing("1"), Standing::Running);
        let done = Seen { etag: "1".into(), size: 0, by: String::new() };
        journal.finish_with(&task, Vec::new(), Vec::new(), Some(done)).await.unwrap();
        assert_eq!((standing("1"), standing("2")), (Standing::Done, Standing::Unknown));
        let task = taken(&journal, "2").await;
        let dead = DeadTask { task, reason: "no".into(), report: String::new(), time: SystemTime::now() };
        journal.bury(dead).await.unwrap();
        assert_eq!((standing("2"), standing("3")), (Standing::Failed, Standing::Unknown));
        let task = taken(&journal, "3").await;
        journal.postpone(&task, SystemTime::now()).await.unwrap();
        assert_eq!(standing("3"), Standing::Pending);
    }
}
