//! LIST over several buckets, one request to one of them at a time. The names come first in each
//! key, so the order of keys is that of the buckets, and of the keys in each.

use super::United;
use crate::bucket::layout::Root;
use crate::bucket::{ListPage, ListRequest, Listed, PAGE_KEYS, Result};

impl United {
    pub(super) async fn list_page(&self, request: &ListRequest) -> Result<ListPage> {
        if request.delimited && !request.prefix.contains('/') {
            Ok(self.names(request))
        } else {
            self.keys(request).await
        }
    }

    /// What the root directory holds: nobody need be asked for it. The token is the last name before.
    fn names(&self, request: &ListRequest) -> ListPage {
        let after = request.token.as_ref().or(request.start_after.as_ref()).map_or("", String::as_str);
        let names = self.layout.roots().iter().map(|root| root.at.as_str());
        let mut names = names.filter(|name| name.starts_with(&request.prefix) && *name > after);
        let most = request.max_keys.map_or(PAGE_KEYS, usize::from).min(PAGE_KEYS);
        let prefixes: Vec<String> = names.by_ref().take(most).map(str::to_owned).collect();
        let next = names.next().and(prefixes.last().cloned());
        ListPage { objects: Vec::new(), prefixes, next }
    }

    /// A page of one bucket: of the one that the token or the prefix names, else of the first that can hold
    /// such a key. The token is `NAME/`, and the token of that bucket behind it.
    async fn keys(&self, request: &ListRequest) -> Result<ListPage> {
        let after = request.start_after.as_deref().filter(|_| request.token.is_none()).unwrap_or_default();
        let token = request.token.as_deref();
        let is_left = |root: &Root| match token {
            Some(token) => token.starts_with(&root.at) || root.at.as_str() > token,
            None => after.starts_with(&root.at) || root.at.as_str() > after,
        };
        let in_reach = |root: &&(usize, &Root)| prefix_in(root.1, &request.prefix).is_some() && is_left(root.1);
        let roots: Vec<(usize, &Root)> = self.layout.roots().iter().enumerate().collect();
        let mut left = roots.iter().filter(in_reach);
        let Some((index, root)) = left.next() else { return Ok(ListPage::default()) };
        let asked = ListRequest {
            prefix: prefix_in(root, &request.prefix).unwrap_or_default(),
            token: token
                .and_then(|token| token.strip_prefix(&root.at))
                .filter(|own| !own.is_empty())
                .map(str::to_owned),
            start_after: root.there(after).filter(|key| !key.is_empty()),
            ..request.clone()
        };
        let page = self.buckets[*index].list(&asked).await?;
        let next_bucket = || left.next().map(|(_, root)| root.at.clone());
        let next = page.next.map(|own| format!("{}{own}", root.at)).or_else(next_bucket);
        let here = |listed: Listed| Some(Listed { key: root.here(&listed.key)?, ..listed });
        Ok(ListPage {
            objects: page.objects.into_iter().filter_map(here).collect(),
            prefixes: page.prefixes.iter().filter_map(|below| root.here(below)).collect(),
            next,
        })
    }
}

/// What keys begin with in a bucket, which begin with this in the mount; `None` where none can.
pub(super) fn prefix_in(root: &Root, prefix: &str) -> Option<String> {
    root.there(prefix).or_else(|| root.at.starts_with(prefix).then(|| root.prefix.clone()))
}
