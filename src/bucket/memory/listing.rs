//! `ListObjectsV2` over a sorted map.

use std::ops::Bound;

use super::super::{ListPage, ListRequest, Listed};
use super::{Object, State};

/// Largest page (AWS: `ListObjectsV2`).
const PAGE_KEYS: usize = 1000;

/// One page. The token is the last key or common prefix of the page before.
pub(super) fn page(state: &State, request: &ListRequest) -> ListPage {
    let after = request.token.as_deref().or(request.start_after.as_deref()).unwrap_or("");
    let limit = request.max_keys.map_or(PAGE_KEYS, |max| usize::from(max).min(PAGE_KEYS));
    let mut page = ListPage::default();
    let mut last = String::new();
    let from = after.max(request.prefix.as_str());
    for (key, object) in state.objects.range::<str, _>((Bound::Included(from), Bound::Unbounded)) {
        let Some(rest) = key.strip_prefix(&request.prefix) else { break };
        let group = (request.delimited).then(|| rest.find('/')).flatten();
        let name = group.map_or(key.as_str(), |end| &key[..=request.prefix.len() + end]);
        if name <= after || name == last {
            continue;
        }
        if page.objects.len() + page.prefixes.len() == limit {
            page.next = Some(last);
            break;
        }
        name.clone_into(&mut last);
        match group {
            Some(_) => page.prefixes.push(name.to_owned()),
            None => page.objects.push(listed(key, object, state.hides_checksums)),
        }
    }
    page
}

fn listed(key: &str, object: &Object, hides_checksums: bool) -> Listed {
    let checksums = if hides_checksums { Vec::new() } else { vec![object.checksum.to_owned()] };
    Listed {
        key: key.to_owned(),
        etag: object.etag.clone(),
        size: object.bytes.len() as u64,
        modified: object.modified,
        storage_class: object.properties.storage_class.clone(),
        checksums,
    }
}
