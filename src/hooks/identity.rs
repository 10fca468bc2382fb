//! Whether a hook is the one that it was: what it makes of an object depends on its module and on some of
//! its settings.

use sha2::{Digest, Sha256};

use super::HookSpec;

/// The same for a hook that makes the same of the same object. One whose module can't be read any more is
/// like no other.
pub(super) fn of(spec: &HookSpec) -> String {
    let Ok(module) = spec.module() else { return uuid::Uuid::new_v4().to_string() };
    let mut digest = Sha256::new();
    digest.update(Sha256::digest(&module));
    if let Some(target) = &spec.target {
        digest.update(target.to_string());
    }
    let settings = format!("{:?} {:?} {:?} {:?}", spec.env, spec.output, spec.prefix, spec.matches.patterns());
    digest.update(settings);
    hex::encode(digest.finalize())
}
