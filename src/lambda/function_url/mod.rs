//! Function URLs: plain HTTP to a hook, without any SDK.
//!
//! A hook with `url = true` answers at `http://ADDRESS/function-url/NAME/…`, whatever the method. The request
//! becomes the event that Lambda makes of it (`event`), the hook's answer becomes the response that Lambda makes
//! of it (`reply`). In AWS the name of the hook is part of the host's name; a name of its own for each hook would
//! have to be resolved on every machine, so here it is part of the path, and the hook does not see it there.

mod event;
mod reply;

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HOST;
use hyper::http::request::Parts;
use serde_json::{Value, json};

use super::Settings;
use super::answers::{Answer, Refusal};
use crate::hooks::{Description, Hooks};
use event::Request;

/// Where the URLs begin.
pub(super) const PREFIX: &str = "/function-url/";

impl Settings {
    /// Runs the hook that the path names with what was asked, and waits for its answer.
    pub(super) async fn call_by_url(&self, id: &str, peer: &str, head: &Parts, body: Bytes) -> Result<Answer, Refusal> {
        let (name, path) = split(head.uri.path());
        let hooks = self.hooks_with_url(name)?;
        let event = Request { id, name, path, peer, head, body: &body }.event(time::OffsetDateTime::now_utc());
        Ok(reply::reply(id, &hooks.call(name, id, event.to_string()).await?))
    }

    /// `GetFunctionUrlConfig`.
    pub(super) fn url_config(&self, name: &str, head: &Parts) -> Result<Value, Refusal> {
        self.hooks_with_url(name)?;
        // As the client has reached it, which is more than the settings know (a port of 0).
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        Ok(json!({
            "FunctionUrl": format!("http://{host}{PREFIX}{name}/"),
            "FunctionArn": self.arn(name),
            "AuthType": "NONE",
            "InvokeMode": "BUFFERED",
        }))
    }

    /// The hooks, if this one has a URL.
    fn hooks_with_url(&self, name: &str) -> Result<Arc<Hooks>, Refusal> {
        let is_it = |hook: &Description| hook.name == name && hook.url;
        (self.hooks)().filter(|hooks| hooks.describe().iter().any(is_it)).ok_or_else(|| {
            let message = format!("no hook \"{name}\" has a URL; its settings would say url = true");
            Refusal::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", message)
        })
    }
}

/// The hook's name, and the path that it sees.
fn split(path: &str) -> (&str, &str) {
    let rest = path.strip_prefix(PREFIX).unwrap_or_default();
    match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_no_part_of_the_path_that_a_hook_sees() {
        for (path, expected) in [
            ("/function-url/page", ("page", "/")),
            ("/function-url/page/", ("page", "/")),
            ("/function-url/page/a%20b//c", ("page", "/a%20b//c")),
            ("/function-url/", ("", "/")),
        ] {
            assert_eq!(split(path), expected, "{path}");
        }
    }
}
