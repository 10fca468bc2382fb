//! Deletions of one version, at servers that do not take their conditions, and for callers who may not name one.
//!
//! Such a deletion is sent again without its condition, which is all that servers had for long: what another client has
//! written meanwhile goes with it then.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Operation, Retrying, refuses_credentials};
use crate::bucket::{Bucket, Deletion, ETag, Error, Result};
use crate::error::Kind;

/// What was found out about conditions of deletions.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    /// The server takes none.
    are_unknown: AtomicBool,
    /// The caller may not send them, at least not for all keys.
    are_denied: AtomicBool,
}

/// What may be wrong with the condition of a refused deletion.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Objection {
    Unknown,
    /// S3 wants `s3:GetObject` beside `s3:DeleteObject` where a version is named.
    Denied,
}

impl Objection {
    fn of(error: &Error) -> Option<Self> {
        match error.kind {
            Kind::Unsupported | Kind::Refused => Some(Self::Unknown),
            Kind::AccessDenied if refuses_credentials(error).is_none() => Some(Self::Denied),
            _ => None,
        }
    }
}

impl Learnt {
    /// It worked without the condition: that it was. Said once.
    fn note(&self, objection: Objection, error: &Error) {
        match objection {
            Objection::Unknown if !self.are_unknown.swap(true, Ordering::Relaxed) => tracing::warn!(
                %error,
                "the server takes no conditions of deletions: what another client writes under a name within a second \
                 of its removal here goes with it"
            ),
            Objection::Denied if !self.are_denied.swap(true, Ordering::Relaxed) => tracing::warn!(
                %error,
                "this caller may delete, but not name the version that is to go (s3:GetObject): what another client \
                 writes under a name within a second of its removal here goes with it"
            ),
            _ => {}
        }
    }
}

impl<B: Bucket> Retrying<B> {
    pub(super) async fn delete_if(&self, key: &str, if_match: Option<&ETag>) -> Result<()> {
        let if_match = if_match.filter(|_| !self.deletions.are_unknown.load(Ordering::Relaxed));
        let mut operation = self.operation(0);
        let answer = self.delete_as(key, if_match, &mut operation).await;
        let refusal = answer.as_ref().err().filter(|_| if_match.is_some());
        let Some((refusal, objection)) = refusal.and_then(|error| Some((error, Objection::of(error)?))) else {
            return self.settle(answer);
        };
        let again = self.delete_as(key, None, &mut operation).await;
        if again.is_ok() {
            self.deletions.note(objection, refusal);
        }
        self.settle(again)
    }

    async fn delete_as(&self, key: &str, if_match: Option<&ETag>, operation: &mut Operation) -> Result<()> {
        self.run("DeleteObject", key, operation, || self.inner.delete(key, if_match)).await
    }

    pub(super) async fn delete_many_if(&self, deletions: &[Deletion]) -> Result<Vec<(String, Error)>> {
        let are_unknown = self.deletions.are_unknown.load(Ordering::Relaxed);
        let asked = if are_unknown { Cow::from(without_conditions(deletions)) } else { Cow::from(deletions) };
        let mut operation = self.operation(0);
        let answer = self.delete_all(&asked, &mut operation).await;
        let Some((objection, refusal, rest)) = objected(&asked, &answer) else { return self.settle(answer) };
        let again = self.delete_all(&without_conditions(&rest), &mut operation).await;
        if again.as_ref().is_ok_and(|failed| failed.len() < rest.len()) {
            self.deletions.note(objection, &refusal);
        }
        let answer = match (answer, again) {
            (Ok(mut failed), Ok(again)) => {
                let rest: BTreeSet<&str> = rest.iter().map(|deletion| deletion.key.as_str()).collect();
                failed.retain(|(key, _)| !rest.contains(key.as_str()));
                failed.extend(again);
                Ok(failed)
            }
            (Ok(failed), Err(_)) => Ok(failed),
            (Err(_), again) => again,
        };
        self.settle(answer)
    }

    async fn delete_all(&self, deletions: &[Deletion], operation: &mut Operation) -> Result<Vec<(String, Error)>> {
        let first = deletions.first().map_or("", |deletion| deletion.key.as_str());
        self.run("DeleteObjects", first, operation, || self.inner.delete_many(deletions)).await
    }
}

/// What of a batch may have been refused for its conditions: why, in which words, and what is to be sent again.
fn objected(asked: &[Deletion], answer: &Result<Vec<(String, Error)>>) -> Option<(Objection, Error, Vec<Deletion>)> {
    let failed = match answer {
        Ok(failed) => failed,
        Err(error) => {
            let names_any = asked.iter().any(|deletion| deletion.etag.is_some());
            return names_any.then(|| Some((Objection::of(error)?, error.clone(), asked.to_vec())))?;
        }
    };
    let objections: BTreeMap<&str, (Objection, &Error)> =
        failed.iter().filter_map(|(key, error)| Some((key.as_str(), (Objection::of(error)?, error)))).collect();
    let is_rest = |deletion: &&Deletion| deletion.etag.is_some() && objections.contains_key(deletion.key.as_str());
    let rest: Vec<Deletion> = asked.iter().filter(is_rest).cloned().collect();
    let (objection, error) = objections[rest.first()?.key.as_str()];
    Some((objection, error.clone(), rest))
}

fn without_conditions(deletions: &[Deletion]) -> Vec<Deletion> {
    deletions.iter().map(|deletion| Deletion::of_any(&deletion.key)).collect()
}
