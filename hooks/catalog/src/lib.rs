//! A typed hook: keeps one entry below `catalog/` for each JSON document, and refuses what is none.

use serde_json::{Value, json};

wit_bindgen::generate!({ path: "../wit", world: "hook" });

use s3mount::hooks::types::{ObjectError, PutOptions};
use s3mount::hooks::{config, log, objects};

struct Catalog;

export!(Catalog);

impl Guest for Catalog {
    fn handle(event: Event) -> Result<Option<String>, HookError> {
        let entry = format!("catalog/{}", event.path);
        if event.name.starts_with("ObjectRemoved:") {
            objects::delete(&entry).map_err(failed)?;
            return Ok(None);
        }
        let bytes = match objects::get(&event.path, 0, None) {
            Ok(bytes) => bytes,
            // Gone before we could look: its removal is an event of its own.
            Err(ObjectError::NotFound) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let document: Value = serde_json::from_slice(&bytes)
            .map_err(|error| HookError::Veto(("EINVAL".into(), format!("{}: {error}", event.path))))?;
        let told = json!({
            "path": event.path,
            "bytes": event.size,
            "members": document.as_object().map_or(0, serde_json::Map::len),
            "by": config::get("by"),
        });
        let options = PutOptions { content_type: None, metadata: Vec::new(), if_match: None, if_none_match: false };
        objects::put(&entry, told.to_string().as_bytes(), &options).map_err(failed)?;
        log::write(log::Level::Info, &format!("{} is in the catalog", event.path));
        Ok(Some(entry))
    }
}

/// Whether another try may help.
fn failed(error: ObjectError) -> HookError {
    match error {
        ObjectError::Throttled | ObjectError::Io(_) => HookError::Retry(format!("{error:?}")),
        _ => HookError::Fatal(format!("{error:?}")),
    }
}
