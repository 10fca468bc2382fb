//! Tables and records, and what a change does to them.

use std::ops::{Bound, ControlFlow};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{
    Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::seen;
use super::{DeadTask, Error, Event, EventName, Intent, IntentId, NewCall, NewEvent, Result, Seen, Task};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const INTENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("intents");
pub(super) const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");
pub(super) const TASKS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("tasks");
pub(super) const DEAD: TableDefinition<u64, &[u8]> = TableDefinition::new("dead");

/// Tasks that were given up and are kept.
pub(super) const MAX_DEAD: u64 = 10_000;
/// First byte of every record: JSON as the types of this version write it. A later version that
/// can't read it as it stands takes another number and converts.
const RECORD_VERSION: u8 = 1;
/// Layout of the tables, under `format` in `meta`.
const FORMAT: u64 = 1;
const FORMAT_ROW: &str = "format";
const NEXT_EVENT_ROW: &str = "next event";
const NEXT_TASK_ROW: &str = "next task";

/// One change, applied whole or not at all.
#[derive(Debug)]
pub(super) enum Change {
    Intend {
        id: IntentId,
        intent: Intent,
    },
    Settle {
        intents: Vec<IntentId>,
        events: Vec<NewEvent>,
    },
    /// Operations end, others take their place.
    Replace {
        ended: Vec<IntentId>,
        begun: Vec<(IntentId, Intent)>,
    },
    /// Notes were settled; the intent of those before them ends.
    Removed {
        id: IntentId,
        notes: Vec<u64>,
        events: Vec<NewEvent>,
        before: Option<IntentId>,
    },
    /// Events became tasks of these hooks.
    FanOut(Vec<(Event, Vec<String>)>),
    /// A task is done, and its output made new facts.
    Finish {
        hook: String,
        number: u64,
        events: Vec<NewEvent>,
        calls: Vec<NewCall>,
        /// The key, and what the hook was done with of it.
        seen: Option<(String, Seen)>,
    },
    /// Somebody calls hooks.
    Call(Vec<NewCall>),
    /// A task failed and will be tried again.
    Postpone(Task),
    /// A task failed for the last time.
    Bury(DeadTask, Vec<NewCall>),
    /// Dead tasks become open ones again.
    Redrive {
        numbers: Vec<u64>,
        now: SystemTime,
    },
    ForgetDead {
        numbers: Vec<u64>,
    },
}

impl Change {
    /// Whether hooks may find something new after it.
    pub(super) fn concerns_hooks(&self) -> bool {
        match self {
            Self::Intend { .. } | Self::Replace { .. } => false,
            Self::Settle { events, .. } | Self::Removed { events, .. } => !events.is_empty(),
            Self::FanOut(_) | Self::Finish { .. } | Self::Call(_) | Self::Postpone(_) | Self::Bury(..) => true,
            Self::Redrive { numbers, .. } | Self::ForgetDead { numbers } => !numbers.is_empty(),
        }
    }
}

/// The open file.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) database: redb::Database,
}

impl Store {
    /// Makes the tables where they are missing, so that readers always find them.
    pub(super) fn new(database: redb::Database) -> Result<Self> {
        let store = Self { database };
        let transaction = store.begin()?;
        {
            let mut meta = transaction.open_table(META).map_err(storage)?;
            let found = meta.get(FORMAT_ROW).map_err(storage)?.map(|row| row.value());
            match found {
                None => drop(meta.insert(FORMAT_ROW, FORMAT).map_err(storage)?),
                Some(FORMAT) => {}
                Some(other) => return Err(Error::corrupt("its format", format!("{other} is none this version knows"))),
            }
            transaction.open_table(INTENTS).map_err(storage)?;
            transaction.open_table(EVENTS).map_err(storage)?;
            transaction.open_table(TASKS).map_err(storage)?;
            transaction.open_table(DEAD).map_err(storage)?;
            transaction.open_table(seen::TABLE).map_err(storage)?;
        }
        transaction.commit().map_err(|error| Error::storage("its first commit", error))?;
        Ok(store)
    }

    /// Applies changes in one transaction that has reached the disk when this returns.
    pub(super) fn apply(&self, changes: Vec<Change>) -> Result<()> {
        let transaction = self.begin()?;
        for change in changes {
            apply_one(&transaction, change)?;
        }
        transaction.commit().map_err(|error| Error::storage("commit", error))
    }

    pub(super) fn intents(&self) -> Result<Vec<(IntentId, Intent)>> {
        let table = self.read(INTENTS)?;
        rows(&table)?.map(|row| row.and_then(|(id, bytes)| Ok((IntentId(id), decode("intent", &bytes)?)))).collect()
    }

    /// The oldest events that have no tasks yet.
    pub(super) fn events(&self, limit: usize) -> Result<Vec<Event>> {
        let table = self.read(EVENTS)?;
        rows(&table)?.take(limit).map(|row| row.and_then(|(_, bytes)| decode("event", &bytes))).collect()
    }

    pub(super) fn events_waiting(&self) -> Result<u64> {
        self.read(EVENTS)?.len().map_err(storage)
    }

    /// Whether there are no events, and no tasks of these hooks.
    pub(super) fn is_at_rest(&self, hooks: &[String]) -> Result<bool> {
        let transaction = self.database.begin_read().map_err(|error| Error::storage("read", error))?;
        if !transaction.open_table(EVENTS).map_err(storage)?.is_empty().map_err(storage)? {
            return Ok(false);
        }
        let tasks = transaction.open_table(TASKS).map_err(storage)?;
        for hook in hooks {
            if has_tasks(&tasks, hook)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a hook has a task.
    pub(super) fn has_tasks(&self, hook: &str) -> Result<bool> {
        has_tasks(&self.read(TASKS)?, hook)
    }

    /// The oldest tasks of a hook with a larger number than this.
    pub(super) fn tasks_after(&self, hook: &str, number: u64, limit: usize) -> Result<Vec<Task>> {
        let table = self.read(TASKS)?;
        let from = Bound::Excluded((hook, number));
        let range = table.range::<(&str, u64)>((from, Bound::Included((hook, u64::MAX)))).map_err(storage)?;
        let decoded =
            range.take(limit).map(|row| row.map_err(storage).and_then(|(_, value)| decode("task", value.value())));
        decoded.collect()
    }

    /// Shows tasks of a hook, oldest first, until told to stop: of the first `limit` those with wanted
    /// numbers.
    pub(super) fn visit_tasks(
        &self,
        hook: &str,
        limit: usize,
        wanted: impl Fn(u64) -> bool,
        mut visit: impl FnMut(Task) -> ControlFlow<()>,
    ) -> Result<()> {
        let table = self.read(TASKS)?;
        for row in table.range((hook, 0)..=(hook, u64::MAX)).map_err(storage)?.take(limit) {
            let (key, value) = row.map_err(storage)?;
            if wanted(key.value().1) && visit(decode("task", value.value())?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The oldest tasks of a hook that are wanted.
    pub(super) fn tasks_where(&self, hook: &str, limit: usize, wanted: impl Fn(&Task) -> bool) -> Result<Vec<Task>> {
        let table = self.read(TASKS)?;
        let mut found = Vec::new();
        for row in table.range((hook, 0)..=(hook, u64::MAX)).map_err(storage)? {
            let task: Task = decode("task", row.map_err(storage)?.1.value())?;
            if wanted(&task) {
                found.push(task);
            }
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    /// Names the hook of each task.
    pub(super) fn count_tasks(&self, mut count: impl FnMut(&str)) -> Result<()> {
        for row in self.read(TASKS)?.range::<(&str, u64)>(..).map_err(storage)? {
            count(row.map_err(storage)?.0.value().0);
        }
        Ok(())
    }

    /// Every hook that has a task.
    pub(super) fn hooks(&self) -> Result<Vec<String>> {
        let table = self.read(TASKS)?;
        let mut hooks: Vec<String> = Vec::new();
        loop {
            let after = hooks.last().map_or("", String::as_str);
            let from = if hooks.is_empty() { Bound::Unbounded } else { Bound::Excluded((after, u64::MAX)) };
            let next = table.range::<(&str, u64)>((from, Bound::Unbounded)).map_err(storage)?.next();
            match next {
                None => return Ok(hooks),
                Some(row) => {
                    let name = row.map_err(storage)?.0.value().0.to_owned();
                    hooks.push(name);
                }
            }
        }
    }

    pub(super) fn dead(&self) -> Result<Vec<DeadTask>> {
        let table = self.read(DEAD)?;
        rows(&table)?.map(|row| row.and_then(|(_, bytes)| decode("dead task", &bytes))).collect()
    }

    /// Names the hook of each task that was given up. Reads no more of each than whose it is: there may be
    /// ten thousand.
    pub(super) fn count_dead(&self, mut count: impl FnMut(&str)) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct Dead {
            task: Whose,
        }
        #[derive(serde::Deserialize)]
        struct Whose {
            hook: String,
        }
        for row in rows(&self.read(DEAD)?)? {
            let dead: Dead = decode("dead task", &row?.1)?;
            count(&dead.task.hook);
        }
        Ok(())
    }

    pub(super) fn seen(&self, hook: &str, key: &str) -> Result<Option<Seen>> {
        let row = self.read(seen::TABLE)?.get((key, hook)).map_err(storage)?;
        row.map(|row| decode("seen version", row.value())).transpose()
    }

    fn begin(&self) -> Result<WriteTransaction> {
        let mut transaction = self.database.begin_write().map_err(|error| Error::storage("begin", error))?;
        transaction.set_durability(Durability::Immediate).map_err(|error| Error::storage("begin", error))?;
        Ok(transaction)
    }

    fn read<K: redb::Key, V: redb::Value>(&self, table: TableDefinition<K, V>) -> Result<redb::ReadOnlyTable<K, V>> {
        let transaction = self.database.begin_read().map_err(|error| Error::storage("read", error))?;
        transaction.open_table(table).map_err(|error| Error::storage("read", error))
    }
}

fn has_tasks(tasks: &impl ReadableTable<(&'static str, u64), &'static [u8]>, hook: &str) -> Result<bool> {
    Ok(tasks.range((hook, 0)..=(hook, u64::MAX)).map_err(storage)?.next().is_some())
}

fn apply_one(transaction: &WriteTransaction, change: Change) -> Result<()> {
    match change {
        Change::Intend { id, intent } => intend(transaction, &[(id, intent)]),
        Change::Replace { ended, begun } => {
            settle(transaction, &ended, Vec::new())?;
            intend(transaction, &begun)
        }
        Change::Settle { intents, events } => settle(transaction, &intents, events),
        Change::Removed { id, notes, events, before } => {
            intend(transaction, &[(id, Intent::Removed { notes })])?;
            settle(transaction, before.as_slice(), events)
        }
        Change::FanOut(events) => fan_out(transaction, events),
        Change::Finish { hook, number, events, calls, seen } => {
            remove_task(transaction, &hook, number)?;
            if let Some((key, seen)) = seen {
                seen::remember(transaction, &hook, &key, &seen)?;
            }
            append(transaction, events)?;
            call(transaction, calls)
        }
        Change::Call(calls) => call(transaction, calls),
        Change::Postpone(task) => put_task(transaction, &task),
        Change::Bury(dead, calls) => {
            remove_task(transaction, &dead.task.hook, dead.task.number)?;
            // It may have done half of it: nothing is as that version left it.
            seen::forget(transaction, &dead.task.hook, &dead.task.event.fact.key)?;
            bury(transaction, &dead)?;
            call(transaction, calls)
        }
        Change::Redrive { numbers, now } => {
            for dead in exhume(transaction, &numbers)? {
                let task = Task { failures: 0, delays: 0, not_before: None, redriven: Some(now), ..dead.task };
                put_task(transaction, &task)?;
            }
            Ok(())
        }
        Change::ForgetDead { numbers } => exhume(transaction, &numbers).map(drop),
    }
}

fn intend(transaction: &WriteTransaction, begun: &[(IntentId, Intent)]) -> Result<()> {
    let mut intents = transaction.open_table(INTENTS).map_err(storage)?;
    for (id, intent) in begun {
        intents.insert(id.0, encode(intent)?.as_slice()).map_err(storage)?;
    }
    Ok(())
}

fn settle(transaction: &WriteTransaction, intents: &[IntentId], events: Vec<NewEvent>) -> Result<()> {
    let mut table = transaction.open_table(INTENTS).map_err(storage)?;
    for intent in intents {
        table.remove(intent.0).map_err(storage)?;
    }
    append(transaction, events)
}

fn append(transaction: &WriteTransaction, facts: Vec<NewEvent>) -> Result<()> {
    if facts.is_empty() {
        return Ok(());
    }
    let mut meta = transaction.open_table(META).map_err(storage)?;
    let mut events = transaction.open_table(EVENTS).map_err(storage)?;
    let first = next_number(&mut meta, NEXT_EVENT_ROW, facts.len() as u64)?;
    for (sequence, fact) in (first..).zip(facts) {
        let event = Event { id: uuid::Uuid::now_v7().to_string(), sequence, fact };
        events.insert(sequence, encode(&event)?.as_slice()).map_err(storage)?;
    }
    Ok(())
}

fn fan_out(transaction: &WriteTransaction, matched: Vec<(Event, Vec<String>)>) -> Result<()> {
    let mut meta = transaction.open_table(META).map_err(storage)?;
    let mut events = transaction.open_table(EVENTS).map_err(storage)?;
    let mut tasks = transaction.open_table(TASKS).map_err(storage)?;
    for (event, hooks) in matched {
        // Gone already: its tasks were made before.
        if events.remove(event.sequence).map_err(storage)?.is_none() {
            continue;
        }
        if event.fact.name == EventName::RemovedDelete {
            seen::forget_key(transaction, &event.fact.key)?;
        }
        let first = next_number(&mut meta, NEXT_TASK_ROW, hooks.len() as u64)?;
        for (number, hook) in (first..).zip(hooks) {
            let task = Task::new(hook, number, None, event.clone());
            tasks.insert((task.hook.as_str(), number), encode(&task)?.as_slice()).map_err(storage)?;
        }
    }
    Ok(())
}

fn call(transaction: &WriteTransaction, calls: Vec<NewCall>) -> Result<()> {
    if calls.is_empty() {
        return Ok(());
    }
    let mut meta = transaction.open_table(META).map_err(storage)?;
    let first = next_number(&mut meta, NEXT_TASK_ROW, calls.len() as u64)?;
    for (number, call) in (first..).zip(calls) {
        put_task(transaction, &call.into_task(number))?;
    }
    Ok(())
}

/// Beyond its limit the oldest goes: a hook that fails for everything must not fill the disk.
fn bury(transaction: &WriteTransaction, dead: &DeadTask) -> Result<()> {
    let mut table = transaction.open_table(DEAD).map_err(storage)?;
    table.insert(dead.task.number, encode(dead)?.as_slice()).map_err(storage)?;
    while table.len().map_err(storage)? > MAX_DEAD {
        table.pop_first().map_err(storage)?;
    }
    Ok(())
}

/// Takes what is there of these out of the dead.
fn exhume(transaction: &WriteTransaction, numbers: &[u64]) -> Result<Vec<DeadTask>> {
    let mut table = transaction.open_table(DEAD).map_err(storage)?;
    let mut found = Vec::new();
    for number in numbers {
        if let Some(row) = table.remove(number).map_err(storage)? {
            found.push(decode("dead task", row.value())?);
        }
    }
    Ok(found)
}

fn put_task(transaction: &WriteTransaction, task: &Task) -> Result<()> {
    let mut tasks = transaction.open_table(TASKS).map_err(storage)?;
    tasks.insert((task.hook.as_str(), task.number), encode(task)?.as_slice()).map_err(storage)?;
    Ok(())
}

fn remove_task(transaction: &WriteTransaction, hook: &str, number: u64) -> Result<()> {
    let mut tasks = transaction.open_table(TASKS).map_err(storage)?;
    tasks.remove((hook, number)).map_err(storage)?;
    Ok(())
}

/// Takes `count` numbers; the first ever taken is the clock's, so that they grow over a lost file.
fn next_number(meta: &mut Table<&'static str, u64>, row: &'static str, count: u64) -> Result<u64> {
    let stored = meta.get(row).map_err(storage)?.map(|value| value.value());
    let first = stored.unwrap_or_else(clock_us);
    meta.insert(row, first + count).map_err(storage)?;
    Ok(first)
}

fn clock_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_micros() as u64)
}

fn rows(
    table: &redb::ReadOnlyTable<u64, &'static [u8]>,
) -> Result<impl Iterator<Item = Result<(u64, Vec<u8>)>> + use<>> {
    let range = table.range(0..=u64::MAX).map_err(storage)?;
    Ok(range.map(|row| row.map_err(storage).map(|(id, bytes)| (id.value(), bytes.value().to_vec()))))
}

pub(super) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    let mut bytes = vec![RECORD_VERSION];
    serde_json::to_writer(&mut bytes, record).map_err(|error| Error::corrupt("a record to be written", error))?;
    Ok(bytes)
}

pub(super) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T> {
    match bytes.split_first() {
        Some((&RECORD_VERSION, json)) => {
            serde_json::from_slice(json).map_err(|error| Error::corrupt(format!("a record ({what})"), error))
        }
        Some((version, _)) => {
            Err(Error::corrupt(format!("a record ({what})"), format!("version {version} is none this version knows")))
        }
        None => Err(Error::corrupt(format!("a record ({what})"), "it is empty")),
    }
}

pub(super) fn storage(error: impl Into<redb::Error>) -> Error {
    Error::storage("access", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_record_is_an_error_and_never_a_panic() {
        let intent = Intent::Upload { key: "a".into(), upload_id: "id".into() };
        let record = encode(&intent).expect("encodes");
        assert_eq!(decode::<Intent>("intent", &record).expect("whole"), intent);
        for length in 0..record.len() {
            assert!(matches!(decode::<Intent>("intent", &record[..length]), Err(Error::Corrupt { .. })), "{length}");
        }
        for at in 0..record.len() {
            let mut flipped = record.clone();
            flipped[at] ^= 0x80;
            assert!(decode::<Intent>("intent", &flipped).is_err(), "byte {at}");
        }
    }
}
