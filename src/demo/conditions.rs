//! What has to hold for a request to happen: `If-Match` and its kin (RFC 9110, section 13).

use std::sync::Arc;

use s3s::dto::{ETag, ETagCondition, Timestamp};
use s3s::{S3Result, s3_error};

use super::record::{Object, Version};

/// Conditions of a write, checked in the same step that commits it.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteConditions {
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
}

impl WriteConditions {
    /// Checks against what the key holds now.
    ///
    /// # Errors
    /// `PreconditionFailed` (412), `NoSuchKey` for `If-Match` on a key that holds nothing, and
    /// `NotImplemented` for forms that S3 does not have either.
    pub fn check(&self, current: Option<&Arc<Version>>) -> S3Result<()> {
        let object = current.and_then(|version| version.object.as_ref());
        match &self.if_none_match {
            None => {}
            Some(ETagCondition::Any) if object.is_none() => {}
            Some(ETagCondition::Any) => return Err(s3_error!(PreconditionFailed, "If-None-Match: the key exists")),
            Some(ETagCondition::ETag(_)) => return Err(s3_error!(NotImplemented, "If-None-Match takes only *")),
        }
        match (&self.if_match, object) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(s3_error!(NoSuchKey)),
            (Some(condition), Some(object)) if matches(condition, object) => Ok(()),
            (Some(_), Some(_)) => Err(s3_error!(PreconditionFailed, "If-Match: the key holds another version")),
        }
    }
}

/// Conditions of a read, or of the source of a copy.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadConditions {
    /// `If-Match`.
    pub matches: Option<ETagCondition>,
    /// `If-None-Match`.
    pub differs: Option<ETagCondition>,
    /// `If-Modified-Since`; does not count beside `differs`.
    pub modified_since: Option<Timestamp>,
    /// `If-Unmodified-Since`; does not count beside `matches`.
    pub unmodified_since: Option<Timestamp>,
}

impl ReadConditions {
    /// Checks for GET and HEAD.
    ///
    /// # Errors
    /// `PreconditionFailed` (412) or `NotModified` (304).
    pub fn check(&self, version: &Version, object: &Object) -> S3Result<()> {
        self.check_current(version, object)?;
        if self.is_unmodified(version, object) {
            return Err(s3_error!(NotModified));
        }
        Ok(())
    }

    /// Checks for the source of a copy, which has no 304.
    ///
    /// # Errors
    /// `PreconditionFailed` (412).
    pub fn check_source(&self, version: &Version, object: &Object) -> S3Result<()> {
        self.check_current(version, object)?;
        if self.is_unmodified(version, object) {
            return Err(s3_error!(PreconditionFailed));
        }
        Ok(())
    }

    fn check_current(&self, version: &Version, object: &Object) -> S3Result<()> {
        let holds = match (&self.matches, &self.unmodified_since) {
            (Some(condition), _) => matches(condition, object),
            (None, Some(since)) => version.modified_s <= unix_s(since),
            (None, None) => true,
        };
        if holds { Ok(()) } else { Err(s3_error!(PreconditionFailed)) }
    }

    fn is_unmodified(&self, version: &Version, object: &Object) -> bool {
        match (&self.differs, &self.modified_since) {
            (Some(condition), _) => matches(condition, object),
            (None, Some(since)) => version.modified_s <= unix_s(since),
            (None, None) => false,
        }
    }
}

/// Whether an object is the one that a condition names.
pub(super) fn matches(condition: &ETagCondition, object: &Object) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(tag) => tag.value() == object.etag,
    }
}

/// An ETag as answers carry it.
pub(super) fn etag(object: &Object) -> ETag {
    ETag::Strong(object.etag.clone())
}

/// Seconds since 1970 of a date in a request.
pub(super) fn unix_s(timestamp: &Timestamp) -> i64 {
    time::OffsetDateTime::from(timestamp.clone()).unix_timestamp()
}

/// A date for an answer, out of seconds since 1970.
pub(super) fn timestamp(unix_s: i64) -> Timestamp {
    time::OffsetDateTime::from_unix_timestamp(unix_s).unwrap_or(time::OffsetDateTime::UNIX_EPOCH).into()
}
