//! Hooks that run nothing here: their events go to a queue, a webhook or to Lambda, as S3 writes them.
//!
//! They are tasks as all others: in order for a key, tried again, and given up as the hook's settings say.

use std::ops::Range;

use sha2::{Digest, Sha256};
use toml::Spanned;

use super::destinations::Destination;
use super::invocation::{Hook, Outcome, Publication, Surroundings, Tried, append};
use super::settings::{Located, RawHook, value};
use crate::journal::Task;
use crate::relay;

/// Stands for the program that such a hook does not have.
pub(super) const NO_PROGRAM: &[u8] = b"(module (func (export \"_start\")))";

/// Of a hook's settings.
pub(super) fn read(raw: &RawHook) -> Located<Option<Destination>> {
    let target = |text: &str| match Destination::parse(text)? {
        Destination::Hook(_) | Destination::Prefix(_) => {
            Err(format!("\"{text}\" is no target: sqs:URL, webhook:URL or lambda:NAME"))
        }
        target => Ok(target),
    };
    let target = value(raw.target.as_ref(), target)?;
    match (&target, of_programs(raw), &raw.wasm) {
        (Some(_), Some((name, at)), _) => Err((at, format!("a hook with a target runs no program: it has no {name}"))),
        (None, _, None) => Err((raw.name.span(), "a hook needs wasm, or a target".to_owned())),
        _ => Ok(target),
    }
}

/// The first setting that only means something to who runs a program.
fn of_programs(raw: &RawHook) -> Option<(&'static str, Range<usize>)> {
    let spans = [
        ("wasm", raw.wasm.as_ref().map(Spanned::span)),
        ("mode", raw.mode.as_ref().map(Spanned::span)),
        ("kind", raw.kind.as_ref().map(Spanned::span)),
        ("output", raw.output.as_ref().map(Spanned::span)),
        ("env", raw.env.as_ref().map(Spanned::span)),
        ("read", raw.read.first().map(Spanned::span)),
        ("write", raw.write.first().map(Spanned::span)),
        ("memory", raw.memory.as_ref().map(Spanned::span)),
        ("timeout", raw.timeout.as_ref().map(Spanned::span)),
        ("storage", raw.storage.as_ref().map(Spanned::span)),
        ("url", raw.url.as_ref().map(Spanned::span)),
        ("max-input", raw.max_input.as_ref().map(Spanned::span)),
    ];
    spans.into_iter().find_map(|(name, at)| Some((name, at?)))
}

impl Surroundings {
    /// Hands the event of a task over, unless that is to be dry.
    pub(super) async fn hand_over(
        &self,
        target: &Destination,
        hook: &Hook,
        task: &Task,
        publication: Publication,
    ) -> Tried {
        let payload = self.payload(hook, task);
        if publication == Publication::Dry {
            return Tried::without_run(Outcome::Done(Vec::new()));
        }
        // In a FIFO queue those of one key stay in order.
        let group = hex::encode(Sha256::digest(&task.event.fact.key));
        let handed = self.say(target, &task.event.id, &group, payload).await;
        let (id, key) = (&task.event.id, task.event.fact.key.escape_debug());
        let outcome = match handed {
            Ok(()) => {
                append(hook, format!("SENT RequestId: {id}\tKey: {key}\n")).await;
                Outcome::Done(Vec::new())
            }
            Err(relay::Error::Away(problem)) => Outcome::Delayed(problem),
            Err(relay::Error::Refused(problem)) => Outcome::Failed(problem),
        };
        Tried { as_told: true, ..Tried::without_run(outcome) }
    }
}
