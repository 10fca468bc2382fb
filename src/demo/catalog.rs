//! The index in memory: every bucket's keys in binary order, each with its versions.
//!
//! Changed by [`Record`]s alone, the same way whether they come from a request or from the log, so
//! that a restart cannot see anything else than what clients saw.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use s3s::{S3Result, s3_error};

use super::bodies::{Bodies, Body};
use super::record::{Extent, NULL_VERSION, Record, Tags, Version, Versioning};

/// All buckets, and the bodies that their versions point to.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub buckets: BTreeMap<String, Bucket>,
    bodies: HashMap<u64, Referenced>,
}

/// One bucket.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub created_s: i64,
    pub versioning: Versioning,
    /// Versions of each key, oldest first; never an empty list.
    pub keys: BTreeMap<String, Vec<Arc<Version>>>,
}

#[derive(Debug)]
struct Referenced {
    body: Arc<Body>,
    references: usize,
}

impl Bucket {
    /// The latest version of a key, when that is an object.
    pub fn latest(&self, key: &str) -> Option<&Arc<Version>> {
        self.keys.get(key)?.last().filter(|version| version.object.is_some())
    }

    /// The version id that the next object of this bucket gets.
    pub fn next_version_id(&self) -> String {
        match self.versioning {
            Versioning::Enabled => uuid::Uuid::now_v7().simple().to_string(),
            Versioning::Off | Versioning::Suspended => NULL_VERSION.into(),
        }
    }

    /// A version by id, or the latest one, delete markers included.
    ///
    /// # Errors
    /// `NoSuchKey`, `NoSuchVersion`.
    pub fn version(&self, key: &str, version_id: Option<&str>) -> S3Result<&Arc<Version>> {
        let versions = self.keys.get(key);
        match version_id {
            None => versions.and_then(|versions| versions.last()).ok_or_else(|| s3_error!(NoSuchKey)),
            Some(id) => versions
                .and_then(|versions| versions.iter().find(|version| version.id == id))
                .ok_or_else(|| s3_error!(NoSuchVersion)),
        }
    }
}

impl Catalog {
    /// A bucket by name.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn bucket(&self, name: &str) -> S3Result<&Bucket> {
        self.buckets.get(name).ok_or_else(|| s3_error!(NoSuchBucket))
    }

    /// The bodies behind extents, held open for as long as the handles live.
    pub fn pin(&self, content: &[Extent]) -> Vec<(Arc<Body>, Extent)> {
        let body = |extent: &Extent| Arc::clone(&self.bodies[&extent.body].body);
        content.iter().map(|extent| (body(extent), *extent)).collect()
    }

    /// Numbers of all bodies that some version points to.
    pub fn referenced_bodies(&self) -> impl Iterator<Item = u64> {
        self.bodies.keys().copied()
    }

    /// Takes one change. Returns the bodies that nothing points to any more; drop them outside of
    /// every lock.
    pub fn apply(&mut self, record: Record, bodies: &Bodies) -> Vec<Arc<Body>> {
        match record {
            Record::CreateBucket { bucket, created_s } => {
                self.buckets.entry(bucket).or_insert_with(|| Bucket { created_s, ..Bucket::default() });
                Vec::new()
            }
            Record::DeleteBucket { bucket } => {
                self.buckets.remove(&bucket);
                Vec::new()
            }
            Record::SetVersioning { bucket, versioning } => {
                self.buckets.entry(bucket).or_default().versioning = versioning;
                Vec::new()
            }
            Record::Put { bucket, key, version } => self.put(bucket, key, version, bodies),
            Record::Remove { bucket, key, version_id } => self.remove(&bucket, &key, &version_id),
            Record::SetTags { bucket, key, version_id, tags } => {
                self.set_tags(&bucket, &key, &version_id, tags);
                Vec::new()
            }
        }
    }

    /// The records that would make this catalog out of nothing.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.buckets.iter().flat_map(|(name, bucket)| {
            let made = Record::CreateBucket { bucket: name.clone(), created_s: bucket.created_s };
            let versioning = Record::SetVersioning { bucket: name.clone(), versioning: bucket.versioning };
            let puts = bucket.keys.iter().flat_map(move |(key, versions)| {
                versions.iter().map(move |version| Record::Put {
                    bucket: name.clone(),
                    key: key.clone(),
                    version: Box::new(Version::clone(version)),
                })
            });
            [made, versioning].into_iter().chain(puts)
        })
    }

    /// How many records [`Catalog::records`] would give.
    pub fn record_count(&self) -> usize {
        let versions = |bucket: &Bucket| bucket.keys.values().map(Vec::len).sum::<usize>();
        self.buckets.values().map(|bucket| 2 + versions(bucket)).sum()
    }

    fn put(&mut self, bucket: String, key: String, version: Box<Version>, bodies: &Bodies) -> Vec<Arc<Body>> {
        for extent in content(&version) {
            let body = || Referenced { body: bodies.handle(extent.body), references: 0 };
            let referenced = self.bodies.entry(extent.body).or_insert_with(body);
            referenced.references += 1;
            referenced.body.set_kept(true);
        }
        let versions = self.buckets.entry(bucket).or_default().keys.entry(key).or_default();
        let replaced = versions.iter().position(|known| known.id == version.id);
        let replaced = replaced.map(|index| versions.remove(index));
        versions.push(Arc::from(version));
        replaced.map_or_else(Vec::new, |version| self.release(&version))
    }

    fn remove(&mut self, bucket: &str, key: &str, version_id: &str) -> Vec<Arc<Body>> {
        let Some(keys) = self.buckets.get_mut(bucket).map(|bucket| &mut bucket.keys) else { return Vec::new() };
        let Some(versions) = keys.get_mut(key) else { return Vec::new() };
        let Some(index) = versions.iter().position(|version| version.id == version_id) else {
            return Vec::new();
        };
        let removed = versions.remove(index);
        if versions.is_empty() {
            keys.remove(key);
        }
        self.release(&removed)
    }

    fn set_tags(&mut self, bucket: &str, key: &str, version_id: &str, tags: Tags) {
        let versions = self.buckets.get_mut(bucket).and_then(|bucket| bucket.keys.get_mut(key));
        let version = versions.and_then(|all| all.iter_mut().find(|version| version.id == version_id));
        if let Some(object) = version.and_then(|version| Arc::make_mut(version).object.as_mut()) {
            object.tags = tags;
        }
    }

    fn release(&mut self, version: &Version) -> Vec<Arc<Body>> {
        let mut released = Vec::new();
        for extent in content(version) {
            let Some(referenced) = self.bodies.get_mut(&extent.body) else { continue };
            referenced.references -= 1;
            if referenced.references == 0 {
                referenced.body.set_kept(false);
                released.extend(self.bodies.remove(&extent.body).map(|referenced| referenced.body));
            }
        }
        released
    }
}

fn content(version: &Version) -> &[Extent] {
    version.object.as_ref().map_or(&[], |object| &object.content)
}
