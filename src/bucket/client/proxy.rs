//! The proxy between us and the server, for who has to find out why nothing arrives.

use std::env;

use hyper::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::config::is_loopback;

/// A proxy that the environment names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The variable that names it.
    pub variable: &'static str,
    /// `host:port`, without the credentials that the variable may hold.
    pub address: String,
}

/// The proxy that requests to `endpoint` take, by the rules that the HTTP client itself goes by.
pub(super) fn towards(endpoint: &str) -> Option<Proxy> {
    let endpoint: Uri = endpoint.parse().ok()?;
    if is_loopback(endpoint.host()?) {
        return None;
    }
    let taken = Matcher::from_env().intercept(&endpoint)?;
    let own = if endpoint.scheme_str() == Some("https") {
        ["HTTPS_PROXY", "https_proxy"]
    } else {
        ["HTTP_PROXY", "http_proxy"]
    };
    let is_set = |name: &&str| env::var(name).is_ok_and(|value| !value.is_empty());
    let variable = own.into_iter().chain(["ALL_PROXY", "all_proxy"]).find(is_set)?;
    let host = taken.uri().host()?;
    let port = taken.uri().port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    Some(Proxy { variable, address: format!("{host}{port}") })
}
