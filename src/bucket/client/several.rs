//! One connection to several buckets: the same server, the same credentials.

use std::sync::Arc;

use futures::future::join_all;

use super::{CONNECT_DEADLINE, ConnectSettings, Connection, Shared, config, connect_with, failure, too_late};
use crate::bucket::layout::{Layout, Root};
use crate::bucket::probe::Capabilities;
use crate::bucket::s3::S3Bucket;
use crate::bucket::united::{United, outside};
use crate::bucket::{Error, Result};
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

/// As [`super::connect`], of several buckets, each under the name that its keys begin with. The settings
/// differ in bucket, prefix and storage classes alone. Credentials are looked for once, and the bounds for
/// bytes in a second hold for all buckets together.
///
/// # Errors
/// As [`super::connect`], of the first bucket that does not answer as it should.
pub async fn connect_several(named: &[(String, ConnectSettings)]) -> Result<Connection> {
    let Some((_, first)) = named.first() else { return Err(none_named()) };
    let connecting = async {
        let (sdk, shared) = (&config::load(first).await?, &Shared::of(first));
        let connections = named.iter().map(|(_, settings)| async move {
            config::check_bucket_name(settings)?;
            connect_with(settings, sdk.clone(), shared.clone()).await
        });
        // All answers, so that the first that is named is the one that is told of, each time.
        join_all(connections).await.into_iter().collect::<Result<Vec<_>>>()
    };
    let connections =
        tokio::time::timeout(CONNECT_DEADLINE, connecting).await.unwrap_or_else(|_| Err(too_late(first)))?;
    let mut parts: Vec<_> =
        named.iter().zip(connections).map(|((name, settings), it)| part(name, settings, it)).collect();
    parts.sort_by(|one, other| one.0.at.cmp(&other.0.at));
    united(parts).ok_or_else(none_named)
}

fn none_named() -> Error {
    failure(&ConnectSettings::new("", ""), Kind::Usage, "no bucket is named")
}

fn part(name: &str, settings: &ConnectSettings, connection: Connection) -> (Root, Connection) {
    let root = Root {
        at: format!("{name}/"),
        bucket: settings.bucket.clone(),
        prefix: settings.prefix.clone(),
        region: connection.region.clone(),
        server: connection.endpoint.clone(),
    };
    (root, connection)
}

/// Region, clock and the like are those of the first; what a server can do, only where all can.
fn united(parts: Vec<(Root, Connection)>) -> Option<Connection> {
    let (roots, connections): (Vec<Root>, Vec<Connection>) = parts.into_iter().unzip();
    let layout = Layout::of_several(roots);
    let buckets = connections.iter().flat_map(|one| one.direct.buckets.clone()).collect();
    let direct = Direct { layout: layout.clone(), buckets };
    let united = United::new(layout.clone(), connections.iter().map(|one| one.bucket.clone()).collect());
    let capabilities = connections.iter().map(|one| one.capabilities).reduce(Capabilities::and).unwrap_or_default();
    let first = connections.into_iter().next()?;
    Some(Connection { bucket: Arc::new(united), direct, layout, capabilities, first_page: None, ..first })
}
