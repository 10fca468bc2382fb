//! `ListObjectsV2` over a sorted map.

use std::ops::Bound;

use super::super::{ListPage, ListRequest, Listed, PAGE_KEYS};
use super::{Faithless, Object, State};

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
            None => page.objects.push(listed(key, object, state.faithless.contains(&Faithless::HidesChecksums))),
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

/// One page as a directory bucket gives it: in an order that nobody foresees, and only of what it can be asked for.
pub(super) fn page_of_directory_bucket(state: &State, request: &ListRequest, page_keys: usize) -> Option<ListPage> {
    if request.start_after.is_some() || !(request.prefix.is_empty() || request.prefix.ends_with('/')) {
        return None;
    }
    let scattered = |key: &str| key.bytes().rev().map(|byte| byte.wrapping_mul(67)).collect::<Vec<u8>>();
    let mut entries = Vec::new();
    let mut asked = ListRequest { token: None, max_keys: None, ..request.clone() };
    loop {
        let page = page(state, &asked);
        entries.extend(page.objects.into_iter().map(|object| (scattered(&object.key), Ok(object))));
        entries.extend(page.prefixes.into_iter().map(|below| (scattered(&below), Err(below))));
        asked.token = page.next;
        if asked.token.is_none() {
            break;
        }
    }
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    let after = request.token.as_deref().map(scattered);
    let mut left = entries.into_iter().filter(|(place, _)| after.as_ref().is_none_or(|after| place > after)).peekable();
    let mut page = ListPage::default();
    let limit = request.max_keys.map_or(page_keys, |max| usize::from(max).min(page_keys));
    for (_, entry) in left.by_ref().take(limit) {
        page.next = Some(match &entry {
            Ok(object) => object.key.clone(),
            Err(below) => below.clone(),
        });
        match entry {
            Ok(object) => page.objects.push(object),
            Err(below) => page.prefixes.push(below),
        }
    }
    if left.peek().is_none() {
        page.next = None;
    }
    Some(page)
}
