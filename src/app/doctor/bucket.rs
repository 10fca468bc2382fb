//! The bucket: does it answer, whose clock is right, what may the caller do, what does the server do.

use std::time::Duration;

use super::inventory;
use super::rights::{self, Caller};
use super::{Finding, Tell};
use crate::bucket::client::{self, ConnectSettings, Connection, clock_in_words};
use crate::bucket::probe::{Capabilities, probe};
use crate::bucket::{Error, ListPage, ListRequest};
use crate::config::{Config, Source};
use crate::error::Kind;

/// Longest time for one request with its retries: who examines a server does not wait for it.
const DEADLINE: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 3;
/// S3 refuses what is signed with a clock more than 15 minutes off (`RequestTimeTooSkewed`).
const CLOCK_BOUND_S: u64 = 5 * 60;

pub(super) async fn examine(config: &Config, source: &Source, settings: ConnectSettings, tell: Tell<'_>) {
    // What is written to try things is deleted again.
    let wishes = settings.wishes.clone().without_lock();
    // Nothing is written before each write is tried by itself.
    let settings = ConnectSettings { wishes, read_only: true, deadline: DEADLINE, max_attempts: ATTEMPTS, ..settings };
    let connection = match client::connect(&settings).await {
        Ok(connection) => connection,
        Err(error) => return tell(unreached(config, source, &settings, &error)),
    };
    tell(Finding::good("bucket", format!("{source} at {} can be listed", connection.endpoint)));
    if let Some(proxy) = client::proxy_towards(&settings) {
        tell(Finding::good("proxy", format!("{} ({})", proxy.address, proxy.variable)));
    }
    if let Some(asked) = &connection.moved_from {
        let region = &connection.region;
        let told = format!("the bucket is in {region}, not in {asked}");
        tell(Finding::warning("region", told, format!("--region {region} saves a request at each start")));
    }
    if let Some(ahead_s) = connection.layout.clock("").ahead_s() {
        tell(clock(ahead_s));
    }
    let bucket = connection.bucket.as_ref();
    let caller = Caller { config, source, region: &connection.region };
    let listing = ListRequest { prefix: source.prefix.clone(), any_order: true, ..ListRequest::default() };
    let page = match bucket.list(&listing).await {
        Ok(page) => page,
        Err(error) => return tell(caller.failed("bucket", &error, "s3:ListBucket", "a page cannot be listed")),
    };
    if config.read_only || config.no_sign_request {
        rights::reading(&caller, bucket, &page, None, tell).await;
    } else {
        writing(&caller, &connection, &page, tell).await;
    }
    inventory::examine(&caller, &connection, &page, tell).await;
}

async fn writing(caller: &Caller<'_>, connection: &Connection, page: &ListPage, tell: Tell<'_>) {
    let bucket = connection.bucket.as_ref();
    let may_remove = rights::writing(caller, bucket, page, tell).await;
    if may_remove && connection.capabilities != Capabilities::AWS {
        tell(conditions(probe(bucket, &caller.source.prefix).await));
    }
}

/// Why there is no bucket, and what to do about it.
fn unreached(config: &Config, source: &Source, settings: &ConnectSettings, error: &Error) -> Finding {
    let caller = Caller { config, source, region: settings.region.as_deref().unwrap_or_default() };
    let advice = match (error.code(), error.kind) {
        (Some("RequestTimeTooSkewed"), _) => error.hint().map(str::to_owned),
        (Some(_), Kind::AccessDenied) => {
            error.hint().map(|hint| format!("{hint}; those in use come from {}", credentials_of(config)))
        }
        (_, Kind::AccessDenied) if config.no_sign_request => {
            Some("leave --no-sign-request out, and give credentials that may list it".to_owned())
        }
        (_, Kind::AccessDenied) => Some(caller.allow("s3:ListBucket")),
        (_, Kind::Refused) if matches!(error.http_status, Some(301 | 307)) => {
            let name = &source.bucket;
            Some(format!("`aws s3api get-bucket-location --bucket {name}` tells it, for --region"))
        }
        _ => error.hint().map(str::to_owned),
    };
    let proxy = client::proxy_towards(settings).filter(|_| may_be_of_a_proxy(error));
    let advice = match proxy {
        None => advice,
        Some(proxy) => {
            let (address, variable) = (proxy.address, proxy.variable);
            Some(format!(
                "requests go through the proxy {address}, which {variable} names: correct or unset that, or name \
                 the endpoint's host in NO_PROXY"
            ))
        }
    };
    Finding::broken("bucket", error.kind, error.cause.clone(), advice)
}

/// Whether it need not be S3 who answered, or did not.
fn may_be_of_a_proxy(error: &Error) -> bool {
    match error.kind {
        Kind::Unreachable | Kind::Deadline | Kind::Busy | Kind::Corrupt | Kind::NotFound => true,
        // S3 gives reasons.
        Kind::AccessDenied | Kind::Refused | Kind::Unsupported => error.cause.ends_with("no reason given"),
        _ => false,
    }
}

/// Where the credentials are from, in the order in which the chain looks.
fn credentials_of(config: &Config) -> String {
    match &config.profile {
        Some(profile) => format!("the profile {profile}"),
        None if std::env::var_os("AWS_ACCESS_KEY_ID").is_some() => "AWS_ACCESS_KEY_ID in the environment".to_owned(),
        None => "the AWS configuration of this user or machine".to_owned(),
    }
}

fn clock(ahead_s: i64) -> Finding {
    const ABOUT: &str = "clock";
    if ahead_s.unsigned_abs() <= CLOCK_BOUND_S {
        return Finding::good(ABOUT, "agrees with the server's");
    }
    let told = format!(
        "this machine's clock is {} the server's: S3 refuses requests from 15 min on, and times of files are wrong",
        clock_in_words(ahead_s)
    );
    Finding::warning(ABOUT, told, "set this machine's clock, e.g. `timedatectl set-ntp true`")
}

fn conditions(found: Capabilities) -> Finding {
    const ABOUT: &str = "conditional writes";
    match (found.conditional_writes, found.list_checksums) {
        (Some(true), _) if found.conditional_deletes == Some(false) => Finding::warning(
            ABOUT,
            "honoured, but not by deletions: what another client writes under a name within a second of its removal goes \
             with it",
            "let one mount alone write to these keys, or use a server with conditional deletes",
        ),
        (Some(true), Some(false)) => {
            Finding::good(ABOUT, "honoured; LIST tells no checksums, so each object is asked for once by itself")
        }
        (Some(true), _) => Finding::good(ABOUT, "honoured"),
        (Some(false), _) => Finding::warning(
            ABOUT,
            "the server ignores conditions of writes or copies: s3mount looks before it writes, but what another client \
             writes under the same key at the same moment can be lost",
            "let one mount alone write to these keys, or use a server with conditional writes",
        ),
        (None, _) => Finding::warning(
            ABOUT,
            "could not be tried: the server is taken at its word",
            "try again when the server is less busy",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_clock_is_wrong_from_five_minutes_on_either_way() {
        for (ahead_s, state) in [(0, State::Good), (-300, State::Good), (301, State::Warning), (-3600, State::Warning)]
        {
            assert_eq!(clock(ahead_s).state, state, "{ahead_s}");
        }
        assert!(clock(-3600).told.contains("1 h behind the server's"));
    }
}
