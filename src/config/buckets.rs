//! Several buckets: what a file says of each below `[buckets]`, and what holds for it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Config, Error, Options, Source, Sources, options};

/// `"BUCKET[/PREFIX]"`, or a table with that under `bucket` and options of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketOptions(pub Options);

impl<'de> Deserialize<'de> for BucketOptions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(InEitherForm)
    }
}

struct InEitherForm;

impl<'de> Visitor<'de> for InEitherForm {
    type Value = BucketOptions;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("\"BUCKET[/PREFIX]\", or a table of options with a bucket")
    }

    fn visit_str<E>(self, source: &str) -> Result<BucketOptions, E> {
        Ok(BucketOptions(Options { bucket: Some(source.to_owned()), ..Options::default() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<BucketOptions, A::Error> {
        Options::deserialize(MapAccessDeserializer::new(OfBucket(table))).map(BucketOptions)
    }
}

/// A table that lets only those options through that one bucket can have for itself.
struct OfBucket<A>(A);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for OfBucket<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(Key(key)) = self.0.next_key()? else { return Ok(None) };
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
}

/// Refused where it stands, so that the error has its line.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let key = String::deserialize(from)?;
        let known = options::keys_of_bucket();
        if known.contains(&key) {
            return Ok(Self(key));
        }
        let known: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
        Err(D::Error::custom(format!("`{key}` is no option of one bucket; these are: {}", known.join(", "))))
    }
}

/// What the root directory stands for, as the options say.
pub(super) fn sources(options: &Options) -> Result<Sources, Error> {
    match (&options.bucket, &options.buckets) {
        (Some(_), Some(_)) => {
            Err(Error::new("both bucket and [buckets] are named", "name one bucket, or several under [buckets]"))
        }
        (Some(bucket), None) => bucket.parse(),
        (None, Some(table)) => {
            // A table goes on to the end of the file: what was meant as an option would be a directory.
            if let Some(name) = table.keys().find(|name| options::is_key(name)) {
                let told = format!("'{name}' under [buckets] is the name of an option");
                return Err(Error::new(told, "put the options above [buckets], and call no bucket's directory so"));
            }
            let unnamed = |name: &str| {
                Error::new(format!("[buckets.{name}] names no bucket"), "write bucket = \"BUCKET[/PREFIX]\" below it")
            };
            let source = |(name, BucketOptions(own)): (&String, &BucketOptions)| {
                Ok((name.clone(), own.bucket.clone().ok_or_else(|| unnamed(name))?))
            };
            Sources::named(&table.iter().map(source).collect::<Result<_, _>>()?)
        }
        (None, None) => Err(super::not_named("bucket", "s3mount BUCKET MOUNTPOINT")),
    }
}

/// Of several buckets what holds for each: its own options, and where it says nothing, those of the mount.
/// What may not be changed in the mount may not be changed there either.
pub(super) fn each(sources: &Sources, said: &Options, file: Option<&Path>) -> Result<BTreeMap<String, Config>, Error> {
    let of_mount = Options { bucket: None, buckets: None, ..said.clone() };
    let mut each = BTreeMap::new();
    for (name, source) in sources.each().filter_map(|(name, source)| Some((name?, source))) {
        let told = said.buckets.as_ref().and_then(|table| table.get(name));
        let own = told.map(|BucketOptions(own)| own.clone()).unwrap_or_default();
        let read_only = (of_mount.read_only == Some(true)).then_some(true).or(own.read_only);
        let own = Options { bucket: None, read_only, ..own }.or(of_mount.clone());
        let config = Config::of(own, Sources::One(source.clone()), file).and_then(Config::checked);
        let config = config.map_err(|error| Error { message: format!("{name}: {}", error.message), ..error })?;
        each.insert(name.to_owned(), config);
    }
    check_apart(&each)?;
    Ok(each)
}

/// An object that appears twice would be lost when one is moved over the other.
fn check_apart(each: &BTreeMap<String, Config>) -> Result<(), Error> {
    for (name, config) in each {
        let Sources::One(source) = &config.sources else { continue };
        let is_above = |other: &Config| {
            let Sources::One(above) = &other.sources else { return false };
            config.server() == other.server()
                && source.bucket == above.bucket
                && source.prefix.starts_with(&above.prefix)
        };
        if let Some((other, _)) = each.iter().find(|(other, config)| *other != name && is_above(config)) {
            let told = format!("'{name}' ({source}) lies in '{other}': each object would be there twice");
            return Err(Error::new(told, "leave one of them out, or give them parts of the bucket beside each other"));
        }
    }
    Ok(())
}

impl Config {
    /// Each bucket with the options that hold for it, and the name of its directory where it has one.
    pub fn each(&self) -> impl Iterator<Item = (Option<&str>, &Source, &Self)> {
        let own = |name| self.buckets.get(name).unwrap_or(self);
        self.sources.each().map(move |(name, source)| (name, source, name.map_or(self, own)))
    }

    /// The endpoint as far as it is an option.
    fn server(&self) -> Option<&str> {
        self.endpoint_url.as_deref().map(|url| url.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("cache-dir = '/c'\nstate-dir = '/s'\n{text}")).unwrap();
        Config::of_file(Options::default(), file.path())
    }

    fn refused(text: &str) -> String {
        read(text).unwrap_err().message
    }

    #[test]
    fn what_a_bucket_does_not_say_is_the_mounts() {
        let text = "region = 'eu-west-1'\nprofile = 'us'\nsse = 'AES256'\n[buckets]\nphotos = 'my-photos'\n\
            [buckets.logs]\nbucket = 'company-logs/2026'\nendpoint-url = 'http://nas:9000'\nprofile = 'theirs'\n\
            read-only = true\nstorage-class = ['GLACIER_IR']\nrequester-pays = true";
        let config = read(text).unwrap();
        assert_eq!(config.sources.to_string(), "logs=s3://company-logs/2026,photos=s3://my-photos");
        let each: Vec<_> = config.each().collect();
        let ((logs, source, own), (photos, _, usual)) = (each[0], each[1]);
        assert_eq!(
            (logs, photos, source.to_string().as_str()),
            (Some("logs"), Some("photos"), "s3://company-logs/2026")
        );
        assert_eq!((own.endpoint_url.as_deref(), usual.endpoint_url.as_deref()), (Some("http://nas:9000"), None));
        assert_eq!((own.profile.as_deref(), usual.profile.as_deref()), (Some("theirs"), Some("us")));
        assert_eq!((own.region.as_deref(), own.objects.sse), (Some("eu-west-1"), usual.objects.sse));
        assert_eq!((own.read_only, usual.read_only, config.read_only), (true, false, false));
        assert_eq!((own.objects.storage_class("logs/a"), usual.objects.storage_class("a")), (Some("GLACIER_IR"), None));
        assert!(own.objects.requester_pays && !usual.objects.requester_pays);
    }

    #[test]
    fn nothing_can_be_written_to_a_mount_that_is_read_only() {
        let config = read("read-only = true\n[buckets.a]\nbucket = 'b'\nread-only = false").unwrap();
        assert!(config.each().all(|(_, _, own)| own.read_only));
    }

    #[test]
    fn what_is_no_option_of_a_bucket_is_told_with_its_line_and_what_there_is() {
        let told = refused("[buckets]\na = 'b'\n[buckets.logs]\nbucket = 'c'\nmemory = '1G'\n");
        for part in [" line 7: `memory` is no option of one bucket", "`bucket`", "`endpoint-url`", "`sse-kms-key-id`"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        for of_mount in ["`cache-size`", "`max-upload`", "`show-versions`", "`uid`"] {
            assert!(!told.contains(of_mount), "{told}");
        }
        assert!(refused("[buckets.a]\nbucket = 'b'\nread-only = 'no'").contains("line 5: invalid type"));
        assert!(
            refused("[buckets]\na = 5").contains("line 4: invalid type: integer `5`, expected \"BUCKET[/PREFIX]\"")
        );
    }

    #[test]
    fn a_wrong_value_is_told_with_the_name_of_its_bucket() {
        assert!(refused("[buckets.a]\nregion = 'r'").contains("[buckets.a] names no bucket"));
        let told = refused("sse = 'AES256'\n[buckets.a]\nbucket = 'b'\nsse-c-key-file = '/k'");
        assert!(told.starts_with("a: ") && told.contains("exclude each other"), "{told}");
        assert!(refused("[buckets.a]\nbucket = 'b'\nendpoint-url = 'nas'").starts_with("a: 'nas' is no endpoint"));
        let several = "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap";
        let told = refused(&format!("[buckets.a]\nbucket = '{several}'"));
        assert!(told.starts_with("a: ") && told.contains("several regions"), "{told}");
        assert!(read(&format!("[buckets.a]\nbucket = '{several}'\nread-only = true")).is_ok());
    }

    #[test]
    fn no_object_appears_under_two_names() {
        for (one, other) in [("b", "b"), ("b", "b/p"), ("b/p/q", "b/p")] {
            let told = refused(&format!("[buckets]\none = '{one}'\nother = '{other}'"));
            assert!(told.contains("'one'") && told.contains("'other'"), "{told}");
        }
        assert!(read("[buckets]\none = 'b/p'\nother = 'b/pq'\nthird = 'c/p'").is_ok());
    }

    #[test]
    fn buckets_of_one_name_on_two_servers_are_two() {
        let at = |url: &str| {
            format!(
                "endpoint-url = 'http://one'\n[buckets]\na = 'b'\n[buckets.c]\nbucket = 'b'\nendpoint-url = '{url}'"
            )
        };
        assert!(read(&at("http://two")).is_ok());
        assert!(refused(&at("http://one/")).contains("each object would be there twice"));
    }
}
