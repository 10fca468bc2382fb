//! What a typed guest can call (`hooks/wit`): log, granted objects, settings. Translates between the
//! guest's types and ours; what is granted is decided in [`Granted`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::WasiView;

use super::guest::Guest;
use super::pipes::Pipe;
use crate::bucket::{self, Condition, ETag, ObjectInfo, Properties};
use crate::error::Kind;
use crate::hooks::grants::{self, Granted, MAX_CALL_BYTES};

#[allow(clippy::pedantic, clippy::all, reason = "it is generated")]
mod generated {
    wasmtime::component::bindgen!({
        path: "hooks/wit",
        world: "hook",
        imports: { default: async },
        exports: { default: async },
        with: { "s3mount:hooks/objects.reader": super::Reader },
    });
}

pub(in crate::hooks) use generated::s3mount::hooks::types::Event;
use generated::s3mount::hooks::types::{self, Head, HookError, ObjectError, PutOptions};
use generated::s3mount::hooks::{config, log, objects};
pub(super) use generated::{Hook, HookPre};

/// What a command would end with (`sysexits.h`).
const EXIT_RETRY: i32 = 75;
const EXIT_FATAL: i32 = 65;
const EXIT_VETO: i32 = 77;
/// Entries of one page of a listing.
const MAX_LISTED: u32 = 1000;

/// What a typed run gets beside what every run gets.
pub(in crate::hooks) struct Typed {
    pub(in crate::hooks) event: Event,
    pub(in crate::hooks) granted: Arc<Granted>,
    pub(in crate::hooks) config: BTreeMap<String, String>,
}

/// An object that is read from front to back.
#[derive(Debug)]
pub struct Reader {
    path: String,
    etag: ETag,
    at: u64,
}

type Answer<T> = Result<T, ObjectError>;

/// Lets guests call what the world has.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    Hook::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)
}

/// Tells a hook's answer as a command does: its text on stdout, its reason as the last line of stderr.
/// Answers the exit code.
pub(super) fn told(answer: Result<Option<String>, HookError>, stdout: &Pipe, stderr: &Pipe) -> i32 {
    let (code, reason) = match answer {
        Ok(text) => {
            stdout.push(text.unwrap_or_default().as_bytes());
            return 0;
        }
        Err(HookError::Retry(reason)) => (EXIT_RETRY, reason),
        Err(HookError::Fatal(reason)) => (EXIT_FATAL, reason),
        Err(HookError::Veto((errno, reason))) => {
            stdout.push(format!("veto: {errno} {reason}\n").as_bytes());
            (EXIT_VETO, reason)
        }
    };
    stderr.push(format!("{reason}\n").as_bytes());
    code
}

impl types::Host for Guest {}

impl log::Host for Guest {
    async fn write(&mut self, level: log::Level, message: String) {
        let level = match level {
            log::Level::Trace => "TRACE",
            log::Level::Debug => "DEBUG",
            log::Level::Info => "INFO",
            log::Level::Warn => "WARN",
            log::Level::Error => "ERROR",
        };
        self.stderr.push(format!("{level} {message}\n").as_bytes());
    }

    async fn metric(&mut self, name: String, value: f64, unit: String) {
        self.stderr.push(format!("METRIC {name}: {value} {unit}\n").as_bytes());
    }
}

impl config::Host for Guest {
    async fn get(&mut self, name: String) -> Option<String> {
        self.typed.as_ref().and_then(|typed| typed.config.get(&name)).cloned()
    }
}

impl objects::HostReader for Guest {
    async fn read(&mut self, reader: Resource<Reader>, max: u32) -> Answer<Vec<u8>> {
        let granted = self.granted()?;
        let reader = self.ctx().table.get_mut(&reader).map_err(|error| ObjectError::Io(error.to_string()))?;
        let length = u64::from(max).min(MAX_CALL_BYTES);
        let fetched = granted.get(&reader.path, reader.at, Some(length), Some(&reader.etag)).await.map_err(refused)?;
        reader.at += fetched.bytes.len() as u64;
        Ok(fetched.bytes.into())
    }

    async fn drop(&mut self, reader: Resource<Reader>) -> wasmtime::Result<()> {
        self.ctx().table.delete(reader)?;
        Ok(())
    }
}

impl objects::Host for Guest {
    async fn stat(&mut self, path: String) -> Answer<Head> {
        let info = self.granted()?.stat(&path).await.map_err(refused)?;
        Ok(head(path, info))
    }

    async fn get(&mut self, path: String, offset: u64, len: Option<u64>) -> Answer<Vec<u8>> {
        Ok(self.granted()?.get(&path, offset, len, None).await.map_err(refused)?.bytes.into())
    }

    async fn open(&mut self, path: String, offset: u64) -> Answer<Resource<Reader>> {
        let etag = self.granted()?.stat(&path).await.map_err(refused)?.etag;
        let reader = Reader { path, etag, at: offset };
        self.ctx().table.push(reader).map_err(|error| ObjectError::Io(error.to_string()))
    }

    async fn put(&mut self, path: String, body: Vec<u8>, options: PutOptions) -> Answer<String> {
        let condition = match (options.if_match, options.if_none_match) {
            (_, true) => Condition::IfAbsent,
            (Some(etag), false) => Condition::IfMatch(ETag::new(&etag)),
            (None, false) => Condition::None,
        };
        let metadata = options.metadata.into_iter().collect();
        let options = bucket::PutOptions { metadata, properties: Properties::of_type(options.content_type), condition };
        Ok(self.granted()?.put(&path, body, options).await.map_err(refused)?.to_string())
    }

    async fn delete(&mut self, path: String) -> Answer<()> {
        self.granted()?.delete(&path).await.map_err(refused)
    }

    async fn copy(&mut self, from: String, to: String) -> Answer<String> {
        Ok(self.granted()?.copy(&from, &to).await.map_err(refused)?.to_string())
    }

    async fn list_page(&mut self, prefix: String, after: Option<String>, limit: u32) -> Answer<Vec<Head>> {
        let limit = limit.min(MAX_LISTED) as usize;
        let found = self.granted()?.list(&prefix, after.as_deref(), limit).await.map_err(refused)?;
        let told = found.into_iter().map(|(path, listed)| Head {
            path,
            size: listed.size,
            etag: Some(listed.etag.to_string()),
            content_type: None,
            metadata: Vec::new(),
            modified_ms: since_1970_ms(listed.modified),
        });
        Ok(told.collect())
    }
}

impl Guest {
    /// A command may import the world too: it is granted nothing.
    fn granted(&self) -> Answer<Arc<Granted>> {
        match &self.typed {
            Some(typed) => Ok(Arc::clone(&typed.granted)),
            None => Err(ObjectError::Denied("objects are for hooks that export `handle`".into())),
        }
    }
}

fn head(path: String, info: ObjectInfo) -> Head {
    Head {
        path,
        size: info.size,
        etag: Some(info.etag.to_string()),
        content_type: info.properties.content_type,
        metadata: info.metadata.into_iter().collect(),
        modified_ms: since_1970_ms(info.modified),
    }
}

/// Milliseconds since 1970; 0 for what is before.
pub(in crate::hooks) fn since_1970_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn refused(error: grants::Error) -> ObjectError {
    match error {
        grants::Error::Denied(reason) => ObjectError::Denied(reason),
        grants::Error::TooLarge => ObjectError::TooLarge(MAX_CALL_BYTES),
        grants::Error::Bucket(error) => match error.kind {
            Kind::NotFound => ObjectError::NotFound,
            Kind::Changed => ObjectError::PreconditionFailed,
            Kind::Busy => ObjectError::Throttled,
            _ => ObjectError::Io(error.to_string()),
        },
    }
}
