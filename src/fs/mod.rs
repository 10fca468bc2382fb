//! POSIX meaning over objects: what each system call does, told without `fuser` and without the
//! AWS SDK.
//!
//! Nouns: [`inodes`] (who is where), [`names`] (what a directory holds), [`handles`] (who has what
//! open), [`draft`] (the local image of a file being written), [`passthrough`] (what the kernel reads
//! by itself), [`removals`] (what is still to go from the bucket). Verbs: [`ops`], one file per
//! system call or family. [`listing`], [`refresh`], [`resolve`] and [`revalidate`] learn from S3, [`commit`] and
//! [`persist`] tell S3; in a write-back mount a close is a [`deferral`], and the [`uploader`] tells S3. A
//! [`gatekeeper`] may forbid it. What a bucket keeps of older versions is found by [`history`].
//!
//! **Invariant:** locks are taken in the order *namespace → gate → draft → tree*, and neither the
//! draft's nor the tree's lock is ever held across an await.

mod append;
mod backlog;
mod changes;
mod commit;
mod conflict;
mod content;
mod deferral;
mod doubt;
mod draft;
mod edges;
mod errors;
mod forgotten;
mod gatekeeper;
mod handles;
mod heads;
mod hints;
mod history;
mod inodes;
mod invalidate;
mod kernel;
mod listing;
mod names;
mod noted;
pub mod ops;
mod outgoing;
mod pages;
mod passthrough;
mod persist;
mod recovery;
mod refresh;
mod rejected;
mod removals;
mod resolve;
mod resume;
mod revalidate;
mod siblings;
mod small;
mod stat;
mod status;
mod storing;
mod told;
mod unchanged;
mod uploader;
mod waiting;
mod walk;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::bucket::{Bucket, Layout};
use crate::cache::{AttributeIndex, BlockCache};
use crate::journal::Journal;
use crate::key::ROOT_INO;

pub use backlog::{BacklogLimits, BacklogStatus};
pub use errors::{Error, Result};
pub use gatekeeper::{Answer, Gatekeeper, Proposal, Proposed, Refusal};
pub use inodes::Ino;
pub use kernel::Kernel;
pub use passthrough::Backing;
pub use recovery::RecoveryReport;
pub use rejected::Rejected;
pub use stat::{FileKind, Stat};
pub use status::{FileCounts, Status};
pub use storing::Undrained;
pub use told::Attrs;
pub use uploader::Uploader;

/// What the file system needs to know about its mount.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is said by itself")]
pub struct Settings {
    /// Key prefix of the mount: empty, or ending in `/` ([`crate::key::root_prefix`]).
    pub root_prefix: String,
    /// Which buckets the keys lie in. The root of several holds these alone, for good.
    pub layout: Layout,
    /// Owner of objects that carry no owner of their own.
    pub uid: u32,
    pub gid: u32,
    /// Taken off 0666 and 0777 for objects that carry no mode of their own.
    pub umask: u16,
    pub read_only: bool,
    /// The bucket has older versions below `.versions` of each directory, which no listing tells of.
    pub show_versions: bool,
    /// How long attributes are believed before S3 is asked again.
    pub attr_ttl: Duration,
    /// How long a listing is believed.
    pub list_ttl: Duration,
    /// How long a name that a listing lacks is believed to be missing.
    pub negative_ttl: Duration,
    /// Where attributes come from when a directory is listed.
    pub attrs: Attrs,
    /// Whether the server's LIST tells checksums, where that is known.
    pub list_checksums: Option<bool>,
    /// The server is known to heed conditions: a copy that names a version is a copy of that one.
    pub heeds_conditions: bool,
    /// Where drafts lie: a 0700 directory on a local file system, never on the mount itself.
    pub draft_dir: PathBuf,
    /// What small drafts may take of memory, all together; the others lie in files.
    pub draft_memory_bytes: u64,
    /// Hooks are configured: commits are journaled as events. [`Fs::tell_hooks`] is for those that come later.
    pub events: bool,
    /// Closes are answered from the journal, and the uploader sends them; `None`: closes answer for S3.
    pub write_back: Option<BacklogLimits>,
    /// Attributes of closed files wait a moment for the rename or the write that carries them; needs the
    /// uploader. Else S3 has them when the call returns.
    pub attributes_wait: bool,
    /// How a multipart upload is cut and how many parts travel at once.
    pub upload: crate::bucket::upload::UploadSettings,
}

/// Who asks: from the request's header (`fuse(4)`).
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// Thread id; 0 where the kernel does not know (RELEASE, other pid namespaces).
    pub pid: u32,
}

/// A mounted bucket.
#[derive(Debug)]
pub struct Fs {
    /// For tasks that live as long as this does.
    me: Weak<Self>,
    /// As it will be when nothing waits to be removed any more.
    bucket: Arc<dyn Bucket>,
    removals: removals::Removals,
    cache: Arc<BlockCache>,
    index: Arc<AttributeIndex>,
    journal: Arc<Journal>,
    /// Commits are journaled as events.
    tells_hooks: AtomicBool,
    settings: Settings,
    tree: Mutex<inodes::Tree>,
    handles: handles::Handles,
    odd_keys: Arc<Mutex<status::OddKeys>>,
    listings: listing::Flights,
    passthrough: passthrough::Passthrough,
    kernel: kernel::Link,
    gatekeeper: OnceLock<Arc<dyn Gatekeeper>>,
    drafts: Arc<draft::Space>,
    shelf: Arc<rejected::Shelf>,
    /// Keys of directories in which nothing can be changed.
    views: parking_lot::RwLock<Vec<String>>,
    siblings: siblings::Siblings,
    origins: Arc<told::Origins>,
    heads: Arc<heads::Heads>,
    walks: Arc<walk::Walks>,
    lister: pages::Lister,
    backlog: Arc<backlog::Backlog>,
    /// Versions of ours that lost against another client's.
    conflicts: AtomicU64,
    /// Where parts of files being written are sent from; none outside of a runtime.
    runtime: Option<tokio::runtime::Handle>,
    /// The server copies ranges into uploads; false once it has refused to.
    copies_parts: AtomicBool,
    /// The last large object of others that was changed carried no more than its listing told.
    others_are_plain: AtomicBool,
    /// Directory buckets rename; false once one has refused to.
    renames: AtomicBool,
    /// Directory buckets append; false once one cannot.
    appends: AtomicBool,
    /// Held shared by whatever uses a key while it talks to S3; exclusively by the rename of a
    /// directory, which changes the keys of everything below it.
    namespace: tokio::sync::RwLock<()>,
}

impl Fs {
    /// Puts the rooms together; nothing is sent yet. Call [`Fs::recover`] before serving.
    pub fn new(
        bucket: Arc<dyn Bucket>,
        cache: Arc<BlockCache>,
        index: Arc<AttributeIndex>,
        journal: Arc<Journal>,
        settings: Settings,
    ) -> Arc<Self> {
        let root = stat::Stat::directory(&settings);
        let removals = removals::Removals::new(bucket);
        let bucket = removals.view();
        let origins = Arc::new(told::Origins::new(settings.attrs, settings.list_checksums));
        let odd_keys = Arc::<Mutex<status::OddKeys>>::default();
        let heads = heads::Heads::new(bucket.clone(), index.clone(), settings.layout.clone());
        let lister = pages::Lister { bucket: bucket.clone(), origins: origins.clone(), odd_keys, heads: heads.clone() };
        let shortest = if settings.layout.is_united() { 1 } else { settings.root_prefix.len() };
        let walks = walk::Walks::new(lister.clone(), shortest, settings.list_ttl);
        if !settings.layout.lists_in_order() {
            walks.disable();
        }
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            bucket,
            removals,
            cache,
            index,
            journal,
            tree: Mutex::new(inodes::Tree::new(settings.root_prefix.clone(), root)),
            origins,
            heads,
            walks,
            gatekeeper: OnceLock::new(),
            views: parking_lot::RwLock::default(),
            drafts: draft::Space::new(&settings.draft_dir, settings.draft_memory_bytes),
            shelf: Arc::new(rejected::Shelf::beside(&settings.draft_dir)),
            tells_hooks: AtomicBool::new(settings.events),
            settings,
            handles: handles::Handles::default(),
            odd_keys: lister.odd_keys.clone(),
            lister,
            listings: listing::Flights::default(),
            passthrough: passthrough::Passthrough::default(),
            kernel: kernel::Link::default(),
            siblings: siblings::Siblings::default(),
            backlog: Arc::default(),
            conflicts: AtomicU64::new(0),
            runtime: tokio::runtime::Handle::try_current().ok(),
            copies_parts: AtomicBool::new(true),
            others_are_plain: AtomicBool::new(true),
            renames: AtomicBool::new(true),
            appends: AtomicBool::new(true),
            namespace: tokio::sync::RwLock::new(()),
        })
    }

    /// The bucket as this mount shows it: what was removed here is not there, whether it is gone yet or
    /// not, and what is written under its key waits until it is.
    pub fn bucket(&self) -> Arc<dyn Bucket> {
        self.bucket.clone()
    }

    /// How long the kernel may believe what it was told.
    pub fn attr_ttl(&self) -> Duration {
        self.settings.attr_ttl
    }

    /// From now on nothing can be changed in these directories, named by their keys.
    pub fn set_views(&self, keys: Vec<String>) {
        *self.views.write() = keys;
    }

    /// `EROFS` for what is in a view, for the view itself, and for a bucket that is only read.
    fn writable_at(&self, ino: Ino) -> Result<()> {
        self.writable()?;
        let views = self.views.read();
        if views.is_empty() && !self.settings.show_versions && !self.settings.layout.is_united() {
            return Ok(());
        }
        let key = self.tree.lock().key(ino).unwrap_or_default();
        drop(views);
        let is_fixed = self.is_shown(&key) || self.settings.layout.is_read_only(&key);
        if is_fixed { Err(Error::from(nix::errno::Errno::EROFS)) } else { Ok(()) }
    }

    /// A key in a view, or below `.versions`.
    fn is_shown(&self, key: &str) -> bool {
        self.views.read().iter().any(|view| key.starts_with(view.as_str())) || self.is_history(key)
    }

    /// `EXDEV` where the server cannot copy from one directory to the other: as between two file systems,
    /// which is what `mv` copies for.
    fn copies_between(&self, from: Ino, to: Ino) -> Result<()> {
        if !self.settings.layout.is_united() {
            return Ok(());
        }
        let key = |ino| self.tree.lock().key(ino).unwrap_or_default();
        let (from, to) = (key(from), key(to));
        if self.settings.layout.copies(&from, &to) { Ok(()) } else { Err(Error::from(nix::errno::Errno::EXDEV)) }
    }

    /// `EPERM` for what would change a name in the root of several buckets (`chattr(1)` of an immutable
    /// directory): no bucket is there to keep it.
    fn names_may_change_in(&self, parent: Ino, name: &OsStr) -> Result<()> {
        if parent != ROOT_INO || !self.settings.layout.is_united() {
            return Ok(());
        }
        let name = name.to_string_lossy().escape_debug().to_string();
        tracing::info!(name, "not done (EPERM): the root of this mount holds its buckets, and nothing else");
        Err(Error::from(nix::errno::Errno::EPERM))
    }

    /// From now on commits are journaled as events: hooks listen.
    pub fn tell_hooks(&self) {
        self.tells_hooks.store(true, Ordering::Release);
    }

    fn tells_hooks(&self) -> bool {
        self.tells_hooks.load(Ordering::Acquire)
    }

    fn writable(&self) -> Result<()> {
        if self.settings.read_only { Err(Error::from(nix::errno::Errno::EROFS)) } else { Ok(()) }
    }
}
