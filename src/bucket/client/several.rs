//! One connection to several buckets. Those that are reached in the same way share a client; each may have its own.

use std::sync::Arc;

use futures::future::join_all;

use super::{
    CONNECT_DEADLINE, ConnectSettings, Connection, Encryption, Shared, Wishes, config, connect_with, failure, too_late,
};
use crate::bucket::Result;
use crate::bucket::layout::{Layout, Root};
use crate::bucket::probe::Capabilities;
use crate::bucket::s3::S3Bucket;
use crate::bucket::united::{United, outside};
use crate::error::Kind;

/// The buckets of a mount without decorators, in the order of its layout.
#[derive(Clone, Debug)]
pub struct Direct {
    layout: Layout,
    buckets: Vec<S3Bucket>,
}

impl Direct {
    /// The bucket that a key of the mount lies in, and the key there.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for what is in no bucket.
    pub fn at(&self, key: &str) -> Result<(&S3Bucket, String)> {
        let (index, there) = self.layout.locate(key).ok_or_else(|| outside("HeadObject", key))?;
        Ok((&self.buckets[index], there))
    }
}

impl From<S3Bucket> for Direct {
    fn from(bucket: S3Bucket) -> Self {
        Self { layout: Layout::of_bucket("", "", ""), buckets: vec![bucket] }
    }
}

/// As [`super::connect`], of several buckets, each under the name that its keys begin with. Credentials are
/// looked for once for all that are reached in the same way. `usual` is what holds where nothing is said of a
/// bucket: the bounds for bytes in a second, which are for all buckets together, and region and credentials of
/// the connection, as far as a bucket has these.
///
/// # Errors
/// As [`super::connect`], of the first bucket that does not answer as it should.
pub async fn connect_several(usual: &ConnectSettings, named: &[(String, ConnectSettings)]) -> Result<Connection> {
    let connecting = async {
        let (sdks, shared) = (clients(named).await?, &Shared::of(usual));
        let connections = named
            .iter()
            .zip(sdks)
            .map(|((_, settings), sdk)| async move { connect_with(settings, sdk, shared.clone()).await });
        // All answers, so that the first that is named is the one that is told of, each time.
        join_all(connections).await.into_iter().collect::<Result<Vec<_>>>()
    };
    let connections =
        tokio::time::timeout(CONNECT_DEADLINE, connecting).await.unwrap_or_else(|_| Err(too_late(usual)))?;
    let like_usual = named.iter().position(|(_, settings)| settings.is_reached_as(usual));
    let Some(first) = connections.get(like_usual.unwrap_or(0)).cloned() else {
        return Err(failure(usual, Kind::Usage, "no bucket is named"));
    };
    let mut parts: Vec<(Root, Connection)> = connections
        .into_iter()
        .enumerate()
        .map(|(at, connection)| (root(named, at, &connection), connection))
        .collect();
    parts.sort_by(|one, other| one.0.at.cmp(&other.0.at));
    check_apart(&parts)?;
    Ok(united(parts, first))
}

/// A client for each bucket, in their order.
async fn clients(named: &[(String, ConnectSettings)]) -> Result<Vec<config::Sdk>> {
    let mut sdks: Vec<config::Sdk> = Vec::new();
    for (at, (_, settings)) in named.iter().enumerate() {
        let alike = named[..at].iter().position(|(_, other)| settings.is_reached_as(other));
        sdks.push(match alike {
            Some(other) => sdks[other].for_bucket(settings)?,
            None => config::load(settings).await?,
        });
    }
    Ok(sdks)
}

impl ConnectSettings {
    /// Whether one client does for both buckets.
    fn is_reached_as(&self, other: &Self) -> bool {
        let way = |to: &Self| {
            let ConnectSettings { endpoint_url, region, profile, credentials_file, credentials, .. } = to.clone();
            let address = (to.force_path_style, to.dual_stack, to.fips, to.accelerate);
            (endpoint_url, region, profile, credentials_file, credentials, to.no_sign_request, address)
        };
        way(self) == way(other)
    }

    /// Whether the server, asked for a copy by one's client, reads the other's bucket: a request has one
    /// signature, and says what it says of the target's owner and payer of the source, too.
    fn copies_with(&self, other: &Self) -> bool {
        let access = |to: &Self| {
            let key_file = match &to.wishes.encryption {
                Some(Encryption::Customer(file)) => Some(file.clone()),
                _ => None,
            };
            let ConnectSettings { profile, credentials_file, credentials, .. } = to.clone();
            let Wishes { requester_pays, expected_bucket_owner, .. } = to.wishes.clone();
            let who = (profile, credentials_file, credentials, to.no_sign_request);
            (config::endpoint_url(to), who, key_file, requester_pays, expected_bucket_owner)
        };
        access(self) == access(other)
    }
}

fn root(named: &[(String, ConnectSettings)], at: usize, connection: &Connection) -> Root {
    let (name, settings) = &named[at];
    Root {
        at: format!("{name}/"),
        bucket: settings.bucket.clone(),
        prefix: settings.prefix.clone(),
        region: connection.region.clone(),
        server: connection.endpoint.clone(),
        clock: connection.layout.clock(""),
        client: named[..at].iter().position(|(_, other)| settings.copies_with(other)).unwrap_or(at),
        read_only: settings.read_only,
    }
}

/// Settings can name one server in two ways; what it answers to cannot.
fn check_apart(parts: &[(Root, Connection)]) -> Result<()> {
    for (root, _) in parts {
        let above = |other: &Root| {
            other.at != root.at
                && (&other.server, &other.bucket) == (&root.server, &root.bucket)
                && root.prefix.starts_with(&other.prefix)
        };
        if let Some((other, _)) = parts.iter().find(|(other, _)| above(other)) {
            let (name, other) = (root.at.trim_end_matches('/'), other.at.trim_end_matches('/'));
            let told = format!("'{name}' lies in '{other}': each object would be there twice; leave one of them out");
            return Err(failure(&ConnectSettings::new(&root.bucket, &root.prefix), Kind::Usage, told));
        }
    }
    Ok(())
}

/// What a server can do, only where all can; the rest is that of `first`.
fn united(parts: Vec<(Root, Connection)>, first: Connection) -> Connection {
    let (roots, connections): (Vec<Root>, Vec<Connection>) = parts.into_iter().unzip();
    let layout = Layout::of_several(roots);
    let buckets = connections.iter().flat_map(|one| one.direct.buckets.clone()).collect();
    let direct = Direct { layout: layout.clone(), buckets };
    let united = United::new(layout.clone(), connections.iter().map(|one| one.bucket.clone()).collect());
    let capabilities = connections.iter().map(|one| one.capabilities).reduce(Capabilities::and).unwrap_or_default();
    let first = Connection { first_page: None, endpoint: layout.servers(), ..first };
    Connection { bucket: Arc::new(united), direct, layout, capabilities, ..first }
}
