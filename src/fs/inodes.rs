//! Who is where: the inodes that the kernel or an open file knows, and how they hang together.
//!
//! A node knows its parent and its name, never its key: renaming a directory changes one node, and
//! the keys of everything below it follow.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::content::Content;
use super::forgotten::Forgotten;
use super::names::{Child, Directory, Listing};
use super::noted::Noted;
use super::passthrough::Backing;
use super::stat::{FileKind, Stat};
use crate::bucket::ETag;
use crate::cache::Modified;
use crate::key::{self, ROOT_INO};

/// So many stored files keep a directory for a while.
const SEVERAL_FILES: usize = 3;

/// An inode number as programs see it in `st_ino`.
pub type Ino = u64;

/// What the kernel's page cache holds of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Pages {
    /// Nothing: it was never opened.
    Empty,
    /// Bytes are being put there: nobody may open the file meanwhile.
    Filling,
    /// Bytes of this version; of a file that S3 has not seen yet if `None`.
    Of(Option<ETag>),
    /// As `Of`, once the open that drops those of another version is known to have reached the kernel:
    /// by its release. Who opens meanwhile drops them too, or he might read them before.
    Dropping(Option<ETag>),
    /// Nobody can say: two versions were open at once.
    Unknown,
}

/// The attributes that the kernel was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelStat {
    Current,
    /// Of another version than the one here: its size would cut reads short.
    Outdated,
}

/// One inode.
#[derive(Debug)]
pub struct Node {
    pub ino: Ino,
    pub parent: Ino,
    pub name: String,
    /// False once the last name is gone: the node lives on for those who have it open.
    pub linked: bool,
    pub stat: Stat,
    /// What S3 holds under the key. `None`: nothing yet, or a directory without a marker.
    pub etag: Option<ETag>,
    /// `Last-Modified` of that version.
    pub modified: Modified,
    /// What S3 knows of it is in `stat`; false where only a listing has described it.
    pub told: bool,
    /// When S3 last confirmed that this is how things are.
    pub checked: Instant,
    /// References of the kernel (`fuse_forget_in`).
    pub lookups: u64,
    /// Open handles.
    pub opens: u32,
    /// Bytes that S3 does not have (yet), or no longer has.
    pub content: Option<Arc<Content>>,
    /// The local file that the kernel reads for who has this open, as long as one of them lives.
    pub backing: Weak<Backing>,
    /// What may lie in the kernel's page cache.
    pub pages: Pages,
    /// What the kernel remembers of `stat`.
    pub kernel_stat: KernelStat,
    /// Somebody else's version took its name while it was open here.
    pub superseded: bool,
    /// Of a directory: what is in it.
    pub directory: Option<Directory>,
    /// Of a directory: what S3 has yet to be told of it, once something was.
    pub noted: Option<Arc<Noted>>,
}

impl Node {
    /// A node that is linked at `parent`/`name`.
    pub fn new(ino: Ino, parent: Ino, name: &str, stat: Stat, checked: Instant) -> Self {
        let directory = (stat.kind == FileKind::Directory).then(Directory::default);
        Self {
            ino,
            parent,
            name: name.to_owned(),
            linked: true,
            stat,
            etag: None,
            modified: Modified::Unknown,
            told: true,
            checked,
            lookups: 0,
            opens: 0,
            content: None,
            backing: Weak::new(),
            pages: Pages::Empty,
            kernel_stat: KernelStat::Current,
            superseded: false,
            directory,
            noted: None,
        }
    }

    /// Whether names can be in it.
    pub fn is_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// Has something that S3 does not know.
    pub fn is_pending(&self) -> bool {
        self.is_noted() || self.content.as_ref().is_some_and(|content| content.is_dirty())
    }

    /// Has bytes that S3 does not have.
    pub fn has_unstored_bytes(&self) -> bool {
        self.content.as_ref().is_some_and(|content| content.bytes_dirty())
    }

    /// A directory of which S3 has yet to be told something.
    pub fn is_noted(&self) -> bool {
        self.noted.as_ref().is_some_and(|noted| noted.is_open())
    }

    /// Has a name, and something that S3 does not know, or need not know yet.
    pub fn is_unstored(&self) -> bool {
        let leaves = || self.content.as_ref().is_some_and(|content| content.attributes_leave());
        self.linked && (self.is_pending() || leaves())
    }

    /// Has a draft, clean or not, or is noted: what S3 says meanwhile must not touch it. Its next commit
    /// names the version that it was begun from, and learns then that this is gone.
    pub fn is_drafted(&self) -> bool {
        self.content.is_some() || self.is_noted()
    }

    /// Asks S3 again at the next use.
    pub fn expire(&mut self) {
        let long_ago = Duration::from_hours(24);
        self.checked = self.checked.checked_sub(long_ago).unwrap_or(self.checked);
    }

    /// Nobody refers to it any more.
    fn is_idle(&self) -> bool {
        self.lookups == 0 && self.opens == 0 && !self.is_drafted() && self.ino != ROOT_INO
    }
}

/// All inodes in use, by number.
#[derive(Debug)]
pub struct Tree {
    nodes: HashMap<Ino, Node>,
    root_prefix: String,
    /// Directories that were let go of although they knew of changes made here.
    forgotten: Forgotten,
}

impl Tree {
    /// A tree with nothing but its root.
    pub fn new(root_prefix: String, root: Stat) -> Self {
        let node = Node::new(ROOT_INO, ROOT_INO, "", root, Instant::now());
        Self { nodes: HashMap::from([(ROOT_INO, node)]), root_prefix, forgotten: Forgotten::new() }
    }

    /// The node of a number, if it is in use.
    pub fn get(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino)
    }

    /// A listing of `prefix` asked for before this moment may lack changes that were made here.
    pub fn forgotten_since(&self, prefix: &str) -> Instant {
        self.forgotten.since(prefix)
    }

    /// All nodes, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The directory part of a node, if it is one.
    pub fn directory_mut(&mut self, ino: Ino) -> Option<&mut Directory> {
        self.nodes.get_mut(&ino)?.directory.as_mut()
    }

    /// The node that `name` in `parent` stands for, if it is known.
    pub fn child(&self, parent: Ino, name: &str) -> Option<&Node> {
        let ino = self.nodes.get(&parent)?.directory.as_ref()?.child(name)?.ino?;
        self.nodes.get(&ino)
    }

    /// Children of a directory that have a draft here, or of which S3 has yet to be told.
    pub fn drafted_children(&self, ino: Ino) -> Vec<Ino> {
        let directory = self.nodes.get(&ino).and_then(|node| node.directory.as_ref());
        let children = directory.into_iter().flat_map(Directory::children).filter_map(|(_, child)| child.ino);
        children.filter(|child| self.nodes.get(child).is_some_and(Node::is_drafted)).collect()
    }

    /// Children that stay, whatever a listing says: those that are drafted, and directories it lacks that have such
    /// below them.
    pub fn held_children(&self, ino: Ino, listing: &Listing) -> Vec<Ino> {
        let directory = self.nodes.get(&ino).and_then(|node| node.directory.as_ref());
        let children = directory.into_iter().flat_map(Directory::children);
        let held = children.filter_map(|(name, child)| {
            let is_missing = child.is_directory && !listing.names.contains_key(name);
            child.ino.filter(|child| {
                self.nodes.get(child).is_some_and(Node::is_drafted) || (is_missing && self.is_held(*child))
            })
        });
        held.collect()
    }

    /// Whether S3 has something in a directory, besides what is leaving it; names that have no node are known from
    /// S3. What lies in a directory of which S3 has yet to be told counts for nothing: it may go before that is done.
    pub fn holds_stored(&self, ino: Ino, leaving: Option<&str>) -> bool {
        let is_stored = |node: &Node| node.etag.is_some() || (!node.is_noted() && self.holds_stored(node.ino, None));
        self.children_but(ino, leaving)
            .any(|child| child.ino.and_then(|ino| self.nodes.get(&ino)).is_none_or(is_stored))
    }

    /// Whether a directory needs no marker to stay for a while: a directory in it stays, or several files in it are
    /// stored. Other clients take a file away when they have done with it, but seldom all of several.
    pub fn stays_unmarked(&self, ino: Ino, leaving: Option<&str>) -> bool {
        let stays = |node: &Node| node.etag.is_some() || (!node.is_noted() && self.stays_unmarked(node.ino, None));
        let mut files = 0;
        self.children_but(ino, leaving).any(|child| {
            let node = child.ino.and_then(|ino| self.nodes.get(&ino));
            if child.is_directory {
                return node.is_some_and(stays);
            }
            files += usize::from(node.is_none_or(|node| node.etag.is_some()));
            files >= SEVERAL_FILES
        })
    }

    fn children_but(&self, ino: Ino, leaving: Option<&str>) -> impl Iterator<Item = &Child> {
        let directory = self.nodes.get(&ino).and_then(|node| node.directory.as_ref());
        let children = directory.into_iter().flat_map(Directory::children);
        children.filter(move |(name, _)| Some(name.as_str()) != leaving).map(|(_, child)| child)
    }

    /// Whether it, or something below it, is drafted: S3 need not know of it.
    pub fn is_held(&self, ino: Ino) -> bool {
        self.nodes.get(&ino).is_some_and(Node::is_drafted) || self.holds_held(ino)
    }

    /// Whether something below a directory is drafted.
    pub fn holds_held(&self, ino: Ino) -> bool {
        self.children_but(ino, None).filter_map(|child| child.ino).any(|child| self.is_held(child))
    }

    /// What S3 has under the name of a node was changed here: older listings must not contradict.
    pub fn note_change(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.checked = Instant::now();
        let (parent, name) = (node.parent, node.name.clone());
        if let Some(directory) = self.directory_mut(parent) {
            directory.note_change(&name);
        }
    }

    /// The key of a node: a directory's ends in `/`, the root's is the mount's prefix.
    pub fn key(&self, ino: Ino) -> Option<String> {
        let node = self.nodes.get(&ino)?;
        if ino == ROOT_INO {
            return Some(self.root_prefix.clone());
        }
        let mut parts = vec![node.name.as_str()];
        let mut above = node.parent;
        while above != ROOT_INO {
            let parent = self.nodes.get(&above)?;
            parts.push(&parent.name);
            above = parent.parent;
        }
        parts.reverse();
        let slash = if node.is_directory() { "/" } else { "" };
        Some(format!("{}{}{slash}", self.root_prefix, parts.join("/")))
    }

    /// Whether `ino` is `above` or lies somewhere below it.
    pub fn is_within(&self, mut ino: Ino, above: Ino) -> bool {
        while ino != above {
            match self.nodes.get(&ino) {
                Some(node) if ino != ROOT_INO => ino = node.parent,
                _ => return false,
            }
        }
        true
    }

    /// An inode number for a new node: the remembered one, or the key's own, or the next free.
    pub fn pick_ino(&self, key: &str, remembered: Option<Ino>) -> Ino {
        let mut ino = remembered.filter(|ino| *ino > ROOT_INO).unwrap_or_else(|| key::inode_number(key));
        while self.nodes.contains_key(&ino) {
            ino = ino.wrapping_add(1).max(ROOT_INO + 1);
        }
        ino
    }

    /// Whether a node's object was written here after `moment`.
    pub fn changed_since(&self, ino: Ino, moment: Instant) -> bool {
        let Some(node) = self.nodes.get(&ino) else { return false };
        let directory = self.nodes.get(&node.parent).and_then(|parent| parent.directory.as_ref());
        directory.is_some_and(|directory| directory.changed_since(&node.name, moment))
    }

    /// Adds a node and its name in the parent directory, which must exist.
    pub fn link(&mut self, node: Node) {
        if let Some(directory) = self.directory_mut(node.parent) {
            directory.attach(&node.name, node.ino, node.is_directory());
        }
        self.nodes.insert(node.ino, node);
    }

    /// Adds a node whose name S3's listing brought: its parent knows it already.
    pub fn insert(&mut self, node: Node) {
        self.nodes.insert(node.ino, node);
    }

    /// Takes a name away; the node stays while somebody holds it.
    pub fn unlink(&mut self, parent: Ino, name: &str) -> Option<Ino> {
        let ino = self.directory_mut(parent).and_then(|directory| directory.detach(name));
        self.orphan(ino?);
        ino
    }

    /// S3 has contradicted what is known of a file: it is asked again at the next use. A listing that
    /// is believed still names the old version.
    pub fn doubt(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.expire();
        let parent = node.parent;
        self.expire_listing(parent);
    }

    /// S3 is asked for the names of a directory at the next use: what it has said until now does not count, not
    /// even what a walk has read ahead.
    pub fn expire_listing(&mut self, ino: Ino) {
        let Some(directory) = self.directory_mut(ino) else { return };
        directory.expire();
        let key = self.key(ino);
        self.forgotten.note(key);
    }

    /// Gives the name of a node to somebody else's version: who has the node open keeps it, without
    /// a name. The name stays, for whoever has just listed the directory and looks for it.
    pub fn supersede(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.superseded = true;
        let (parent, name) = (node.parent, node.name.clone());
        if let Some(directory) = self.directory_mut(parent) {
            directory.forget_node(&name);
        }
        self.orphan(ino);
    }

    /// Marks a node whose name is gone.
    pub fn orphan(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.linked = false;
            if let Some(content) = &node.content {
                content.outgoing.discard();
            }
        }
        self.drop_if_idle(ino);
    }

    /// Moves a linked node to another place; what was there must have been unlinked before.
    pub fn relink(&mut self, ino: Ino, parent: Ino, name: &str) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        let (old_parent, is_directory) = (node.parent, node.is_directory());
        let old_name = std::mem::replace(&mut node.name, name.to_owned());
        node.parent = parent;
        if let Some(directory) = self.directory_mut(old_parent) {
            directory.detach(&old_name);
        }
        if let Some(directory) = self.directory_mut(parent) {
            directory.attach(name, ino, is_directory);
        }
    }

    /// The kernel or a handle let go of a node: keep it only while something else needs it.
    pub fn drop_if_idle(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get(&ino) else { return };
        // A directory in use by nobody may still be the parent of nodes that are.
        if !node.is_idle() || node.directory.as_ref().is_some_and(Directory::has_nodes) {
            return;
        }
        let (parent, name, linked) = (node.parent, node.name.clone(), node.linked);
        if node.directory.as_ref().is_some_and(Directory::has_changes) {
            let key = self.key(ino);
            self.forgotten.note(key);
        }
        self.nodes.remove(&ino);
        if linked && let Some(directory) = self.directory_mut(parent) {
            directory.forget_node(&name);
        }
        self.drop_if_idle(parent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ino: Ino, parent: Ino, name: &str, kind: FileKind) -> Node {
        Node::new(ino, parent, name, Stat::fresh(kind, 0o755, 0, 0), Instant::now())
    }

    #[test]
    fn a_listing_of_before_a_contradiction_tells_nothing_of_its_directory() {
        let mut tree = Tree::new(String::new(), Stat::fresh(FileKind::Directory, 0o755, 0, 0));
        tree.link(node(2, ROOT_INO, "a", FileKind::Directory));
        tree.link(node(3, 2, "f", FileKind::File));
        let asked = Instant::now();
        assert!(tree.forgotten_since("a/") <= asked);
        tree.doubt(3);
        assert!(tree.forgotten_since("a/") >= asked, "what a walk has read ahead names the old version too");
        assert!(tree.forgotten_since("") <= asked);
    }

    #[test]
    fn the_name_of_a_superseded_file_stays() {
        let mut tree = Tree::new(String::new(), Stat::fresh(FileKind::Directory, 0o755, 0, 0));
        tree.link(node(2, ROOT_INO, "f", FileKind::File));
        tree.get_mut(2).unwrap().opens = 1;
        tree.supersede(2);
        assert!(tree.get(2).is_some_and(|node| !node.linked), "who has it open keeps it");
        let child = tree.directory_mut(ROOT_INO).unwrap().child("f");
        assert!(child.is_some_and(|child| child.ino.is_none()), "and the next node is theirs");
    }

    #[test]
    fn several_stored_files_keep_a_directory() {
        let mut tree = Tree::new(String::new(), Stat::fresh(FileKind::Directory, 0o755, 0, 0));
        tree.link(node(2, ROOT_INO, "a", FileKind::Directory));
        tree.link(node(3, 2, "b", FileKind::Directory));
        for (ino, name) in [(4, "f"), (5, "g"), (6, "h")] {
            assert!(!tree.stays_unmarked(3, None));
            tree.link(node(ino, 3, name, FileKind::File));
            assert!(!tree.stays_unmarked(3, None), "it is not stored");
            tree.get_mut(ino).unwrap().etag = Some(ETag::new("v1"));
        }
        assert!(tree.stays_unmarked(3, None) && tree.stays_unmarked(2, None));
        assert!(!tree.stays_unmarked(3, Some("g")) && !tree.stays_unmarked(2, Some("b")));
        tree.directory_mut(3).unwrap().forget_node("h");
        assert!(tree.stays_unmarked(3, None), "what has no node is known from S3");
    }

    #[test]
    fn what_s3_has_in_a_directory_counts_unless_it_is_leaving_or_untold() {
        let mut tree = Tree::new(String::new(), Stat::fresh(FileKind::Directory, 0o755, 0, 0));
        tree.link(node(2, ROOT_INO, "a", FileKind::Directory));
        tree.link(node(3, 2, "b", FileKind::Directory));
        tree.link(node(4, 3, "f", FileKind::File));
        assert!(!tree.holds_stored(2, None), "nothing is stored");
        tree.get_mut(4).unwrap().etag = Some(ETag::new("v1"));
        assert!(tree.holds_stored(2, None) && tree.holds_stored(3, None));
        assert!(!tree.holds_stored(3, Some("f")) && !tree.holds_stored(2, Some("b")));
        assert!(!tree.stays_unmarked(2, None), "a file goes whenever another client wants");
        tree.link(node(5, 3, "g", FileKind::File));
        assert!(!tree.holds_stored(3, Some("f")), "the other one is not stored");
        tree.directory_mut(3).unwrap().forget_node("g");
        assert!(tree.holds_stored(3, Some("f")), "what has no node is known from S3");
        tree.get_mut(3).unwrap().etag = Some(ETag::new("m"));
        assert!(tree.stays_unmarked(2, None) && !tree.stays_unmarked(2, Some("b")) && !tree.stays_unmarked(3, None));
    }
}
