//! When a hook runs: after something has happened, before it, or when somebody looks.

use std::ops::Range;

use toml::Spanned;

use super::settings::{Located, RawHook, value};

/// When a hook runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// After it has happened.
    Async,
    /// Before it happens, and may forbid it.
    Sync { on_error: OnError },
    /// When a file of this directory of the mount is looked at, which shows what it makes; one name and a `/`.
    Transform { view: String },
}

/// What becomes of what a synchronous hook was asked about when the hook itself fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    Deny,
    Allow,
}

impl Mode {
    /// Whether it is told of events.
    pub(super) fn takes_events(&self) -> bool {
        *self == Self::Async
    }

    pub(super) fn is_sync(&self) -> bool {
        self.on_error().is_some()
    }

    pub(super) fn on_error(&self) -> Option<OnError> {
        if let Self::Sync { on_error } = self { Some(*on_error) } else { None }
    }

    pub(super) fn view(&self) -> Option<&str> {
        if let Self::Transform { view } = self { Some(view) } else { None }
    }

    /// As the settings have it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Sync { .. } => "sync",
            Self::Transform { .. } => "transform",
        }
    }
}

impl OnError {
    /// As the settings have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// Of a hook's settings.
pub(super) fn read(raw: &RawHook) -> Located<Mode> {
    let is_sync = |text: &str| match text {
        "async" => Ok(false),
        "sync" => Ok(true),
        _ => Err(format!("there is no mode \"{text}\"; there are \"async\" and \"sync\"")),
    };
    let on_error = |text: &str| match text {
        "deny" => Ok(OnError::Deny),
        "allow" => Ok(OnError::Allow),
        _ => Err(format!("\"{text}\" is no answer to an error; there are \"deny\" and \"allow\"")),
    };
    if let Some(view) = transform(raw)? {
        return Ok(Mode::Transform { view });
    }
    let on_error_at = raw.on_error.as_ref().map(Spanned::span);
    let on_error = value(raw.on_error.as_ref(), on_error)?;
    if !value(raw.mode.as_ref(), is_sync)?.unwrap_or(false) {
        let lost = |at| Err((at, "on-error is for hooks with mode = \"sync\"".to_owned()));
        return on_error_at.map_or(Ok(Mode::Async), lost);
    }
    match async_only(raw) {
        Some((name, at)) => {
            Err((at, format!("a synchronous hook publishes nothing and is asked once: it has no {name}")))
        }
        None => Ok(Mode::Sync { on_error: on_error.unwrap_or(OnError::Deny) }),
    }
}

/// The first setting that only means something to who takes events.
fn async_only(raw: &RawHook) -> Option<(&'static str, Range<usize>)> {
    let spans = [
        ("output", raw.output.as_ref().map(Spanned::span)),
        ("retries", raw.retries.as_ref().map(Spanned::span)),
        ("retry-delay", raw.retry_delay.as_ref().map(Spanned::span)),
        ("retry-max-delay", raw.retry_max_delay.as_ref().map(Spanned::span)),
        ("max-age", raw.max_age.as_ref().map(Spanned::span)),
        ("on-success", raw.on_success.as_ref().map(Spanned::span)),
        ("on-failure", raw.on_failure.as_ref().map(Spanned::span)),
    ];
    spans.into_iter().find_map(|(name, at)| Some((name, at?)))
}

/// The view of a transform; `None` for every other hook.
fn transform(raw: &RawHook) -> Located<Option<String>> {
    let is_transform = |text: &str| match text {
        "hook" => Ok(false),
        "transform" => Ok(true),
        _ => Err(format!("there is no kind \"{text}\"; there are \"hook\" and \"transform\"")),
    };
    let view = |text: &str| match text.trim_matches('/') {
        name if name.is_empty() || name.contains('/') => Err("a view is one name in the root of the mount".to_owned()),
        name => match crate::key::oddity(name) {
            Some(oddity) => Err(format!("\"{text}\" can't be a directory ({oddity:?})")),
            None => Ok(format!("{name}/")),
        },
    };
    let view_at = raw.view.as_ref().map(Spanned::span);
    let view = value(raw.view.as_ref(), view)?;
    if !value(raw.kind.as_ref(), is_transform)?.unwrap_or(false) {
        let lost = |at| Err((at, "view is for hooks with kind = \"transform\"".to_owned()));
        return view_at.map_or(Ok(None), lost);
    }
    let others = [
        ("mode", raw.mode.as_ref().map(Spanned::span)),
        ("on-error", raw.on_error.as_ref().map(Spanned::span)),
        ("events", raw.events.as_ref().and_then(|events| events.first()).map(Spanned::span)),
    ];
    let other = others.into_iter().find_map(|(name, at)| Some((name, at?))).or_else(|| async_only(raw));
    match (other, view) {
        (Some((name, at)), _) => Err((at, format!("a transform is run when its view is read: it has no {name}"))),
        (None, Some(view)) => Ok(Some(view)),
        (None, None) => Err((raw.name.span(), "a transform needs a view".to_owned())),
    }
}
