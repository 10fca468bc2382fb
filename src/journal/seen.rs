//! Which version of a key each hook was done with last: a bounded memory, of which any row may be missing.

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::store::{encode, storage};
use super::{Result, Seen};

/// Key of the object, name of the hook.
pub(super) const TABLE: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("seen");
/// Versions remembered; when there are more, some are forgotten, and their hooks run once more than
/// they would have to.
const MAX_ROWS: u64 = 50_000;

/// The hook is done with this version of the key.
pub(super) fn remember(transaction: &WriteTransaction, hook: &str, key: &str, seen: &Seen) -> Result<()> {
    let mut table = transaction.open_table(TABLE).map_err(storage)?;
    while table.len().map_err(storage)? >= MAX_ROWS {
        table.pop_first().map_err(storage)?;
    }
    table.insert((key, hook), encode(seen)?.as_slice()).map_err(storage)?;
    Ok(())
}

/// Nobody can say what the hook has made of the key.
pub(super) fn forget(transaction: &WriteTransaction, hook: &str, key: &str) -> Result<()> {
    let mut table = transaction.open_table(TABLE).map_err(storage)?;
    table.remove((key, hook)).map_err(storage)?;
    Ok(())
}

/// The object is gone: what comes under its key is new to every hook.
pub(super) fn forget_key(transaction: &WriteTransaction, key: &str) -> Result<()> {
    let mut table = transaction.open_table(TABLE).map_err(storage)?;
    let next = format!("{key}\0");
    let range = table.range((key, "")..(next.as_str(), "")).map_err(storage)?;
    let hooks = range.map(|row| row.map(|(row, _)| row.value().1.to_owned()).map_err(storage));
    for hook in hooks.collect::<Result<Vec<String>>>()? {
        table.remove((key, hook.as_str())).map_err(storage)?;
    }
    Ok(())
}
