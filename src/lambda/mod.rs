//! Lambda's API on a local address: `aws lambda invoke --endpoint-url …` calls hooks, and plain HTTP those that
//! have a URL.
//!
//! Nobody is asked for a password, so it listens on loopback only, and answers neither to another host's
//! name nor to a page in a browser: those could otherwise be led here from anywhere.

mod accepting;
mod answers;
mod function_url;
mod functions;
mod invoke;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::hooks::Hooks;

pub use accepting::accept;
pub use server::Server;

/// The hooks there are at this moment; `None`: there are none.
pub type CurrentHooks = Arc<dyn Fn() -> Option<Arc<Hooks>> + Send + Sync>;

/// What the API is about.
#[derive(Clone)]
pub struct Settings {
    pub listen: SocketAddr,
    pub hooks: CurrentHooks,
    /// For the names of functions.
    pub region: String,
}
