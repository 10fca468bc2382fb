//! Multipart uploads in memory.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};

use super::super::{Condition, ETag, Part, PendingUpload, PutOptions, Result};
use super::{Object, State, error, etag_of};
use crate::error::Kind;

/// Smallest part but the last (AWS: "Multipart upload limits").
const MIN_PART_BYTES: usize = 5 << 20;

/// An upload under way.
#[derive(Debug)]
pub(super) struct Upload {
    key: String,
    options: PutOptions,
    parts: BTreeMap<u16, Bytes>,
    initiated: SystemTime,
}

pub(super) fn create(state: &mut State, key: &str, options: &PutOptions) -> String {
    state.uploads_begun += 1;
    let id = format!("upload-{}", state.uploads_begun);
    let (key, options) = (key.to_owned(), options.clone());
    state.uploads.insert(id.clone(), Upload { key, options, parts: BTreeMap::new(), initiated: SystemTime::now() });
    id
}

pub(super) fn part(
    state: &mut State,
    operation: &'static str,
    key: &str,
    upload_id: &str,
    number: u16,
    body: Bytes,
) -> Result<Part> {
    let upload = find(state, operation, key, upload_id)?;
    let etag = etag_of(&body);
    upload.parts.insert(number, body);
    Ok(Part { number, etag, crc32c: None })
}

pub(super) fn complete(
    state: &mut State,
    key: &str,
    upload_id: &str,
    parts: &[Part],
    condition: &Condition,
) -> Result<ETag> {
    const OPERATION: &str = "CompleteMultipartUpload";
    find(state, OPERATION, key, upload_id)?;
    state.check(OPERATION, key, condition)?;
    let upload = find(state, OPERATION, key, upload_id)?;
    let mut whole = BytesMut::new();
    let mut tags = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let stored = upload.parts.get(&part.number).filter(|bytes| etag_of(bytes) == part.etag);
        let stored = stored.ok_or_else(|| error(Kind::Refused, OPERATION, key, "InvalidPart", 400))?;
        if stored.len() < MIN_PART_BYTES && index + 1 != parts.len() {
            return Err(error(Kind::Refused, OPERATION, key, "EntityTooSmall", 400));
        }
        whole.extend_from_slice(stored);
        tags.extend_from_slice(&Md5::digest(stored));
    }
    let etag = ETag::new(&format!("{}-{}", hex::encode(Md5::digest(&tags)), parts.len()));
    let object = Object::new(key, whole.freeze(), etag.clone(), &upload.options);
    state.objects.insert(key.to_owned(), object);
    state.uploads.remove(upload_id);
    Ok(etag)
}

pub(super) fn abort(state: &mut State, key: &str, upload_id: &str) -> Result<()> {
    find(state, "AbortMultipartUpload", key, upload_id)?;
    state.uploads.remove(upload_id);
    Ok(())
}

pub(super) fn list(state: &State, prefix: &str) -> Vec<PendingUpload> {
    let fits = state.uploads.iter().filter(|(_, upload)| upload.key.starts_with(prefix));
    fits.map(|(id, upload)| PendingUpload {
        key: upload.key.clone(),
        upload_id: id.clone(),
        initiated: upload.initiated,
    })
    .collect()
}

fn find<'a>(state: &'a mut State, operation: &'static str, key: &str, upload_id: &str) -> Result<&'a mut Upload> {
    let upload = state.uploads.get_mut(upload_id).filter(|upload| upload.key == key);
    upload.ok_or_else(|| error(Kind::NoSuchUpload, operation, key, "NoSuchUpload", 404))
}
