//! When a hook runs: after something has happened, before it, or when somebody looks.

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
