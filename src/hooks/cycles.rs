//! Hooks whose output fires them again, found when settings are read.
//!
//! It looks at directories: would a rule want whatever a hook leaves, by any name? A rule that asks for
//! more (an ending) or excludes something may keep the output out, which nobody can tell before it is
//! there: at run time the lineage of each event sees to that.

use std::collections::VecDeque;

use super::HookSpec;

/// Names that no rule asks for on purpose.
const PROBES: [&str; 2] = ["s3mount-probe-6f1c", "s3mount-probe-6f1c/s3mount-probe-6f1c"];

/// The shortest ring of hooks that fire each other and whose first does not allow it, by their indices.
pub(super) fn find(specs: &[HookSpec]) -> Option<Vec<usize>> {
    let fired_by = |from: &HookSpec| (0..specs.len()).filter(|&to| fires(from, &specs[to])).collect();
    let edges: Vec<Vec<usize>> = specs.iter().map(fired_by).collect();
    let strict = (0..specs.len()).filter(|&index| !specs[index].allow_recursion);
    strict.filter_map(|start| way_back(&edges, start)).min_by_key(Vec::len)
}

fn fires(from: &HookSpec, to: &HookSpec) -> bool {
    if !from.mode.takes_events() || !to.mode.takes_events() || from.target.is_some() {
        // They publish nothing, and are not told of what others publish.
        return false;
    }
    let any = |directory: &str| PROBES.iter().any(|name| to.takes_output(&format!("{directory}{name}")));
    to.exclude.patterns().is_empty() && from.output_directories().into_iter().chain(from.told_directories()).any(any)
}

/// The shortest way from a hook to itself.
fn way_back(edges: &[Vec<usize>], start: usize) -> Option<Vec<usize>> {
    let mut came_from: Vec<Option<usize>> = vec![None; edges.len()];
    let mut waiting = VecDeque::from([start]);
    while let Some(at) = waiting.pop_front() {
        for &next in &edges[at] {
            if next == start {
                let mut way: Vec<usize> = std::iter::successors(Some(at), |&step| came_from[step]).collect();
                way.reverse();
                return Some(way);
            }
            if came_from[next].is_none() {
                came_from[next] = Some(at);
                waiting.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the hooks in a ring, if there is one.
    fn ring(settings: &[&str]) -> Option<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("m.wat"), "(module)").unwrap();
        let hook = |(number, settings)| format!("[[hook]]\nname = \"h{number}\"\nwasm = \"m.wat\"\n{settings}\n");
        let text: Vec<String> = settings.iter().enumerate().map(hook).collect();
        std::fs::write(dir.path().join("hooks.toml"), text.join("\n")).unwrap();
        let specs = super::super::settings::parse(&dir.path().join("hooks.toml")).unwrap();
        find(&specs).map(|ring| ring.into_iter().map(|index| specs[index].name.clone()).collect())
    }

    #[test]
    fn a_hook_whose_directory_takes_its_own_output_is_a_ring() {
        for settings in [
            "",
            "match = [\"**\"]",
            "match = [\"a/**\"]",
            "match = [\"a/*\"]",
            "prefix = \"a/\"",
            "match = [\"x\", \"b/**\"]",
            "match = [\"a/**\"]\noutput = \"a/made\"",
            "match = [\"a/**\"]\nevents = [\"ObjectCreated:CompleteMultipartUpload\"]",
        ] {
            assert_eq!(ring(&[settings]), Some(vec!["h0".to_owned()]), "{settings}");
            assert_eq!(
                ring(&[settings, "match = [\"z\"]\noutput = \"z\"", "allow-recursion = true"]).unwrap()[0],
                "h0"
            );
            assert_eq!(ring(&[&format!("{settings}\nallow-recursion = true")]), None);
        }
    }

    #[test]
    fn what_its_rule_may_keep_out_is_none() {
        for settings in [
            "match = [\"a/**\"]\noutput = \"b\"",
            "match = [\"a/*\"]\noutput = \"a/b/c\"\nevents = [\"ObjectCreated:*\"]\nsuffix = \".x\"",
            "match = [\"**/*.gz\"]",
            "suffix = \".gz\"",
            "match = [\"a/**\"]\nexclude = [\"**/*.sha256\"]",
            "match = [\"a/file\"]",
            "events = [\"ObjectRemoved:*\"]",
            "events = [\"ObjectCreated:Copy\"]",
        ] {
            assert_eq!(ring(&[settings]), None, "{settings}");
        }
    }

    #[test]
    fn hooks_that_fire_each_other_are_a_ring_unless_all_allow_it() {
        let hop = |from: &str, to: &str| format!("match = [\"{from}/**\"]\noutput = \"{to}\"");
        let allowed = |from: &str, to: &str| format!("{}\nallow-recursion = true", hop(from, to));
        let ring = |settings: &[String]| ring(&settings.iter().map(String::as_str).collect::<Vec<_>>());
        let names = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(ring(&[hop("a", "b"), hop("b", "c")]), None);
        assert_eq!(ring(&[hop("a", "b"), hop("b", "a")]), names(&["h0", "h1"]));
        assert_eq!(ring(&[hop("x", "a"), hop("a", "b"), hop("c", "a"), hop("b", "c")]), names(&["h1", "h3", "h2"]));
        assert_eq!(ring(&[allowed("a", "b"), hop("b", "a")]), names(&["h1", "h0"]), "one of them is not enough");
        assert_eq!(ring(&[allowed("a", "b"), allowed("b", "a")]), None);
    }
}
